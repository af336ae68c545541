"""What `distill` does with teachers, rows, and tasks of every kind."""

import argparse
import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.cli import config, distill, fit, parts
from augdistill.cli.main import parse
from augdistill.cli.served import load_served
from augdistill.cli.trained import Trained
from augdistill.data.load import DataConfig
from augdistill.data.sentence_pieces import train_vocab
from augdistill.data.vocabulary import load_vocab
from augdistill.models.networks import network
from tests.cli.tiny import (
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

# --- a teacher of its own ----------------------------------------------------


@pytest.fixture(scope="module")
def with_own_teacher(files, data):
  """A run that fine-tuned its teacher, with much that is the student's only."""
  path = files / "own"
  args = [
    *("distill", *data, *TINY, "--method=kd", "--seed=1"),
    *("--teacher_model=micro", "--teacher_num_steps=4", "--train_examples=12"),
    "--learning_rate=0.002",
    "--gin.enct5_config.dropout_rate=0.3",
    "--gin.make_optimizer.decay='linear'",
    f"--output_dir={path}",
  ]
  return path, args, ok(*args)


def test_a_run_keeps_what_its_steps_free(data, tmp_path, monkeypatch):
  done = []
  for name in ("in_first_thread", "keep"):
    call = functools.partial(done.append, name)
    monkeypatch.setattr(fit.freed_memory, name, call)
  ok("finetune", *data, *TINY, f"--output_dir={tmp_path / 'run'}")
  # The latter after the first of its four steps, and after no other.
  assert done == ["in_first_thread", "keep"]


def statements(path):
  lines = (path / "config.gin").read_text().splitlines()
  return dict(line.split(" = ", 1) for line in lines if " = " in line)


def test_a_teacher_is_fine_tuned_first_into_the_same_directory(
  with_own_teacher,
):
  path, _, done = with_own_teacher
  assert f"fine-tuning the teacher, micro, into {path / 'teacher'}" in done.out
  assert results(path / "teacher")["method"] == "ft"
  assert results(path / "teacher")["num_steps"] == 4
  teachers = results(path / "teacher")["metrics"]
  assert results(path)["teacher_metrics"] == teachers


def test_what_is_set_for_the_student_never_reaches_its_teacher(
  with_own_teacher,
):
  path, _, _ = with_own_teacher
  student, teacher = statements(path), statements(path / "teacher")
  only_students = {
    "enct5_config.dropout_rate": ("0.3", "0.1"),
    "make_optimizer.decay": ("'linear'", "'cosine'"),
    "RunConfig.eval_batch_size": ("16", "256"),
    "RunConfig.eval_period": ("2", "None"),
    "RunConfig.log_period": ("1", "20"),
    "RunConfig.num_samples": ("0", "8"),
    "LEARNING_RATE": ("0.002", "0.001"),
    "BATCH_SIZE": ("8", "64"),
    "METHOD": ("'kd'", "'ft'"),
    "TRAIN_EXAMPLES": ("12", "None"),
    "TEACHER": (f"'{path / 'teacher'}'", "None"),
  }
  for name, (ours, theirs) in only_students.items():
    assert (student[name], teacher[name]) == (ours, theirs), name
  differ = {n for n in student if student[n] != teacher.get(n)}
  assert differ == set(only_students)
  served = (load_served(p / "student.gin") for p in (path, path / "teacher"))
  assert [one.model.dropout_rate for one in served] == [0.3, 0.1]


def test_what_is_the_datas_is_the_teachers_too(with_own_teacher, files):
  path, _, _ = with_own_teacher
  teacher = statements(path / "teacher")
  assert teacher["TRAIN_FILE"] == f"'{files / 'train.tsv'}'"
  assert teacher["MAX_LENGTH"] == "16"
  assert teacher["SEED"] == "1"


def test_train_examples_are_the_students_rows_only(with_own_teacher, files):
  path, _, _ = with_own_teacher
  fingerprints = [
    json.loads((p / "provenance.json").read_text())["data_fingerprints"]
    for p in (path, path / "teacher")
  ]
  assert fingerprints[0]["train"] != fingerprints[1]["train"]
  assert fingerprints[0]["validation"] == fingerprints[1]["validation"]


def test_the_same_command_again_finds_both_finished(with_own_teacher):
  path, args, _ = with_own_teacher
  before = snapshot(path)
  done = ok(*args)
  assert f"{path} is finished already" in done.out
  assert "fine-tuning" not in done.out
  assert snapshot(path) == before


def test_a_finished_teacher_is_used_when_the_student_is_not(with_own_teacher):
  path, args, _ = with_own_teacher
  before, student = snapshot(path / "teacher"), params(path, 4)
  (path / "results.json").unlink()
  done = ok(*args)
  assert f"{path / 'teacher'} is finished already" in done.out
  assert snapshot(path / "teacher") == before
  assert same_bits(params(path, 4), student)


def test_the_teacher_takes_its_data_from_gin_files_too(tmp_path, files):
  file = tmp_path / "data.gin"
  file.write_text(
    "TASK = 'cola'\nMAX_LENGTH = 24\nNUM_STEPS = 3\n"
    "DataConfig.validation_fraction = 0.25\nDataConfig.vocab_size = 100\n"
  )
  student, _ = config.resolve(
    "runs/distill.gin",
    argparse.Namespace(
      gin_file=[str(file)],
      gin_search_paths="",
      gin_bindings=["TRAIN_EXAMPLES = 8"],
      unlabeled="u",
      seed=4,
    ),
  )
  teacher, _ = config.resolve(
    "runs/finetune.gin",
    distill._teachers_flags(
      argparse.Namespace(
        teacher_model="mini", teacher_init=None, teacher_num_steps=None
      )
    ),
    distill._shared(student),
  )
  assert teacher.data.task == "cola"
  assert teacher.data.max_length == 24
  assert teacher.data.validation_fraction == 0.25
  assert teacher.data.vocab_size == 100
  assert (teacher.data.train_examples, teacher.data.unlabeled) == (None, None)
  assert (teacher.seed, teacher.data.seed) == (4, 4)
  assert teacher.num_steps == 2000


@pytest.mark.parametrize(
  ("method", "said"),
  [
    ("kd+augpro_mix", "'augpro_mix': the teacher is shown what the view makes"),
    ("kd+mixup", "'mixup': the teacher is shown what the view makes"),
    ("kd+hidden_mse", "hidden_mse compares the models position by position"),
    ("kd+ad2+attention_kl(on=all,heads=mean)", "attention_kl compares the"),
  ],
)
def test_a_method_that_needs_one_vocabulary_is_refused_with_two(
  tmp_path, data, teacher, own_vocab, method, said
):
  flags = f"--teacher={teacher}", f"--vocab={own_vocab}", f"--method={method}"
  done = run("distill", *data, *TINY, *flags, f"--output_dir={tmp_path / 'x'}")
  assert done.code == 2
  assert said in done.err and "one vocabulary" in done.err
  assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def own_vocab(tmp_path_factory):
  """The file of a vocabulary that is not the teacher's."""
  texts = [text for text, _ in examples(60)] * 3
  folder = tmp_path_factory.mktemp("own")
  return train_vocab(texts, vocab_size=40).save(folder)


@pytest.fixture(scope="module")
def reads_apart(tmp_path_factory, data, teacher, own_vocab):
  """A student with a vocabulary of its own."""
  output = tmp_path_factory.mktemp("runs") / "apart"
  flags = f"--teacher={teacher}", f"--vocab={own_vocab}", "--method=kd+ad2"
  more = ("--gin.RunConfig.num_samples=2", f"--output_dir={output}")
  return output, ok("distill", *data, *TINY, *flags, *more)


def test_the_teacher_reads_with_its_own_vocabulary(
  reads_apart, files, teacher, own_vocab
):
  output, done = reads_apart
  trained = Trained.load(str(teacher))
  assert f"its own vocabulary, {trained.vocab_path}" in done.out
  mine = Trained.load(str(output)).vocab.fingerprint
  assert mine == load_vocab(own_vocab).fingerprint
  assert mine != trained.vocab.fingerprint
  # So it says there what it says alone.
  alone = ok("evaluate", f"--run={teacher}", f"--data={files / 'test.tsv'}")
  expected = json.loads(alone.out)["metrics"]
  assert results(output)["teacher_metrics"]["test"] == pytest.approx(expected)


def test_every_batch_carries_the_teachers_own_tokens(
  data, teacher, own_vocab, tmp_path
):
  args = ("distill", *data, *TINY, f"--teacher={teacher}", "--method=kd")
  args = parse([*args, f"--vocab={own_vocab}", f"--output_dir={tmp_path}"])
  made = parts.prepare(distill.configure(args)[0])
  batch = fit.training(made).batch_at(1)
  trained = Trained.load(str(teacher))
  for i, number in enumerate(batch.example_id):
    text = made.train.texts[list(made.train.example_id).index(number)]
    for vocab, tokens, mask in (
      (made.data.vocab, batch.tokens, batch.mask),
      (trained.vocab, batch.teacher.tokens, batch.teacher.mask),
    ):
      row = vocab.frame.join(vocab.encode(text))
      assert tokens[i][mask[i]].tolist() == row


def test_a_teacher_teaches_in_another_type(data, teacher, tmp_path):
  args = ("distill", *data, *TINY, f"--teacher={teacher}", "--method=kd")
  args = (
    *args,
    '--gin.RunConfig.teacher_dtype="bfloat16"',
    "--init_layers=bottom",
  )
  args = parse([*args, f"--output_dir={tmp_path}"])
  made = parts.prepare(distill.configure(args)[0])
  assert made.teacher.served.model.dtype == "bfloat16"
  assert made.teacher.network is network(made.teacher.served.model)
  table = made.teacher_params["token_embedder"]["embedding"]
  assert table.dtype == jnp.bfloat16
  # What the student begins with is read from the run itself.
  first = fit.first_state(made)
  kept = Trained.load(str(teacher)).params["token_embedder"]["embedding"]
  np.testing.assert_array_equal(
    first.params["token_embedder"]["embedding"], kept
  )


def test_a_type_that_there_is_not_is_refused(data, teacher, tmp_path):
  done = run(
    *("distill", *data, *TINY, f"--teacher={teacher}"),
    *('--gin.RunConfig.teacher_dtype="float16"', f"--output_dir={tmp_path}"),
  )
  assert done.code == 2
  assert "teacher_dtype must be 'float32' or 'bfloat16'" in done.err


def test_the_teachers_own_vocabulary_may_be_given(tmp_path, teacher):
  other = tmp_path / "other.spm"
  trained = Trained.load(str(teacher))
  other.write_bytes(trained.vocab.model_bytes)
  read = parts.as_read_by(trained, DataConfig(vocab=str(other)))
  assert load_vocab(read.vocab).fingerprint == trained.vocab.fingerprint


# --- labels by name ----------------------------------------------------------


def test_labels_are_mapped_to_the_teachers_order_and_it_is_said(
  tmp_path, files, data
):
  order = ("cash", "app", "card")
  names = f"--gin.DataConfig.label_names={order!r}"
  teacher, student = tmp_path / "teacher", tmp_path / "student"
  ok("finetune", *data, *TINY, names, f"--output_dir={teacher}")
  assert load_served(teacher / "student.gin").task.label_names == order
  flags = f"--teacher={teacher}", "--method=kd", f"--output_dir={student}"
  done = ok("distill", *data, *TINY, *flags)
  assert "train.tsv are mapped by name to the teacher's order" in done.out
  assert load_served(student / "student.gin").task.label_names == order
  assert results(student)["teacher_metrics"] == results(teacher)["metrics"]
  for row, (_, label) in zip(
    read_jsonl(student / "predictions" / "test.jsonl"),
    examples(12, first=60),
    strict=True,
  ):
    assert row["label"] == label


# --- rows without labels -----------------------------------------------------


def test_unlabelled_texts_are_learnt_from_without_labelled_ones(
  tmp_path, files, teacher
):
  texts = write_tsv(
    tmp_path / "texts.tsv", [[t] for t, _ in examples(30)], ["sentence"]
  )
  output = tmp_path / "run"
  flags = f"--teacher={teacher}", "--method=kd", f"--unlabeled={texts}"
  done = ok("distill", *TINY, *flags, f"--output_dir={output}")
  assert "metrics" in results(output)
  assert results(output)["metrics"] == {}
  assert results(output)["agreement"] is None
  assert results(output)["best_step"] == 4
  assert "validation" not in done.out
  rows = read_jsonl(output / "metrics.jsonl")
  losses = [row for row in rows if "loss" in row]
  assert all(row["clean/label"] == 0 for row in losses)
  assert all(row["clean/kl"] > 0 for row in losses)
  assert not (output / "predictions").exists()
  ok("evaluate", f"--run={output}", f"--data={files / 'test.tsv'}")


def test_unlabelled_texts_are_added_to_labelled_ones(
  tmp_path, files, data, teacher
):
  texts = write_tsv(
    tmp_path / "texts.tsv", [[t] for t, _ in examples(30)], ["sentence"]
  )
  output = tmp_path / "run"
  flags = f"--teacher={teacher}", "--method=kd", f"--unlabeled={texts}"
  ok("distill", *data, *TINY, *flags, f"--output_dir={output}")
  provenance = json.loads((output / "provenance.json").read_text())
  assert set(provenance["data_fingerprints"]) == {
    *("train", "validation", "test", "unlabeled"),
  }
  rows = read_jsonl(output / "metrics.jsonl")
  assert any(row.get("clean/label", 0) > 0 for row in rows)
  assert set(results(output)["metrics"]) == {"validation", "test"}


def test_a_teacher_learns_from_the_labelled_share_its_student_from_the_rest(
  tmp_path, data
):
  output = tmp_path / "run"
  shared = (*data, *TINY, "--labeled_fraction=0.5")
  teacher = ("--teacher_model=micro", "--teacher_num_steps=2")
  ok("distill", *shared, *teacher, "--method=kd", f"--output_dir={output}")
  prints = [
    json.loads((p / "provenance.json").read_text())["data_fingerprints"]
    for p in (output, output / "teacher")
  ]
  assert prints[0] == prints[1]
  rows = [row for row in read_jsonl(output / "metrics.jsonl") if "loss" in row]
  assert all(row["clean/label"] == 0 for row in rows)
  assert all(row["clean/kl"] > 0 for row in rows)
  rows = read_jsonl(output / "teacher" / "metrics.jsonl")
  assert all(row["clean/label"] > 0 for row in rows if "loss" in row)
  learnt_from = [
    parts.prepare(
      config.resolve(
        f"runs/{name}.gin",
        argparse.Namespace(
          gin_file=[str(path / "config.gin")],
          gin_search_paths="",
          gin_bindings=[],
        ),
      )[0]
    ).train
    for name, path in (("distill", output), ("finetune", output / "teacher"))
  ]
  ids = [set(examples.example_id.tolist()) for examples in learnt_from]
  assert (len(ids[0]), len(ids[1])) == (27, 27)
  assert not ids[0] & ids[1]


# --- tasks of every kind -----------------------------------------------------

KINDS = {
  "regression": (
    lambda text, label: [text, f"{LABELS.index(label) + 0.5}"],
    ["sentence", "label"],
    {"pearson", "spearman", "mse"},
  ),
  "multi_label": (
    lambda text, label: [text, "|".join({label, LABELS[len(text) % 3]})],
    ["sentence", "label"],
    {"micro_f1", "macro_f1", "exact_match"},
  ),
  "pairs": (
    lambda text, label: [*text.split(" ", 1), label],
    ["sentence1", "sentence2", "label"],
    {"accuracy", "macro_f1", "matthews_correlation"},
  ),
}


@pytest.mark.parametrize(
  "kind",
  [
    pytest.param(k, marks=pytest.mark.slow) if k == "multi_label" else k
    for k in KINDS
  ],
)
def test_a_task_of_every_kind_goes_the_same_way(tmp_path, kind):
  row, header, metrics = KINDS[kind]
  train, test = (
    write_tsv(tmp_path / name, [row(*e) for e in examples(*which)], header)
    for name, which in (("train.tsv", (60,)), ("test.tsv", (12, 60)))
  )
  data = f"--train={train}", f"--test={test}"
  teacher, student = tmp_path / "teacher", tmp_path / "student"
  ok("finetune", *data, *TINY, f"--output_dir={teacher}")
  flags = f"--teacher={teacher}", "--method=kd"
  ok("distill", *data, *TINY, *flags, f"--output_dir={student}")
  found = results(student)
  assert set(found["metrics"]["test"]) == metrics
  assert set(found["teacher_metrics"]["test"]) == metrics
  assert -1 <= found["agreement"] <= 1
  written = read_jsonl(student / "predictions" / "test.jsonl")
  texts = header[:-1]
  keys = ["example_id", *texts, "label", "prediction"]
  if kind != "regression":
    keys += ["probabilities", "teacher_probabilities"]
  wanted = [row(*e) for e in examples(12, first=60)]
  for one, (*written_texts, label) in zip(written, wanted, strict=True):
    assert list(one) == keys
    assert [one[name] for name in texts] == written_texts
    if kind == "regression":
      assert one["label"] == float(label)
      assert isinstance(one["prediction"], float)
    if kind == "multi_label":
      assert set(one["label"]) == set(label.split("|"))
      assert set(one["prediction"]) <= set(LABELS)
  done = ok("evaluate", f"--run={student}", f"--data={test}")
  assert json.loads(done.out)["metrics"] == pytest.approx(
    found["metrics"]["test"], abs=1e-5
  )
  lines = "\n".join("\t".join(its) for *its, _ in wanted)
  done = ok("predict", f"--run={student}", "--input=-", stdin=lines.encode())
  predicted = [json.loads(line) for line in done.out.splitlines()]
  for one, other in zip(predicted, written, strict=True):
    assert one["prediction"] == pytest.approx(other["prediction"])
  if kind == "pairs":
    rejects_what_is_no_pair(student, tmp_path)


def rejects_what_is_no_pair(student, tmp_path):
  done = run("predict", f"--run={student}", "--input=-", stdin=b"one\n")
  assert done.code == 2
  assert "line 1: a pair must be two texts separated by one tab" in done.err
  single = write_tsv(tmp_path / "single.tsv", examples(3))
  for command, flag in (("predict", "--input"), ("evaluate", "--data")):
    done = run(command, f"--run={student}", f"{flag}={single}")
    assert done.code == 2
    assert "single.tsv must hold pairs" in done.err
  done = run(
    *("predict", f"--run={student}", f"--input={single}"),
    "--text_column=sentence",
  )
  assert done.code == 2
  assert "--text_column must name 2 column(s)" in done.err
