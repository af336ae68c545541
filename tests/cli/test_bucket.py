"""Runs whose directory is in a bucket."""

import json
import os
import subprocess
import threading
import time

import pytest

from augdistill.checkpoints.store import Store
from tests import bucket
from tests.cli.test_restart import stop_at
from tests.cli.test_together import FLAGS, finished, launch
from tests.cli.tiny import (
  TINY,
  TINY_PRETRAIN,
  command,
  ok,
  params,
  read_jsonl,
  results,
  run,
  same_bits,
)


@pytest.fixture(scope="module")
def server():
  with pytest.MonkeyPatch.context() as patch, bucket.bucket(patch) as server:
    yield server


@pytest.fixture(autouse=True)
def nothing_is_refused(server):
  server.refuse = lambda *_: None


def lines(text):
  return [json.loads(line) for line in text.splitlines()]


def untimed(rows):
  return [{k: v for k, v in r.items() if "seconds" not in k} for r in rows]


def same_run(server, place, local):
  """Whether a run in the bucket is one on the disk, but for its seconds."""
  text = server.read(f"{place}/metrics.jsonl").decode()
  assert untimed(lines(text)) == untimed(read_jsonl(local / "metrics.jsonl"))
  its = json.loads(server.read(f"{place}/results.json"))
  assert its["metrics"] == results(local)["metrics"]
  with Store(f"{place}/checkpoints") as store:
    assert same_bits(store.restore_params(4), params(local, 4))
  return True


# --- what is wrong is told, before anything is done ---------------------------


@pytest.mark.parametrize("code", [401, 403])
def test_a_bucket_that_one_may_not_read_is_told(server, data, code):
  server.refuse = lambda *_: code
  place = "gs://bucket/refused"
  for argv in (
    ("finetune", *data, *TINY, f"--output_dir={place}"),
    ("pretrain", *data, *TINY_PRETRAIN, f"--output_dir={place}"),
    ("distill", *data, *TINY, f"--teacher={place}", "--output_dir=x"),
    ("finetune", *data, *TINY, f"--init={place}", "--output_dir=x"),
    ("evaluate", f"--run={place}", "--data=x"),
    ("table", place),
  ):
    done = run(*argv)
    assert done.code == 2, argv
    assert f"cannot read {place}: " in done.err
    assert "gcloud auth application-default login" in done.err
  assert server.names("bucket") == []


def test_where_there_is_no_run_it_is_told(server, data):
  place = "gs://bucket/nowhere"
  for words in (("evaluate", "--data=x"), ("predict", "--input=x")):
    done = run(*words, f"--run={place}")
    assert done.code == 2 and f"{place} must hold a run of augd" in done.err
  done = run("report", f"--run={place}")
  assert done.code == 2 and place in done.err


def test_what_needs_a_disk_is_told_to_need_one(
  server, data, teacher, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  place = "gs://bucket/out.jsonl"
  for argv in (
    ("compare", *data, "--methods=ft", f"--output_dir={place}"),
    ("predict", f"--run={teacher}", "--input=-", f"--output={place}"),
    ("export", f"--run={teacher}", "--format=hf", f"--output={place}"),
    ("report", f"--run={teacher}", f"--output={place}"),
  ):
    done = run(*argv)
    assert done.code == 2, argv
    assert f"{place} must be a path of this machine" in done.err
  assert os.listdir(tmp_path) == []


# --- whole runs: TensorFlow, which reads the bucket, is imported --------------


@pytest.mark.slow
def test_a_run_is_stopped_goes_on_and_is_used(
  server, data, files, teacher, tmp_path, monkeypatch
):
  place = "gs://bucket/runs/teacher"
  argv = "finetune", *data, *TINY, f"--output_dir={place}"
  with monkeypatch.context() as patch:
    stop_at(patch, 3)
    done = run(*argv)
  assert done.code == 75, done.err
  assert server.read(f"{place}/checkpoints/3/commit_success.txt")
  assert server.read(f"{place}/results.json") is None
  done = ok(*argv)
  assert f"resuming {place} at step 3" in done.out
  # The teacher is the same run, undisturbed, on a disk; where it was stopped,
  # this one reported its seconds, too.
  text = server.read(f"{place}/metrics.jsonl").decode()
  mine = [row for row in untimed(lines(text)) if len(row) > 1]
  assert mine == untimed(read_jsonl(teacher / "metrics.jsonl"))
  with Store(f"{place}/checkpoints") as store:
    assert same_bits(store.restore_params(4), params(teacher, 4))
  prefix = f"{place}/".removeprefix("gs://bucket/")
  there = {
    name.removeprefix(prefix).partition("/")[0]
    for name in server.names("bucket")
    if name.startswith(prefix)
  }
  assert there >= {path.name for path in teacher.iterdir()}
  done = ok(*argv)
  assert f"{place} is finished already" in done.out
  test = files / "test.tsv"
  said = [
    json.loads(ok("evaluate", f"--run={r}", f"--data={test}").out)
    for r in (place, teacher)
  ]
  assert said[0] == said[1]
  said = [
    lines(ok("predict", f"--run={r}", f"--input={test}").out)
    for r in (place, teacher)
  ]
  assert said[0] == said[1]
  student = "gs://bucket/runs/student"
  flags = f"--teacher={place}", f"--init={place}", "--force"
  ok("distill", *data, *TINY, *flags, f"--output_dir={student}")
  its = json.loads(server.read(f"{student}/results.json"))
  assert its["teacher_metrics"] == results(teacher)["metrics"]
  assert "kd" in ok("table", place, student).out
  ok("report", f"--run={student}")
  assert server.read(f"{student}/report.html")
  ok("export", f"--run={place}", "--format=hf", f"--output={tmp_path / 'hf'}")


@pytest.mark.slow
def test_a_pretrained_model_in_a_bucket_is_begun_with(server, data):
  place, other = "gs://bucket/runs/pretrained", "gs://bucket/runs/tuned"
  ok("pretrain", *data, *TINY_PRETRAIN, f"--output_dir={place}")
  argv = "finetune", *data, *TINY, f"--init={place}", f"--output_dir={other}"
  assert f"beginning with {place}" in ok(*argv).out


@pytest.mark.slow
@pytest.mark.parametrize("what", ["", "checkpoints/"])
@pytest.mark.parametrize("code", [403, 404])
def test_a_bucket_that_goes_away_costs_no_step_that_was_saved(
  server, data, teacher, code, what
):
  place = f"gs://bucket/runs/away{code}{what[:1]}"
  argv = "finetune", *data, *TINY, f"--output_dir={place}"
  inside = f"{place}/{what}".removeprefix("gs://bucket/")

  def refuse(method, _, name):
    gone = server.read(f"{place}/checkpoints/2/commit_success.txt")
    writes = method in ("POST", "PUT") and name.startswith(inside)
    return code if gone and writes else None

  server.refuse = refuse
  done = run(*argv)
  assert done.code == 1, done.err
  assert "run the same command again" in done.err
  assert server.read(f"{place}/results.json") is None
  server.refuse = lambda *_: None
  done = ok(*argv)
  assert f"resuming {place} at step 2" in done.out
  assert same_run(server, place, teacher)


@pytest.mark.slow
def test_results_that_cannot_be_written_are_made_again(server, data, teacher):
  place = "gs://bucket/runs/torn"
  argv = "finetune", *data, *TINY, f"--output_dir={place}"
  server.refuse = lambda method, _, name: (
    403 if method == "POST" and name.endswith("results.json") else None
  )
  done = run(*argv)
  assert done.code == 1
  assert f"{place} must be written, but: " in done.err
  done = run("evaluate", f"--run={place}", "--data=x")
  assert done.code == 2 and "has no results.json" in done.err
  server.refuse = lambda *_: None
  ok(*argv)
  assert same_run(server, place, teacher)


@pytest.mark.slow
def test_two_processes_write_into_one_directory_stop_and_go_on(server, data):
  place = "gs://bucket/runs/both"
  flags = "--num_steps=20", "--gin.RunConfig.eval_period=5", "--mesh=2x1"
  argv = "finetune", *data, *FLAGS, *flags, f"--output_dir={place}"
  started = launch(2, 1, *argv)

  def stop():
    end = time.monotonic() + 200
    while time.monotonic() < end:
      if server.read(f"{place}/checkpoints/5/commit_success.txt"):
        return started[1].terminate()
      time.sleep(0.05)
    return None

  stopper = threading.Thread(target=stop)
  stopper.start()
  said = finished(started)
  stopper.join()
  assert [code for code, *_ in said] == [75, 75], said[0][2] + said[1][2]
  said = finished(launch(2, 1, *argv))
  assert [code for code, *_ in said] == [0, 0], said[0][2] + said[1][2]
  assert f"resuming {place} at step" in said[0][1]
  text = server.read(f"{place}/metrics.jsonl").decode()
  steps = [row["step"] for row in lines(text) if "loss" in row]
  assert steps == [*range(1, 21)]
  assert server.read(f"{place}/results.json")
  for process in (0, 1):
    inside = f"runs/both/checkpoints/20/state/ocdbt.process_{process}/"
    assert any(n.startswith(inside) for n in server.names("bucket"))
  assert run("table", place).code == 0


@pytest.mark.slow
def test_without_credentials_it_is_told_what_to_do(server, data, tmp_path):
  env = {k: v for k, v in os.environ.items() if k != bucket.TOKEN}
  argv = "finetune", *data, *TINY, "--output_dir=gs://bucket/anonymous"
  done = subprocess.run(
    command(*argv),
    env=env | {"HOME": str(tmp_path)},
    capture_output=True,
    text=True,
    timeout=200,
  )
  assert done.returncode == 2, done.stderr
  assert "cannot read gs://bucket/anonymous: " in done.stderr
  assert "gcloud auth application-default login" in done.stderr
