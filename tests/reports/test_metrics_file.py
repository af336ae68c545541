"""Each report is there once, whenever the run was killed."""

import json

import numpy as np
import pytest

from augdistill.reports.dashboards import TensorBoard
from augdistill.reports.metrics_file import (
  MetricsWriter,
  read_metrics,
  sample_table,
)


def test_a_report_is_a_line_that_is_on_disk_at_once(tmp_path):
  path = tmp_path / "metrics.jsonl"
  with MetricsWriter(path) as writer:
    writer.write(10, {"loss": np.float32(0.5), "accuracy": 1})
    text = path.read_text()
    assert text == '{"step": 10, "loss": 0.5, "accuracy": 1.0}\n'
    assert read_metrics(path) == [{"step": 10, "loss": 0.5, "accuracy": 1.0}]


def test_what_is_not_finite_is_null_and_the_line_is_json(tmp_path):
  path = tmp_path / "metrics.jsonl"
  with MetricsWriter(path) as writer:
    writer.write(1, {"a": float("nan"), "b": float("-inf")})
  assert read_metrics(path) == [{"step": 1, "a": None, "b": None}]
  assert "NaN" not in path.read_text()


def test_a_start_cuts_what_comes_after_its_step(tmp_path):
  path = tmp_path / "metrics.jsonl"
  with MetricsWriter(path) as writer:
    for step in (10, 20, 30):
      writer.write(step, {"loss": step})
  with MetricsWriter(path, start=20) as writer:
    writer.write(30, {"loss": -1})
  losses = {row["step"]: row["loss"] for row in read_metrics(path)}
  assert losses == {10: 10, 20: 20, 30: -1}
  assert len(read_metrics(path)) == 3


@pytest.mark.parametrize(
  "half", ['{"step": 20, "lo', '{"step": 20', "\x00\x00"]
)
def test_a_half_written_line_is_mended(tmp_path, half):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 10, "loss": 1.0}\n' + half)
  assert read_metrics(path) == [{"step": 10, "loss": 1.0}]
  with MetricsWriter(path, start=20) as writer:
    writer.write(30, {"loss": 2.0})
  assert [
    json.loads(line)["step"] for line in path.read_text().splitlines()
  ] == [10, 30]


def test_a_run_that_has_not_reported_has_no_metrics(tmp_path):
  assert read_metrics(tmp_path / "metrics.jsonl") == []


def event_files(directory):
  return sorted(directory.iterdir(), key=lambda p: p.stat().st_mtime_ns)


def test_every_start_adds_an_event_file(tmp_path):
  for start in (0, 20):
    board = TensorBoard(tmp_path / "tb", start)
    with MetricsWriter(
      tmp_path / "metrics.jsonl", dashboards=[board], start=start
    ) as writer:
      writer.write(start + 10, {"loss": 0.5})
  assert len(event_files(tmp_path / "tb")) == 2


@pytest.mark.filterwarnings("ignore")
def test_tensorflow_reads_the_events(tmp_path):
  board = TensorBoard(tmp_path / "tb", start=5)
  with MetricsWriter(tmp_path / "m.jsonl", dashboards=[board]) as writer:
    writer.write(6, {"clean/loss": 0.25, "x": float("nan")})
  import tensorflow as tf
  from tensorflow.core.util import event_pb2

  [path] = event_files(tmp_path / "tb")
  records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
  events = [event_pb2.Event.FromString(record) for record in records]
  starts = [e for e in events if e.HasField("session_log")]
  assert [e.step for e in starts] == [6]  # what was reported of it is void
  scalars = {
    value.tag: (event.step, value.simple_value)
    for event in events
    for value in event.summary.value
  }
  assert scalars["distill/clean/loss"] == (6, 0.25)
  assert np.isnan(scalars["distill/x"][1])


SAMPLE = {
  "view": "mixup",
  "text": "a b",
  "partner": "c d",
  "augmented": "a d",
  "teacher": {"x": 0.25, "y": 0.75},
  "teacher_augmented": {"x": 0.625, "y": 0.375},
}


def test_samples_are_cut_like_metrics(tmp_path):
  path = tmp_path / "metrics.jsonl"
  with MetricsWriter(path) as writer:
    for step in (10, 20):
      writer.write_samples(step, [SAMPLE, SAMPLE | {"text": f"at {step}"}])
  with MetricsWriter(path, start=10) as writer:
    writer.write_samples(20, [SAMPLE | {"text": "näher"}])
  rows = read_metrics(tmp_path / "samples.jsonl")
  assert [(row["step"], row["text"]) for row in rows] == [
    *((10, "a b"), (10, "at 10"), (20, "näher"))
  ]
  assert "näher" in (tmp_path / "samples.jsonl").read_text()


def test_samples_are_tables_by_view():
  header, cells = sample_table([SAMPLE, SAMPLE | {"view": "eda"}])
  assert header == (
    *("text", "partner", "augmented"),
    *("teacher of the text", "teacher of the augmented"),
  )
  assert list(cells) == ["mixup", "eda"]
  assert cells["mixup"] == [["a b", "c d", "a d", "y 0.75", "x 0.62"]]


def test_samples_without_partner_and_teacher_have_no_such_columns():
  row = {"view": "eda", "text": "a", "augmented": "b"}
  assert sample_table([row]) == (("text", "augmented"), {"eda": [["a", "b"]]})
  value = row | {"teacher": 1.0, "teacher_augmented": -0.5}
  assert sample_table([value])[1]["eda"] == [["a", "b", "1.000", "-0.500"]]
  assert sample_table([]) == ((), {})


def test_every_dashboard_has_all_and_is_closed(tmp_path):
  class Board:
    def __init__(self):
      self.seen = []

    def scalars(self, step, values):
      self.seen.append((step, dict(values)))

    def table(self, step, name, header, rows):
      self.seen.append((step, name, len(header), len(rows)))

    def close(self):
      self.seen.append("closed")

  boards = [Board(), Board()]
  with MetricsWriter(tmp_path / "m.jsonl", dashboards=boards) as writer:
    writer.write(1, {"loss": 2})
    writer.write_samples(2, [SAMPLE, SAMPLE])
  for board in boards:
    assert board.seen == [
      *((1, {"loss": 2.0}), (2, "augmented/mixup", 5, 2), "closed")
    ]
