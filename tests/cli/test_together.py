"""Processes that do one run together, as the hosts of a pod do."""

import contextlib
import random
import re
import shutil
import signal
import socket
import subprocess
import time

import jax
import numpy as np
import pytest

from augdistill.cli import together
from augdistill.errors import Preempted
from tests.cli.tiny import (
  BOTH,
  TINY,
  command,
  on_devices,
  params,
  read_jsonl,
  results,
  run,
  same_bits,
  start,
)

FLAGS = (
  *(flag for flag in TINY if "num_steps" not in flag),
  "--gin.make_optimizer.learning_rate=1e-3",
)


def free_port():
  with socket.socket() as server:
    server.bind(("localhost", 0))
    return server.getsockname()[1]


def launch(processes, devices, *argv):
  """Starts a command in several processes, each with devices of its own."""
  port = free_port()
  return [
    subprocess.Popen(
      command(
        *argv,
        *(f"--coordinator=localhost:{port}", f"--num_processes={processes}"),
        f"--process_id={number}",
      ),
      env=on_devices(devices),
      text=True,
      start_new_session=True,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
    )
    for number in range(processes)
  ]


def finished(started, seconds=300):
  """(exit code, output, errors) of each."""
  end = time.monotonic() + seconds
  try:
    said = [
      process.communicate(timeout=max(1.0, end - time.monotonic()))
      for process in started
    ]
  finally:
    for process in started:
      with contextlib.suppress(ProcessLookupError):
        process.kill()
  return [(p.returncode, *s) for p, s in zip(started, said, strict=True)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data, teacher):
  """One run by one process of four devices, and by two of two each."""
  folder = tmp_path_factory.mktemp("together")
  flags = *data, *FLAGS, "--num_steps=4", f"--teacher={teacher}"
  alone, both = folder / "alone", folder / "both"
  argv = "distill", *flags, f"--method={BOTH}", "--mesh=2x2"
  subprocess.run(
    command(*argv, f"--output_dir={alone}"),
    env=on_devices(4),
    check=True,
    capture_output=True,
  )
  said = finished(launch(2, 2, *argv, f"--output_dir={both}"))
  return alone, both, said


def test_two_processes_do_what_one_does(runs):
  alone, both, said = runs
  assert [code for code, *_ in said] == [0, 0], said[0][2] + said[1][2]
  one, two = (read_jsonl(path / "metrics.jsonl") for path in (alone, both))
  for mine, theirs in zip(one, two, strict=True):
    assert list(mine) == list(theirs)
    for name in mine:
      if not name.endswith("_seconds"):
        assert theirs[name] == pytest.approx(mine[name], rel=1e-5), name
  for x, y in zip(
    jax.tree.leaves(params(alone)), jax.tree.leaves(params(both)), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
  assert results(both)["metrics"] == results(alone)["metrics"]
  assert (both / "predictions" / "test.jsonl").exists()


def test_the_first_process_alone_speaks(runs):
  _, both, ((_, out, err), (_, quiet_out, quiet_err)) = runs
  assert f"all of it  {both}" in out
  assert "step 4/4" in err
  # The library under JAX speaks all the same, with several threads at once.
  of_gloo = "Gloo Rank is connected to peer ranks Expected number of"
  words = re.findall("[A-Za-z]+", quiet_out)
  assert set(words) <= set(of_gloo.split()), quiet_out
  assert "step" not in quiet_err and "augdistill" not in quiet_err


def test_what_is_written_down_can_be_run_by_any_number(runs):
  alone, both, _ = runs
  text = (both / "command.sh").read_text()
  assert "--mesh=2x2" in text
  for flag in ("--coordinator", "--num_processes", "--process_id"):
    assert flag not in text
  for name in ("config.gin", "student.gin"):
    assert (both / name).read_text() == (alone / name).read_text()


def test_one_process_evaluates_what_two_trained(runs, files):
  _, both, _ = runs
  done = run("evaluate", f"--run={both}", f"--data={files / 'test.tsv'}")
  assert done.code == 0, done.err


def test_every_process_says_what_is_wrong_and_none_waits(tmp_path, data):
  flags = *data, *FLAGS, "--num_steps=4", f"--output_dir={tmp_path / 'run'}"
  said = finished(launch(2, 1, "finetune", *flags, "--mesh=3x1"), 60)
  for number, (code, _, err) in enumerate(said):
    assert code == 2, err
    message = f"augdistill: process {number}: error: the mesh 3x1 needs 3"
    assert message in err
  assert not (tmp_path / "run").exists()


def test_who_the_others_are_must_be_known(data, tmp_path):
  flags = *data, *FLAGS, f"--output_dir={tmp_path / 'run'}"
  process = start("finetune", *flags, "--distributed")
  _, err = process.communicate(timeout=60)
  assert process.returncode == 2, err
  assert "must be told by --coordinator HOST:PORT" in err


@pytest.mark.slow
def test_eight_devices_of_one_two_or_four_processes_are_the_same(
  tmp_path, data, teacher
):
  flags = *data, *FLAGS, "--num_steps=10", f"--teacher={teacher}", "--mesh=4x2"
  flags = (*flags, f"--method={BOTH}", "--gin.RunConfig.num_samples=8")
  seen = {}
  for processes in (1, 2, 4):
    path = tmp_path / str(processes)
    argv = "distill", *flags, f"--output_dir={path}"
    said = finished(launch(processes, 8 // processes, *argv))
    assert [code for code, *_ in said] == [0] * processes, said[0][2]
    losses = [
      r["loss"] for r in read_jsonl(path / "metrics.jsonl") if "loss" in r
    ]
    # The rows that were augmented, their texts, and what the teacher thinks.
    texts = [
      {k: v for k, v in row.items() if not isinstance(v, dict)}
      for row in read_jsonl(path / "samples.jsonl")
    ]
    seen[processes] = losses, texts, results(path)["metrics"]
  one, *others = seen.values()
  assert len(one[0]) == 10
  assert len(one[1]) >= 8
  for losses, texts, metrics in others:
    print(np.max(np.abs(np.array(losses) / one[0] - 1)))
    assert losses == pytest.approx(one[0], rel=1e-5)
    assert texts == one[1]
    assert metrics == one[2]


@pytest.mark.slow
def test_two_processes_ask_a_teacher_together_and_both_read(
  tmp_path, data, teacher
):
  flags = *data, *FLAGS, "--num_steps=4", f"--teacher={teacher}", "--mesh=4x1"
  kept = (f"--teacher_cache={tmp_path / 'cache'}",)
  seen = []
  for name, more in (("online", ()), ("filled", kept), ("read", kept)):
    argv = "distill", *flags, "--no_teacher_dropout", *more
    said = finished(launch(2, 2, *argv, f"--output_dir={tmp_path / name}"))
    assert [code for code, *_ in said] == [0, 0], said[0][2] + said[1][2]
    rows = read_jsonl(tmp_path / name / "metrics.jsonl")
    seen.append([row["loss"] for row in rows if "loss" in row])
  assert len(list((tmp_path / "cache").glob("*/*.npy"))) == 1
  assert seen[1] == seen[2]
  assert seen[1] == pytest.approx(seen[0], abs=1e-6)


# --- some of them stop --------------------------------------------------------


@pytest.mark.parametrize(
  "error",
  [
    jax.errors.JaxRuntimeError("UNKNOWN: Gloo AllReduce failed: reset"),
    # From the thread that computes it.
    ValueError("UNKNOWN: Gloo AllGather failed: reset"),
  ],
)
def test_what_jax_says_of_a_lost_process_is_told_as_that(monkeypatch, error):
  monkeypatch.setattr(together, "are_several", lambda: True)
  with pytest.raises(Preempted, match=f"was lost .{error}"), together.quiet():
    try:
      raise error
    finally:
      raise RuntimeError("and so nothing could be saved")


@pytest.mark.parametrize(
  "error",
  [
    jax.errors.JaxRuntimeError("INTERNAL: a kernel failed"),
    ValueError("no column of the name Gloo"),
  ],
)
def test_what_is_wrong_here_is_no_loss_of_another(monkeypatch, error):
  monkeypatch.setattr(together, "are_several", lambda: True)
  with pytest.raises(type(error), match=str(error)), together.quiet():
    raise error


def ends_of_a_loss(said):
  """The exit codes where one was killed, each of which must be as told."""
  codes = [code for code, *_ in said]
  assert set(codes) <= {75, -signal.SIGABRT, -signal.SIGKILL}, said
  for code, _, err in said:
    if code == 75:
      assert "another process was lost" in err
    elif code == -signal.SIGABRT:
      # By JAX's service; or by Gloo, which carries sums between CPUs, where it
      # gets half of one.
      assert (
        "most likely indicates that another task died" in err
        or "gloo::EnforceNotMet" in err
      )
  return codes


LONG = (*FLAGS, "--num_steps=60", "--gin.RunConfig.eval_period=10")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data):
  """The run that four processes do when nothing happens to them."""
  path = tmp_path_factory.mktemp("undisturbed") / "run"
  said = finished(
    launch(4, 1, "finetune", *data, *LONG, f"--output_dir={path}")
  )
  assert [code for code, *_ in said] == [0] * 4, said[0][2]
  return path


def wait_for_step(path, step, seconds=200):
  """Returns when metrics of this step are there."""
  end = time.monotonic() + seconds
  while time.monotonic() < end:
    if path.exists() and any(r["step"] >= step for r in read_lines(path)):
      return
    time.sleep(0.02)
  raise AssertionError(f"no step {step} in {path}")


def read_lines(path):
  with contextlib.suppress(ValueError, OSError):
    return read_jsonl(path)
  return []


def test_one_killed_the_other_says_so(tmp_path, data):
  path = tmp_path / "run"
  started = launch(2, 1, "finetune", *data, *LONG, f"--output_dir={path}")
  wait_for_step(path / "metrics.jsonl", 1)
  started[1].send_signal(signal.SIGKILL)
  assert ends_of_a_loss(finished(started, 60))[1] == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_one_killed_the_others_stop_and_a_rerun_ends_the_same(
  tmp_path, data, undisturbed, seed
):
  draw, path = random.Random(seed), tmp_path / "run"
  argv = "finetune", *data, *LONG, f"--output_dir={path}"
  started = launch(4, 1, *argv)
  wait_for_step(path / "metrics.jsonl", draw.randrange(1, 55))
  victim = draw.choice(started)
  victim.send_signal(signal.SIGKILL)
  begin = time.monotonic()
  said = finished(started, 60)
  assert time.monotonic() - begin < 60
  assert ends_of_a_loss(said).count(-signal.SIGKILL) == 1
  codes = [code for code, *_ in finished(launch(4, 1, *argv))]
  assert codes == [0] * 4
  assert same_bits(params(path, 60), params(undisturbed, 60))
  assert results(path)["metrics"] == results(undisturbed)["metrics"]


@pytest.mark.slow
def test_one_asked_to_stop_all_save_the_same_step(tmp_path, data, undisturbed):
  draw, path = random.Random(0), tmp_path / "run"
  argv = "finetune", *data, *LONG, f"--output_dir={path}"
  started = launch(4, 1, *argv)
  wait_for_step(path / "metrics.jsonl", 12)
  draw.choice(started).send_signal(signal.SIGTERM)
  said = finished(started, 60)
  assert [code for code, *_ in said] == [75] * 4
  (step,) = {
    err.partition("stopped after step ")[2].split(",")[0] for *_, err in said
  }
  assert (path / "checkpoints" / step).is_dir()
  # Another number of hosts and devices goes on with it.
  other = tmp_path / "other"
  shutil.copytree(path, other)
  codes = [code for code, *_ in finished(launch(4, 1, *argv))]
  assert codes == [0] * 4
  assert same_bits(params(path, 60), params(undisturbed, 60))
  argv = "finetune", *data, *LONG, f"--output_dir={other}"
  assert [c for c, *_ in finished(launch(2, 1, *argv))] == [0, 0]
  for x, y in zip(
    jax.tree.leaves(params(other, 60)),
    jax.tree.leaves(params(undisturbed, 60)),
    strict=True,
  ):
    np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_asked_to_stop_time_and_again_nothing_saved_is_lost(
  tmp_path, data, undisturbed
):
  """Of two processes one is asked, at any time and in the middle of saves."""
  draw, path = random.Random(1), tmp_path / "run"
  argv = (*("finetune", *data, *LONG), "--gin.RunConfig.eval_period=2")
  argv = (*argv, "--gin.RunConfig.keep_checkpoints=30", f"--output_dir={path}")
  step, stops = 0, 0
  while step < 45:
    started = launch(2, 1, *argv)
    if stops % 2:  # before there is a step to stop after
      wanted = step + 1
      assert f"resuming {path} at step {step}\n" in iter(
        started[0].stdout.readline, ""
      )
    else:
      wanted = step + draw.randrange(1, 8)
      wait_for_step(path / "metrics.jsonl", wanted)
      time.sleep(draw.uniform(0, 0.1))
    draw.choice(started).send_signal(signal.SIGTERM)
    said = finished(started, 200)
    assert [code for code, *_ in said] == [75, 75], said[0][2] + said[1][2]
    told = {
      err.partition("stopped after step ")[2].split(",")[0] for *_, err in said
    }
    step, stops = int(*told), stops + 1
    assert wanted <= step < wanted + 20
    assert (path / "checkpoints" / str(step)).is_dir()
  print(f"{stops} stops")
  assert stops >= 4
  codes = [code for code, *_ in finished(launch(2, 1, *argv))]
  assert codes == [0, 0]
  ends = params(path, 60), params(undisturbed, 60)
  for x, y in zip(*map(jax.tree.leaves, ends), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)
