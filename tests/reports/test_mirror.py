"""A run's directory in a bucket is what one on a disk is."""

import importlib.util
import json
import urllib.parse

import pytest

from augdistill import errors
from augdistill.checkpoints import folder
from augdistill.reports import mirror
from augdistill.reports.metrics_file import read_metrics
from augdistill.reports.results import build_results
from augdistill.reports.run_directory import RunDirectory, is_run
from tests import bucket

PLACE = "gs://bucket/runs/one"
CONFIG = "seed = 0\nrun.method = 'kd'\n"
ARGV = ["augdistill", "distill"]
RESULTS = build_results(
  method="kd",
  task="toy",
  seed=0,
  metrics={"test": {"accuracy": 0.5}},
  teacher_metrics={},
  agreement=None,
  num_params={"student": 3, "teacher": None},
  num_steps=4,
  best_step=4,
  train_seconds=1.0,
  batch_size=8,
)


@pytest.fixture(scope="module")
def google():
  with pytest.MonkeyPatch.context() as patch, bucket.bucket(patch) as server:
    yield server


@pytest.fixture
def server(google):
  google.refuse = lambda *_: None
  google.buckets["bucket"].clear()
  google.asked.clear()
  return google


def there(server):
  """The names of the run's files."""
  prefix = "runs/one/"
  return {n.removeprefix(prefix) for n in server.names("bucket")}


def written(server):
  """The files that were written, in order."""
  targets = [target for method, target in server.asked if method == "POST"]
  queries = [urllib.parse.urlsplit(target).query for target in targets]
  names = [urllib.parse.parse_qs(query)["name"][0] for query in queries]
  return [name.removeprefix("runs/one/") for name in names]


def started(**kwargs):
  run = RunDirectory(PLACE, **kwargs)
  run.claim(CONFIG, ARGV)
  return run


def test_a_new_directory_is_claimed_and_another_machine_sees_it(server):
  run = RunDirectory(PLACE)
  assert run.check(CONFIG) is False and not run.path.exists()
  assert not is_run(PLACE)
  assert run.claim(CONFIG, ARGV) is False
  assert there(server) == {"command.sh", "config.gin"}
  assert is_run(PLACE) and not is_run("gs://bucket/runs")
  assert server.read(f"{PLACE}/config.gin").decode() == CONFIG
  assert RunDirectory(PLACE + "/").claim(CONFIG, ARGV) is True
  with pytest.raises(errors.UsageError) as error:
    RunDirectory(PLACE).check(CONFIG.replace("0", "1"))
  assert f"{PLACE} holds a run of another" in str(error.value)
  assert f"flags of {PLACE}/command.sh" in str(error.value)


def test_a_claim_is_taken_back(server):
  started().release()
  assert there(server) == {"command.sh"}
  run = started()
  server.refuse = lambda *_: 403
  run.release()  # What ended the run shall be told, not this.


def test_checkpoints_are_not_copied_and_not_here(server):
  assert RunDirectory(PLACE).checkpoints == f"{PLACE}/checkpoints"


def test_results_come_last_and_are_read_elsewhere(server):
  run = started()
  (run.path / "predictions").mkdir()
  run.predictions("test").write_text("{}\n")
  run.vocab.mkdir()
  (run.vocab / "vocab.spm").write_bytes(b"\x00\xff")
  run.write_student("student")
  run.write_provenance({"a": 1})
  run.write_card("card")
  assert RunDirectory(PLACE).results() is None
  run.write_results(RESULTS)
  assert written(server)[-1] == "results.json"
  again = RunDirectory(PLACE)
  assert again.results() == RESULTS
  assert again.student_gin.read_text() == "student"
  assert (again.vocab / "vocab.spm").read_bytes() == b"\x00\xff"
  assert again.predictions("test").read_text() == "{}\n"
  assert again.write_page("page") == f"{PLACE}/report.html"
  assert server.read(f"{PLACE}/report.html") == b"page"


@pytest.mark.parametrize("torn", ["MODEL_CARD.md", "results.json"])
def test_a_run_whose_last_words_were_lost_is_not_finished(server, torn):
  run = started()
  server.refuse = lambda method, _, name: 403 if method == "POST" else None
  if torn == "results.json":
    server.refuse = lambda method, bucket, name: (
      403 if method == "POST" and name.endswith(torn) else None
    )
  run.write_card("card")
  with pytest.raises(errors.RunError, match=f"{PLACE} must be written") as said:
    run.write_results(RESULTS)
  assert f"({torn})" in str(said.value) and "same command" in str(said.value)
  assert "results.json" not in there(server)
  server.refuse = lambda *_: None
  assert RunDirectory(PLACE).results() is None
  run = started()
  run.write_card("card")
  run.write_results(RESULTS)
  assert RunDirectory(PLACE).results() == RESULTS
  assert there(server) >= {"MODEL_CARD.md", "results.json"}


def test_metrics_go_on_from_what_was_pushed(server):
  run = started()
  with run.metrics_writer(0) as writer:
    for step in (1, 2):
      writer.write(step, {"loss": step, "train_seconds": step})
    run.push()  # As before a checkpoint of step 2.
    writer.write(3, {"loss": 3})
  assert [r["step"] for r in read_metrics(run.metrics)] == [1, 2, 3]
  again = started()
  assert again.train_seconds(before=2) == 2.0
  with again.metrics_writer(2) as writer:
    writer.write(3, {"loss": 4})
  lines = server.read(f"{PLACE}/metrics.jsonl").decode().splitlines()
  rows = [json.loads(line) for line in lines]
  assert [(r["step"], r["loss"]) for r in rows] == [(1, 1), (2, 2), (3, 4)]
  events = [n for n in there(server) if n.startswith("tensorboard/")]
  assert len(events) == 2  # One of each start.


def test_a_push_copies_what_has_changed(server):
  run = started()
  run.write_student("1")
  run.push()
  server.asked.clear()
  run.push()
  assert server.asked == []
  run.write_student("2")
  run.push()
  assert written(server) == ["student.gin"]


def test_who_looks_into_the_bucket_sees_a_run_as_it_goes(server, monkeypatch):
  monkeypatch.setattr(mirror, "_SECONDS_BETWEEN", 0.0)
  with started().metrics_writer(0) as writer:
    writer.write(1, {"loss": 1})
    assert b'"step": 1' in server.read(f"{PLACE}/metrics.jsonl")
    server.refuse = lambda *_: 403
    writer.write(2, {"loss": 1})  # What must be there is pushed elsewhere.
    server.refuse = lambda *_: None
  assert b'"step": 2' in server.read(f"{PLACE}/metrics.jsonl")


def test_of_several_processes_one_writes(server):
  other = RunDirectory(PLACE).read_only()
  other.claim(CONFIG, ARGV)
  other.write_student("student")
  other.write_results(RESULTS)
  other.release()
  other.push()
  assert there(server) == set()
  first = started()
  assert first.writes and not first.read_only().writes


def test_a_bucket_that_is_not_there_or_not_ones_own_is_a_usage_error(server):
  run = RunDirectory("gs://other-bucket/run")
  said = "cannot write to the output directory gs://other-bucket/run: .*not exi"
  with pytest.raises(errors.UsageError, match=said):
    run.claim(CONFIG, ARGV)
  run = RunDirectory(PLACE)
  server.refuse = lambda method, *_: 403 if method == "POST" else None
  with pytest.raises(errors.UsageError, match=f"cannot write .*{PLACE}: .*403"):
    run.claim(CONFIG, ARGV)
  server.refuse = lambda *_: 403
  with pytest.raises(errors.UsageError, match=f"cannot read {PLACE}: .*403"):
    RunDirectory(PLACE)


def test_a_bucket_that_goes_away_is_told_and_nothing_is_lost(
  server, monkeypatch
):
  run = started()
  with run.metrics_writer(0) as writer:
    writer.write(1, {"loss": 1})
    run.push()
    monkeypatch.setattr(folder, "_SECONDS_OF_A_WRITE", 0.1)
    server.refuse = lambda *_: 503
    writer.write(2, {"loss": 1})
    with pytest.raises(errors.RunError, match="no answer in time"):
      run.push()
  server.refuse = lambda *_: None
  assert [r["step"] for r in read_metrics(RunDirectory(PLACE).metrics)] == [1]


def test_damaged_results_are_told_by_their_place(server):
  started()
  run = RunDirectory(PLACE)
  run.write_results({"schema_version": 0})
  with pytest.raises(errors.UsageError, match=f"{PLACE}/results.json must"):
    RunDirectory(PLACE).results()


@pytest.mark.parametrize("missing", [None, ModuleNotFoundError])
def test_a_missing_package_is_told(server, monkeypatch, missing):
  def find(name):
    if missing:
      raise missing(name)

  monkeypatch.setattr(importlib.util, "find_spec", find)
  with pytest.raises(errors.UsageError, match=r"augdistill\[gcs\]"):
    RunDirectory(PLACE)
