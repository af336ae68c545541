"""Each report is there once, whenever the run was killed."""

import json
import struct

import numpy as np
import pytest

from augdistill.reports.event_file import EventFile
from augdistill.reports.metrics_file import MetricsWriter, read_metrics


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
    with MetricsWriter(
      tmp_path / "metrics.jsonl", tmp_path / "tb", start
    ) as writer:
      writer.write(start + 10, {"loss": 0.5})
  assert len(event_files(tmp_path / "tb")) == 2


@pytest.mark.parametrize(
  ("step", "varint"),
  [(0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")],
)
def test_an_event_is_framed_as_tensorboard_reads_it(tmp_path, step, varint):
  """Bytes by hand: the end of Event{wall_time, step, summary}."""
  with EventFile(tmp_path) as file:
    file.write(step, {"loss": 0.5})
    [path] = tmp_path.iterdir()
    data = path.read_bytes()
  value = b"\x0a\x04loss" + b"\x15" + struct.pack("<f", 0.5)
  summary = b"\x0a" + bytes([len(value)]) + value
  event = b"\x10" + varint + b"\x2a" + bytes([len(summary)]) + summary
  assert data[-4 - len(event) : -4] == event
  assert path.name.startswith("events.out.tfevents.")


def test_checksums_are_crc_32c():
  """The check value of the CRC catalogue, under TensorFlow's mask."""
  from augdistill.reports import event_file

  crc = 0xE3069283
  masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
  assert event_file._checksum(b"123456789") == struct.pack("<I", masked)


@pytest.mark.filterwarnings("ignore")
def test_tensorflow_reads_what_we_write(tmp_path):
  with EventFile(tmp_path, start=5) as file:
    file.write(6, {"train/loss": 0.25, "naïve": -1e30})
    file.write(2**40, {"x": float("nan")})
  tf = pytest.importorskip("tensorflow")
  from tensorflow.core.util import event_pb2

  [path] = tmp_path.iterdir()
  records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
  events = [event_pb2.Event.FromString(record) for record in records]
  assert events[0].file_version == "brain.Event:2"
  assert events[1].session_log.status == event_pb2.SessionLog.START
  assert events[1].step == 6  # later steps of an earlier start are void
  assert events[2].step == 6
  values = {v.tag: v.simple_value for v in events[2].summary.value}
  assert values == {"train/loss": 0.25, "naïve": np.float32(-1e30)}
  assert events[3].step == 2**40
  assert np.isnan(events[3].summary.value[0].simple_value)
  assert events[2].wall_time > 1.6e9
