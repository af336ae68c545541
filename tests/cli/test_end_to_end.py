"""A teacher and a student on a tiny task, and everything one does with them."""

import json
import pathlib
import shlex
import shutil

import jax
import numpy as np
import pytest

from augdistill.cli import predict, screens
from augdistill.cli.trained import Trained
from augdistill.data.vocabulary import load_vocab
from tests.cli.tiny import (
  BOTH,
  LABELS,
  TINY,
  examples,
  ok,
  params,
  read_jsonl,
  results,
  run,
  same_bits,
  snapshot,
  write_tsv,
)

RESULT_KEYS = {
  *("schema_version", "method", "task", "seed", "metrics", "teacher_metrics"),
  *("agreement", "num_params", "num_steps", "best_step", "train_seconds"),
  *("seconds_per_1000_steps", "examples_per_second"),
}
PREDICTION_KEYS = [
  *("example_id", "sentence", "label", "prediction", "probabilities"),
  "teacher_probabilities",
]
METRICS = {"accuracy", "macro_f1", "matthews_correlation"}


@pytest.fixture(scope="module", params=["teacher", "student"])
def finished(request):
  return request.getfixturevalue(request.param)


# --- the run directory -----------------------------------------------------


def test_a_run_leaves_the_files_of_its_list_and_no_other(finished):
  tops = {path.name for path in finished.iterdir()}
  assert tops == {
    *("config.gin", "student.gin", "command.sh", "provenance.json"),
    *("metrics.jsonl", "tensorboard", "checkpoints", "vocab", "predictions"),
    *("MODEL_CARD.md", "results.json"),
  }
  card = (finished / "MODEL_CARD.md").read_text()
  assert "54 training, 6 validation, 12 test" in card
  names = {path.name for path in (finished / "predictions").iterdir()}
  assert names == {"validation.jsonl", "test.jsonl"}
  assert [p.name for p in (finished / "vocab").iterdir()] == ["vocab.spm"]
  events = list((finished / "tensorboard").iterdir())
  assert len(events) == 1
  assert "tfevents" in events[0].name
  steps = {path.name for path in (finished / "checkpoints").iterdir()}
  assert steps <= {"2", "4"}
  assert "4" in steps


def test_results_have_exactly_the_keys_of_their_schema(teacher, student):
  for path, method in ((teacher, "ft"), (student, BOTH)):
    found = results(path)
    assert set(found) == RESULT_KEYS
    assert found["method"] == method
    assert set(found["metrics"]) == {"validation", "test"}
    assert set(found["metrics"]["test"]) == METRICS
    assert (found["seed"], found["num_steps"]) == (0, 4)
    assert found["train_seconds"] > 0
    assert found["seconds_per_1000_steps"] == pytest.approx(
      found["train_seconds"] * 250
    )
    assert found["examples_per_second"] == pytest.approx(
      4 * 8 / found["train_seconds"]
    )
  size = results(teacher)["num_params"]["student"]
  assert results(teacher)["num_params"] == {"student": size, "teacher": None}
  assert results(teacher)["teacher_metrics"] == {}
  assert results(teacher)["agreement"] is None
  assert results(student)["num_params"] == {"student": size, "teacher": size}
  assert results(student)["teacher_metrics"] == results(teacher)["metrics"]
  assert 0 <= results(student)["agreement"] <= 1


def test_predictions_have_exactly_their_keys_in_order(teacher, student):
  for path in (teacher, student):
    rows = read_jsonl(path / "predictions" / "test.jsonl")
    assert len(rows) == 12
    for i, (row, (text, label)) in enumerate(
      zip(rows, examples(12, first=60), strict=True)
    ):
      assert list(row) == PREDICTION_KEYS
      assert (row["example_id"], row["sentence"]) == (i, text)
      assert row["label"] == label
      assert set(row["probabilities"]) == set(LABELS)
      assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-4)
      best = max(row["probabilities"], key=row["probabilities"].get)
      assert row["prediction"] == best


def test_the_teachers_probabilities_are_the_teachers_own(teacher, student):
  own = read_jsonl(teacher / "predictions" / "test.jsonl")
  seen = read_jsonl(student / "predictions" / "test.jsonl")
  assert all(row["teacher_probabilities"] is None for row in own)
  for one, other in zip(own, seen, strict=True):
    for name, value in one["probabilities"].items():
      assert other["teacher_probabilities"][name] == pytest.approx(
        value, abs=2e-6
      )


def test_agreement_is_the_share_of_equal_predictions(teacher, student):
  own = read_jsonl(teacher / "predictions" / "test.jsonl")
  seen = read_jsonl(student / "predictions" / "test.jsonl")
  pairs = zip(own, seen, strict=True)
  equal = np.mean([a["prediction"] == b["prediction"] for a, b in pairs])
  assert results(student)["agreement"] == pytest.approx(equal)


def test_metrics_of_every_step_and_score_are_written(student):
  rows = read_jsonl(student / "metrics.jsonl")
  trained = [row for row in rows if "loss" in row]
  assert [row["step"] for row in trained] == [1, 2, 3, 4]
  wanted = {"gradient_norm", "clean/label", "clean/kl", "augpro_mix/kl"}
  wanted |= {"augpro_fgsm/kl", "augpro_mix/changed", "augpro_fgsm/changed"}
  assert all(wanted <= set(row) for row in trained)
  scored = [row for row in rows if "validation/accuracy" in row]
  assert [row["step"] for row in scored] == [2, 4]
  seconds = [row["train_seconds"] for row in scored]
  assert 0 < seconds[0] < seconds[1]
  # Of a start there is one first step.
  first, second = (row["startup_seconds"] for row in scored)
  assert first == second > 0


def test_the_best_checkpoint_is_the_one_that_is_scored(student):
  rows = read_jsonl(student / "metrics.jsonl")
  scores = {
    row["step"]: row["validation/accuracy"]
    for row in rows
    if "validation/accuracy" in row
  }
  found = results(student)
  assert found["best_step"] in scores
  assert scores[found["best_step"]] == max(scores.values())
  assert found["metrics"]["validation"]["accuracy"] == max(scores.values())


def test_an_earlier_checkpoint_that_scored_better_is_used(
  tmp_path, files, data, teacher
):
  copy = tmp_path / "copy"
  shutil.copytree(teacher, copy)
  (copy / "results.json").unlink()
  for step, score in (("2", 0.9), ("4", 0.1)):
    path = copy / "checkpoints" / step / "_CHECKPOINT_METADATA"
    metadata = json.loads(path.read_text())
    metadata["custom_metadata"]["accuracy"] = score
    path.write_text(json.dumps(metadata))
  ok("finetune", *data, *TINY, f"--output_dir={copy}")
  assert results(copy)["best_step"] == 2
  # Both the run's own scores and those of its users are of that step.
  served = Trained.load(str(copy))
  assert same_bits(served.params, params(copy, 2))
  assert not same_bits(served.params, params(copy, 4))
  done = ok("evaluate", f"--run={copy}", f"--data={files / 'test.tsv'}")
  found = results(copy)["metrics"]["test"]
  assert json.loads(done.out)["metrics"] == pytest.approx(found)
  rows = [
    [row["probabilities"] for row in read_jsonl(p / "predictions/test.jsonl")]
    for p in (copy, teacher)
  ]
  assert rows[0] != rows[1]


def test_the_command_is_written_down_as_it_can_be_run_again(files, student):
  lines = (student / "command.sh").read_text().splitlines()
  assert lines[0] == "#!/bin/sh"
  words = shlex.split(lines[1])
  assert words[:2] == ["augdistill", "distill"]
  assert f"--method={BOTH}" in words
  assert f"--train={files / 'train.tsv'}" in words


def test_provenance_says_with_what_it_ran(student, teacher):
  found, other = (
    json.loads((path / "provenance.json").read_text())
    for path in (student, teacher)
  )
  assert found["label_names"] == list(LABELS)
  assert found["versions"]["jax"]
  assert len(found["devices"]) == 8
  assert found["seed"] == 0
  assert set(found["data_fingerprints"]) == {"train", "validation", "test"}
  assert found["data_fingerprints"] == other["data_fingerprints"]


def test_a_checkpoint_holds_the_student_and_no_teacher(student, teacher):
  size = results(student)["num_params"]["student"]
  numbers = [leaf.size for leaf in jax.tree.leaves(params(student))]
  assert sum(numbers) == size
  manifest = (student / "checkpoints" / "4" / "state" / "_METADATA").read_text()
  assert "opt_state" in manifest
  assert "teacher" not in manifest


def test_the_student_reads_with_its_teachers_vocabulary(student, teacher):
  one, other = (
    load_vocab(str(path / "vocab" / "vocab.spm")) for path in (student, teacher)
  )
  assert one.fingerprint == other.fingerprint


# --- the same command again ------------------------------------------------


def test_a_finished_run_is_reported_and_not_touched(data, teacher, student):
  before = snapshot(student)
  flags = f"--teacher={teacher}/", f"--method={BOTH}"  # a slash more
  done = ok("distill", *data, *TINY, *flags, f"--output_dir={student}")
  assert f"{student} is finished already" in done.out
  assert f"agreement  {results(student)['agreement']:.4f}" in done.out
  assert snapshot(student) == before


def test_the_last_screen_says_what_came_out_and_what_to_run_next(
  data, teacher, student
):
  flags = f"--teacher={teacher}", f"--method={BOTH}"
  out = ok("distill", *data, *TINY, *flags, f"--output_dir={student}").out
  accuracy = results(student)["metrics"]["test"]["accuracy"]
  assert f"test       accuracy {accuracy:.4f}" in out
  assert "teacher  accuracy" in out
  assert f"augdistill predict --run {student} --input FILE" in out


def test_another_configuration_is_refused_and_nothing_changes(
  data, teacher, student
):
  before = snapshot(student)
  flags = f"--teacher={teacher}", "--method=kd", f"--output_dir={student}"
  done = run("distill", *data, *TINY, *flags)
  assert done.code == 2
  assert f"METHOD = '{BOTH}'" in done.err
  assert "METHOD = 'kd'" in done.err
  assert "Choose another --output_dir" in done.err
  assert snapshot(student) == before


def test_an_interrupted_run_goes_on_and_ends_the_same(
  tmp_path, files, data, teacher, student
):
  copy = tmp_path / "student"
  shutil.copytree(student, copy)
  (copy / "results.json").unlink()
  shutil.rmtree(copy / "predictions")
  shutil.rmtree(copy / "checkpoints" / "4" / "state")  # torn
  half = '{"step": 3, "loss": 0.'
  lines = (copy / "metrics.jsonl").read_text().splitlines()
  kept = [line for line in lines if json.loads(line)["step"] <= 3]
  (copy / "metrics.jsonl").write_text("\n".join([*kept, half]))
  flags = f"--teacher={teacher}", f"--method={BOTH}", f"--output_dir={copy}"
  done = ok("distill", *data, *TINY, *flags)
  assert f"resuming {copy} at step 2" in done.out
  assert same_bits(params(copy, 4), params(student, 4))
  ours, theirs = (read_jsonl(p / "metrics.jsonl") for p in (copy, student))
  for rows in (ours, theirs):
    for row in rows:
      row.pop("train_seconds", None)
      row.pop("startup_seconds", None)
  assert ours == theirs
  timeless = ("train_seconds", "seconds_per_1000_steps", "examples_per_second")
  ours, theirs = results(copy), results(student)
  for name in timeless:
    assert ours.pop(name) > 0
    theirs.pop(name)
  assert ours == theirs
  for split in ("validation", "test"):
    name = pathlib.Path("predictions") / f"{split}.jsonl"
    assert (copy / name).read_text() == (student / name).read_text()


def test_a_run_goes_on_with_the_data_that_it_began_with(
  tmp_path, files, teacher
):
  train = write_tsv(tmp_path / "train.tsv", examples(60))
  flags = f"--train={train}", f"--teacher={teacher}", "--method=kd"
  output = f"--output_dir={tmp_path / 'run'}"
  ok("distill", *flags, *TINY, output)
  (tmp_path / "run" / "results.json").unlink()
  write_tsv(train, [*examples(57), *examples(3, first=90)])
  before = snapshot(tmp_path / "run")
  done = run("distill", *flags, *TINY, output)
  assert done.code == 2
  assert "its train" in done.err
  assert snapshot(tmp_path / "run") == before


# --- what one does with a student ------------------------------------------


@pytest.fixture
def alone(tmp_path, student):
  """A copy of the student, far from its teacher and its data."""
  copy = tmp_path / "alone"
  shutil.copytree(student, copy)
  for name in ("config.gin", "provenance.json", "metrics.jsonl"):
    (copy / name).unlink()
  text = (copy / "student.gin").read_text()
  assert (
    "teacher"
    not in text.replace("# What this model needs", "").split("\n", 1)[1]
  )
  return copy


def test_evaluate_gives_the_scores_of_the_run_without_its_teacher(
  files, alone, student
):
  done = ok("evaluate", f"--run={alone}", f"--data={files / 'test.tsv'}")
  found = json.loads(done.out)
  assert found["examples"] == 12
  assert set(found["metrics"]) == METRICS
  assert found["metrics"] == pytest.approx(results(student)["metrics"]["test"])
  assert done.err == ""


def test_evaluate_maps_labels_by_name(tmp_path, files, alone):
  rows = [(text, label) for text, label in examples(12, first=60)]
  rows = [row for row in rows if row[1] != "app"]  # another set of names
  path = write_tsv(tmp_path / "some.tsv", rows)
  found = json.loads(ok("evaluate", f"--run={alone}", f"--data={path}").out)
  predictions = read_jsonl(alone / "predictions" / "test.jsonl")
  right = [
    row["prediction"] == row["label"]
    for row in predictions
    if row["label"] != "app"
  ]
  assert found["examples"] == 8
  assert found["metrics"]["accuracy"] == pytest.approx(np.mean(right))


def expected(alone):
  rows = read_jsonl(alone / "predictions" / "test.jsonl")
  for row in rows:
    del row["label"], row["teacher_probabilities"]
  return rows


def close(ours, theirs):
  for one, other in zip(ours, theirs, strict=True):
    assert one.pop("probabilities") == pytest.approx(
      other.pop("probabilities"), abs=2e-6
    )
  assert ours == theirs


def test_predict_labels_a_file(files, alone):
  done = ok("predict", f"--run={alone}", f"--input={files / 'test.tsv'}")
  close([json.loads(line) for line in done.out.splitlines()], expected(alone))
  assert done.err == ""


def test_predict_reads_lines_of_standard_input(alone):
  text = "\r\n".join(text for text, _ in examples(12, first=60))
  done = ok("predict", f"--run={alone}", "--input=-", stdin=text.encode())
  close([json.loads(line) for line in done.out.splitlines()], expected(alone))


def test_predict_of_nothing_is_nothing(alone):
  assert ok("predict", f"--run={alone}", "--input=-").out == ""


def test_predict_numbers_rows_over_chunks(monkeypatch, alone):
  whole = predict._chunks
  monkeypatch.setattr(
    predict, "_chunks", lambda args, pair: whole(args, pair, size=5)
  )
  text = "\n".join(text for text, _ in examples(12, first=60))
  done = ok("predict", f"--run={alone}", "--input=-", stdin=text.encode())
  close([json.loads(line) for line in done.out.splitlines()], expected(alone))


def test_predict_writes_a_file_whole_or_not_at_all(tmp_path, files, alone):
  output = tmp_path / "new" / "out.jsonl"
  flags = f"--run={alone}", f"--output={output}"
  done = ok("predict", *flags, f"--input={files / 'test.tsv'}")
  assert done.out == ""
  close(read_jsonl(output), expected(alone))
  before = snapshot(tmp_path / "new")
  text = b"good\n" * 300 + b"bad \xff\n"
  done = run("predict", *flags, "--input=-", stdin=text)
  assert done.code == 2
  assert "standard input, line 301" in done.err
  assert snapshot(tmp_path / "new") == before


def test_table_compares_runs(teacher, student):
  out = ok("table", teacher, student).out
  assert "ft" in out
  assert "augpro_mix" in out
  accuracy = results(student)["metrics"]["test"]["accuracy"]
  assert f"{100 * accuracy:.1f}" in out


# --- augment ---------------------------------------------------------------


def test_augment_shows_texts_partners_and_the_teachers_opinion(files, teacher):
  done = ok(
    "augment",
    "--method=augpro_mix*2+augpro_fgsm+alternate(mixup, tmix)",
    f"--data={files / 'test.tsv'}",
    f"--teacher={teacher}",
    "--limit=3",
    "--json",
  )
  *rows, summary = [json.loads(line) for line in done.out.splitlines()]
  assert [(row["example_id"], row["view"]) for row in rows] == [
    (i, view)
    for i in range(3)
    # Of views that take turns each is shown, unless it has nothing to read.
    for view in ("augpro_mix", "augpro_mix", "augpro_fgsm", "mixup")
  ]
  texts = [text for text, _ in examples(12, first=60)]
  for row in rows:
    assert texts[row["example_id"]].startswith(row["text"])  # 16 tokens
    assert set(row["teacher"]) == set(row["teacher_augmented"]) == set(LABELS)
    assert ("partner" in row) == (row["view"] != "augpro_fgsm")
    partner = row.get("partner", texts[0])
    assert any(text.startswith(partner) for text in texts)
    assert row.get("partner") != row["text"]
  shown = read_jsonl(teacher / "predictions" / "test.jsonl")
  assert rows[0]["teacher"] == pytest.approx(
    shown[0]["probabilities"], abs=1e-5
  )
  assert set(summary["summary"]) == {"augpro_mix", "augpro_fgsm", "mixup"}
  mix, fgsm = (summary["summary"][n] for n in ("augpro_mix", "augpro_fgsm"))
  # MixUp is read at its nearest tokens, which are AugPro-Mix's.
  assert summary["summary"]["mixup"].keys() == mix.keys()
  assert list(mix) == [
    *("changed", "from_a", "from_b", "from_neither", "class_flipped"),
  ]
  assert mix["from_a"] + mix["from_b"] + mix["from_neither"] == pytest.approx(1)
  assert 0 < mix["changed"] < 1
  assert set(fgsm) == {"changed", "class_flipped"}


def test_augment_shows_the_texts_of_methods_with_terms_and_originals(
  files, teacher
):
  flags = f"--data={files / 'train.tsv'}", f"--teacher={teacher}", "--json"
  done = ok(
    "augment",
    "--method=kd+mmel_hard(view=mixup)*2+hidden_mse(on=all)",
    *(*flags, "--limit=1"),
  )
  *rows, _ = [json.loads(line) for line in done.out.splitlines()]
  original, *mixed = rows
  assert original["augmented"] == original["text"]
  assert "partner" not in original
  assert len(mixed) == 2
  assert all("partner" in row for row in mixed)


def test_augment_reads_the_students_embeddings_if_it_is_told(
  files, teacher, student, tmp_path
):
  flags = f"--data={files / 'train.tsv'}", "--method=augpro_fgsm(delta=3)"
  both = f"--teacher={teacher}", f"--student={student}"
  one, other = (
    json.loads(ok("augment", *flags, *runs, "--limit=0", "--json").out)
    for runs in (both[:1], both)
  )
  assert one["summary"] != other["summary"]
  done = run("augment", *flags, both[1])
  assert done.code == 2
  assert "--student DIR goes with --teacher DIR" in done.err


def test_augment_without_a_teacher_shows_the_texts(files):
  flags = f"--data={files / 'train.tsv'}", "--limit=2"
  done = ok("augment", "--method=kd+token_mix", *flags, "--json")
  *rows, summary = [json.loads(line) for line in done.out.splitlines()]
  assert len(rows) == 2
  assert "teacher" not in rows[0]
  assert "class_flipped" not in summary["summary"]["token_mix"]
  screen = ok("augment", "--method=kd+token_mix", *flags).out
  assert rows[1]["augmented"] in screen
  assert "over the whole file" in screen


def test_partners_come_from_all_over_a_sorted_file(tmp_path):
  rows = sorted(examples(192), key=lambda row: row[1])
  data = write_tsv(tmp_path / "sorted.tsv", rows)
  flags = "--method=token_mix", f"--data={data}", "--limit=192", "--json"
  *shown, _ = [
    json.loads(line) for line in ok("augment", *flags).out.split("\n")[:-1]
  ]
  assert [row["example_id"] for row in shown] == list(range(192))
  label_of = dict(rows)
  others = [label_of[row["text"]] != label_of[row["partner"]] for row in shown]
  assert np.mean(others) > 0.5  # 2/3 where any row may be the partner


def test_a_method_that_makes_no_tokens_has_nothing_to_show(capsys):
  screens.show_samples([], {})
  said = "this method has no view that can be read\n"
  assert capsys.readouterr().out == said


def test_the_shares_are_of_the_whole_file_whatever_is_shown(files, teacher):
  flags = f"--data={files / 'train.tsv'}", f"--teacher={teacher}", "--json"
  shares = [
    ok("augment", "--method=token_mix", *flags, f"--limit={limit}").out
    for limit in (0, 100)
  ]
  few, many = (text.splitlines() for text in shares)
  assert len(few) == 1
  assert len(many) == 61
  assert few[-1] == many[-1]
  rows = [json.loads(line) for line in many[:-1]]
  flipped = [
    max(row["teacher"], key=row["teacher"].get)
    != max(row["teacher_augmented"], key=row["teacher_augmented"].get)
    for row in rows
  ]
  found = json.loads(many[-1])["summary"]["token_mix"]["class_flipped"]
  assert found == pytest.approx(np.mean(flipped))


# --- GLUE's leaderboard ------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # TFDS's own
def test_hidden_test_rows_are_labelled_for_the_leaderboard(tmp_path):
  from augdistill.data.tasks import import_seqio

  import_seqio()
  import tensorflow as tf
  import tensorflow_datasets as tfds

  names = ("negative", "positive")
  rows = [(row[0], names[i % 2]) for i, row in enumerate(examples(24))]
  train = write_tsv(tmp_path / "train.tsv", rows)
  path = tmp_path / "run"
  ok("finetune", f"--train={train}", *TINY, f"--output_dir={path}")

  def as_dataset(builder, split, **kwargs):
    return tf.data.Dataset.from_tensor_slices(
      {"sentence": ["my card", "cash"], "label": [-1, -1], "idx": [1, 0]}
    )

  output = tmp_path / "SST-2.tsv"
  flags = f"--run={path}", f"--output={output}"
  with tfds.testing.mock_data(as_dataset_fn=as_dataset):
    ok("predict", "--glue_test=sst2", *flags)
  header, *lines = output.read_text().splitlines()
  assert header == "index\tprediction"
  assert [line.split("\t")[0] for line in lines] == ["0", "1"]
  assert {line.split("\t")[1] for line in lines} <= {"0", "1"}
  for wrong, message in (("rte", "trained on rte"), ("sst3", "mean 'sst2'")):
    done = run("predict", f"--glue_test={wrong}", *flags)
    assert done.code == 2
    assert message in done.err
