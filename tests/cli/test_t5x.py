"""Runs go to T5X and come back; T5X itself is not needed for that."""

import json
import shutil

import jax
import numpy as np
import pytest

from augdistill.checkpoints.flat import named_leaves
from augdistill.cli import export_checks
from augdistill.cli.pretrained import source_of, vocab_path
from augdistill.cli.trained import Trained
from tests.cli.test_export import NAMES, export, make_run
from tests.cli.tiny import ok, run, write_tsv


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  return make_run(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture(scope="module")
def exported(made, tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    timed = export_checks.latency
    # Of nothing: no program is compiled for it.
    patch.setattr(
      export_checks, "latency", lambda call: timed(lambda: 0, runs=2)
    )
    output = tmp_path_factory.mktemp("exported") / "model"
    done = export(made, "t5x", output)
    assert done.code == 0, done.err
  return output


def test_an_export_holds_a_checkpoint_and_what_a_run_has(exported):
  assert {p.name for p in exported.iterdir()} == {
    *("checkpoint_0", "student.gin", "vocab", "spiece.model", "task.json"),
    *("texts.py", "README.md", "export.json"),
  }
  readme = (exported / "README.md").read_text()
  assert "enct5.EncT5Config.emb_dim = 16" in readme
  report = json.loads((exported / "export.json").read_text())
  numbers = report["num_params"]["student"]
  assert report["bytes"]["checkpoint_0"] > numbers


def test_what_was_exported_is_a_run_with_the_same_parameters(
  made, exported, tmp_path
):
  before, after = Trained.load(str(made)), Trained.load(str(exported))
  at = Trained.load(str(exported / "checkpoint_0"))
  for its in (after, at):
    assert its.served == before.served
    assert its.vocab.fingerprint == before.vocab.fingerprint
    jax.tree.map(np.testing.assert_array_equal, its.params, before.params)
  rows = [(f"my {name} is new", name) for name in NAMES]
  data = write_tsv(tmp_path / "rows.tsv", rows)
  said = [
    ok("evaluate", f"--run={path}", f"--data={data}").out
    for path in (made, exported)
  ]
  assert said[0] == said[1]


@pytest.fixture
def of_t5x(exported, tmp_path):
  """A run of T5X, as far as its files go."""
  folder = shutil.copytree(exported, tmp_path / "of_t5x")
  (folder / "checkpoint_0").rename(folder / "checkpoint_12")
  shutil.copytree(exported / "checkpoint_0", folder / "checkpoint_3")
  text = "from __gin__ import dynamic_registration\n\nMETHOD = 'kd+mixup'\n"
  (folder / "config.gin").write_text(text)
  return folder


def test_a_run_of_t5x_is_exported_with_rows_that_are_given(of_t5x, tmp_path):
  output = tmp_path / "hf"
  done = export(of_t5x, "hf", output)
  assert done.code == 2
  assert "--data FILE" in done.err
  assert not output.exists()
  rows = [(f"my {name} is new", name) for name in NAMES]
  data = write_tsv(tmp_path / "rows.tsv", rows)
  done = export(of_t5x, "hf", output, f"--data={data}")
  assert done.code == 0, done.err
  assert "not finished" not in done.out
  report = json.loads((output / "export.json").read_text())
  assert (report["step"], report["method"]) == (12, "kd+mixup")
  assert (report["compared"]["rows"], report["compared"]["split"]) == (
    *(3, "given"),
  )


@pytest.mark.parametrize("config", [True, False])
def test_a_model_begins_with_a_run_of_t5x(of_t5x, made, config):
  if not config:  # As an export.
    (of_t5x / "config.gin").unlink()
  before = Trained.load(str(made))
  source = source_of(str(of_t5x))
  assert source.task == before.served.task
  assert source.config() == before.served.model
  assert vocab_path(str(of_t5x)).startswith(str(of_t5x / "vocab"))
  for name, leaf in named_leaves(before.params):
    np.testing.assert_array_equal(source.arrays[name].read(), leaf)


def test_int8_is_refused(made, tmp_path):
  done = export(made, "t5x", tmp_path / "out", "--weights=int8")
  assert done.code == 2
  assert "float32" in done.err
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  ("damage", "what"),
  [
    (lambda path: (path / "student.gin").unlink(), "--init"),
    (lambda path: shutil.rmtree(path / "vocab"), "--init"),
    (
      lambda path: (path / "student.gin").write_text(
        (path / "student.gin").read_text() + "EncT5Config.num_layers = 2\n"
      ),
      "same size",
    ),
  ],
)
def test_a_directory_that_does_not_fit_is_refused(
  exported, tmp_path, damage, what
):
  copy = shutil.copytree(exported, tmp_path / "copy")
  damage(copy)
  done = run("predict", f"--run={copy}", "--input=-", stdin=b"a card\n")
  assert done.code == 2
  assert what in done.err
