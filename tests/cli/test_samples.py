"""A run shows what it learns from, in its files, on its page and elsewhere."""

import pytest

from tests.cli.tiny import LABELS, TINY, ok, read_jsonl, run

METHOD = "kd+mixup+token_mix*2+hidden_mse(on=all)"


@pytest.fixture(scope="module")
def sampled(files, teacher, tmp_path_factory):
  """A run that shows three rows, also to Weights & Biases."""
  output = tmp_path_factory.mktemp("samples") / "student"
  with pytest.MonkeyPatch.context() as env:
    env.setenv("WANDB_MODE", "offline")
    env.setenv("WANDB_SILENT", "true")
    for name in ("CACHE", "CONFIG", "DATA"):
      env.setenv(f"WANDB_{name}_DIR", str(output.parent / "wandb"))
    ok(
      *("distill", f"--train={files / 'train.tsv'}", f"--teacher={teacher}"),
      *(f"--test={files / 'test.tsv'}", f"--method={METHOD}", *TINY),
      *("--force", "--gin.RunConfig.num_samples=3", "--wandb=augdistill"),
      f"--output_dir={output}",
    )
  return output


def test_every_evaluation_shows_the_same_rows(sampled):
  rows = read_jsonl(sampled / "samples.jsonl")
  at = {2: [], 4: []}
  for row in rows:
    at[row["step"]].append((row["view"], row["example_id"], row["text"]))
  assert at[2] == at[4]
  assert [view for view, *_ in at[2]] == ["mixup"] * 3 + ["token_mix"] * 6
  assert len({example for _, example, _ in at[2]}) == 3


def test_they_are_training_rows_mixed_with_each_other(sampled, files):
  lines = (files / "train.tsv").read_text().split("\n")
  rows = read_jsonl(sampled / "samples.jsonl")
  texts = {row["text"] for row in rows}
  assert texts <= {line.split("\t")[0] for line in lines}
  assert {row["partner"] for row in rows} <= texts
  assert any(row["augmented"] != row["text"] for row in rows)


def test_the_teachers_likeliest_names_stand_beside_the_texts(sampled):
  for row in read_jsonl(sampled / "samples.jsonl"):
    for name in ("teacher", "teacher_augmented"):
      answer = row[name]
      assert set(answer) == set(LABELS)
      assert list(answer.values()) == sorted(answer.values(), reverse=True)
      assert sum(answer.values()) == pytest.approx(1, abs=1e-5)


def test_the_page_shows_the_last_ones(sampled, tmp_path):
  page = tmp_path / "page.html"
  ok("report", f"--run={sampled}", f"--output={page}")
  html = page.read_text()
  assert "at step 4" in html
  for row in read_jsonl(sampled / "samples.jsonl"):
    if row["step"] == 4:
      assert f"<td>{row['augmented']}</td>" in html


def test_weights_and_biases_has_the_run(sampled):
  assert len(list(sampled.rglob("*.wandb"))) == 1
  assert (sampled / "wandb_run.txt").read_text().strip()


def test_no_samples_are_no_file(teacher):
  assert not (teacher / "samples.jsonl").exists()


def test_a_negative_number_of_samples_is_refused(files, tmp_path):
  done = run(
    *("finetune", f"--train={files / 'train.tsv'}", *TINY),
    *("--gin.RunConfig.num_samples=-1", f"--output_dir={tmp_path / 'run'}"),
  )
  assert done.code == 2
  assert "num_samples must be >= 0, got -1" in done.err
