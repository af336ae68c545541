"""Runs are shown where people look at them."""

import importlib.util

import pytest
import wandb

from augdistill.errors import UsageError
from augdistill.reports.dashboards import TensorBoard, WeightsAndBiases
from augdistill.reports.run_directory import RunDirectory


@pytest.fixture
def offline(tmp_path, monkeypatch):
  """Weights & Biases as where there is no network."""
  monkeypatch.setenv("WANDB_MODE", "offline")
  monkeypatch.setenv("WANDB_SILENT", "true")
  for name in ("CACHE", "CONFIG", "DATA"):
    monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb"))
  wandb.teardown()  # It remembers the first environment that it saw.
  yield wandb
  wandb.teardown()


def begin(path):
  path.mkdir(exist_ok=True)
  return WeightsAndBiases("augdistill", path, {"METHOD": "kd", "SEED": 3})


def test_weights_and_biases_has_numbers_texts_and_settings(tmp_path, offline):
  board = begin(tmp_path / "run")
  board.scalars(10, {"loss": 0.5, "validation/accuracy": 0.25})
  board.table(10, "augmented/mixup", ("text", "augmented"), [["a", "b"]])
  board.scalars(20, {"loss": 0.125})
  board.scalars(30, {"other": 1.0})  # A step is kept when the next one begins.
  summary = dict(offline.run.summary)
  assert summary["distill/loss"] == 0.125
  assert summary["distill/validation/accuracy"] == 0.25
  assert summary["distill/augmented/mixup"]["nrows"] == 1
  assert offline.run.config["METHOD"] == "kd"
  assert offline.run.project == "augdistill"
  board.close()
  assert list((tmp_path / "run").rglob("*.wandb"))


def test_a_start_that_goes_on_goes_on_there_too(tmp_path, offline):
  path, ids = tmp_path / "run", []
  for start in (0, 20):
    board = begin(path)
    board.scalars(start + 10, {"loss": 0.5})
    ids.append(offline.run.id)
    board.close()
  assert ids[0] == ids[1] == (path / "wandb_run.txt").read_text().strip()
  other = begin(tmp_path / "other")
  assert offline.run.id != ids[0]
  other.close()


def test_without_a_login_it_says_how_to_go_on(tmp_path, monkeypatch, offline):
  monkeypatch.setenv("WANDB_MODE", "online")
  monkeypatch.setenv("WANDB_API_KEY", "no key at all")
  monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
  with pytest.raises(UsageError, match="WANDB_MODE=offline, or leave out"):
    begin(tmp_path / "run")


def test_it_is_asked_for_only_where_it_is_installed(tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UsageError, match=r"pip install 'augdistill\[wandb\]'"):
    RunDirectory(tmp_path, "project")
  RunDirectory(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_tensorflow_reads_texts_as_tables(tmp_path):
  board = TensorBoard(tmp_path, start=0)
  rows = [["a | b", "c"], ["d", "e"]]
  board.table(4, "augmented/mixup", ("text", "augmented"), rows)
  board.close()
  import tensorflow as tf
  from tensorflow.core.util import event_pb2

  [path] = tmp_path.iterdir()
  records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
  [(step, value)] = [
    (event.step, value)
    for event in map(event_pb2.Event.FromString, records)
    for value in event.summary.value
  ]
  assert step == 4 and value.tag.startswith("distill/augmented/mixup")
  text = value.tensor.string_val[0].decode()
  lines = text.splitlines()
  assert lines[0].split("|")[1:3] == [" text   ", " augmented   "]
  assert "a \\| b" in lines[2] and len(lines) == 4
