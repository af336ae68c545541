"""Killed or asked to stop, a run goes on and ends as if nothing had been."""

import contextlib
import gc
import json
import os
import pathlib
import pty
import random
import re
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from augdistill.cli import experiment, fit, stopping, stopwatch
from tests.cli.tiny import (
  TINY,
  ok,
  params,
  read_jsonl,
  results,
  run,
  same_bits,
  snapshot,
  start,
  untimed,
)

# --- asked to stop, in this process ------------------------------------------


def stop_at(monkeypatch, step):
  """Sends SIGTERM to this process while that step is under way."""
  make_step = fit.make_step

  def made(parts):
    take_step = make_step(parts)

    def stepping(number, state, batch):
      assert number == int(state.step)
      if number == step - 1:
        signal.raise_signal(signal.SIGTERM)
      return take_step(number, state, batch)

    return stepping

  monkeypatch.setattr(fit, "make_step", made)


def test_asked_to_stop_a_run_saves_and_exits_with_75_and_goes_on(
  tmp_path, monkeypatch, data, teacher
):
  path = tmp_path / "run"
  flags = *data, *TINY, f"--output_dir={path}"
  before = signal.getsignal(signal.SIGTERM)
  with monkeypatch.context() as patch:
    stop_at(patch, 3)
    done = run("finetune", *flags)
  assert done.code == 75
  assert "augdistill: error: stopped after step 3, which is saved" in done.err
  assert "run the same command again" in done.err
  assert signal.getsignal(signal.SIGTERM) is before
  assert (path / "checkpoints" / "3").is_dir()
  assert not (path / "results.json").exists()
  done = ok("finetune", *flags)
  assert f"resuming {path} at step 3" in done.out
  # The teacher is the same run, undisturbed.
  assert same_bits(params(path, 4), params(teacher, 4))
  assert untimed(path) == untimed(teacher)


def test_where_a_run_was_stopped_it_is_not_scored(tmp_path, monkeypatch, data):
  # Or its best checkpoint could be one that an undisturbed run has not.
  path = tmp_path / "run"
  stop_at(monkeypatch, 3)
  assert run("finetune", *data, *TINY, f"--output_dir={path}").code == 75
  rows = read_jsonl(path / "metrics.jsonl")
  assert [r["step"] for r in rows if "validation/accuracy" in r] == [2]
  assert [r["step"] for r in rows if "train_seconds" in r] == [2, 3]


def test_asked_to_stop_before_the_first_step_it_exits_with_75(
  tmp_path, monkeypatch, capfd, data
):
  def prepare(config):
    signal.raise_signal(signal.SIGTERM)

  monkeypatch.setattr(experiment, "prepare", prepare)
  done = run("finetune", *data, *TINY, f"--output_dir={tmp_path / 'run'}")
  assert done.code == 75
  assert "stopped; run the same command again" in capfd.readouterr().err
  assert not (tmp_path / "run").exists()


def test_an_exit_that_a_library_takes_for_a_failure_is_one_with_75(capfd):
  with pytest.raises(SystemExit) as stopped, stopping.exit_at_once():
    try:
      signal.raise_signal(signal.SIGTERM)
    except SystemExit as stop:
      raise ImportError("initialization failed") from stop
  assert stopped.value.code == 75
  assert "stopped; run the same command again" in capfd.readouterr().err


def test_what_fails_without_being_asked_to_stop_has_failed():
  with pytest.raises(ImportError, match="failed"), stopping.exit_at_once():
    raise ImportError("initialization failed")


def hears(process):
  """Returns when a process handles SIGTERM, as it soon does."""
  bit = 1 << (signal.SIGTERM - 1)
  while process.poll() is None:
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    if int(status.partition("SigCgt:")[2].split()[0], 16) & bit:
      return
    time.sleep(0.001)


@pytest.mark.skipif(not pathlib.Path("/proc").exists(), reason="no /proc here")
def test_asked_to_stop_while_it_is_imported_it_exits_with_75(tmp_path, data):
  process = start("finetune", *data, *TINY, f"--output_dir={tmp_path / 'run'}")
  hears(process)
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 75, err
  assert "augdistill: error: stopped; run the same command again\n" in err


def test_an_exit_that_goes_nowhere_comes_again():
  asked = []

  def stop(*_):  # As JAX's, of which nothing that it raises is seen again.
    if not asked:
      asked.append(True)
      signal.raise_signal(signal.SIGTERM)

  gc.callbacks.append(stop)
  try:
    with pytest.raises(SystemExit) as stopped, stopping.exit_at_once():
      gc.collect()
      time.sleep(20)
  finally:
    gc.callbacks.remove(stop)
  assert asked
  assert stopped.value.code == 75


def test_interrupted_by_hand_before_a_checkpoint_the_directory_is_free(
  tmp_path, monkeypatch, data
):
  def interrupted(*args):
    raise KeyboardInterrupt

  monkeypatch.setattr(fit, "make_step", lambda parts: interrupted)
  path = tmp_path / "run"
  flags = *data, *TINY, f"--output_dir={path}"
  assert run("finetune", *flags) == (130, "", "augdistill: interrupted\n")
  assert not (path / "config.gin").exists()


def test_a_run_of_which_every_checkpoint_is_torn_is_not_given_away(
  tmp_path, data, teacher
):
  path = tmp_path / "run"
  shutil.copytree(teacher, path)
  (path / "results.json").unlink()
  for torn in (path / "checkpoints").glob("*/state"):
    shutil.rmtree(torn)
  config = (path / "config.gin").read_text()
  # The configuration of the copied run does not name its directory.
  done = run("finetune", *data, *TINY, f"--output_dir={path}")
  assert done.code == 1
  assert "no readable checkpoint" in done.err.splitlines()[-1]
  assert (path / "config.gin").read_text() == config


def test_seconds_are_those_of_steps_over_all_starts(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])

  def step(seconds):
    now[0] += seconds
    return seconds

  clock = stopwatch.Stopwatch(before=10.0, began=-5.0)
  timed = clock.timed(step)
  assert clock.seconds() == 10.0
  timed(99.0)  # compiles: counted as an average later step
  assert clock.seconds() == 10.0
  assert clock.startup_seconds == 5.0 + 99.0
  timed(2.0)
  with clock.paused():
    now[0] += 50.0
  timed(4.0)
  assert clock.seconds() == 10.0 + 2.0 + 4.0 + 3.0


def test_a_later_step_that_compiles_counts_as_an_average_one(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
  compiled = jax.jit(lambda x: x + 1)

  def step(x, seconds):
    now[0] += seconds
    return compiled(x)

  clock = stopwatch.Stopwatch(before=0.0, began=0.0)
  timed = clock.timed(step)
  short, long = np.zeros(2, np.float32), np.zeros(3, np.float32)
  timed(short, 70.0)
  assert clock.startup_seconds == 70.0
  first = clock.startup_compiling
  assert first > 0
  timed(short, 2.0)
  timed(long, 80.0)  # another shape
  timed(long, 4.0)
  timed(short, 3.0)
  assert clock.seconds() == 2.0 + 4.0 + 3.0 + 2 * 3.0
  assert (clock.startup_seconds, clock.startup_compiling) == (70.0, first)


# --- killed, in a process of its own -----------------------------------------

STEPS = 60
METHOD = "kd+token_mix"


@pytest.fixture(scope="module")
def arguments(data, teacher):
  return (
    *("distill", *data, *TINY, f"--teacher={teacher}", f"--method={METHOD}"),
    *(f"--num_steps={STEPS}", "--gin.RunConfig.eval_period=5"),
  )


@pytest.fixture(scope="module")
def undisturbed(files, arguments):
  """A run's directory, and what a terminal showed of it."""
  path = files / "undisturbed"
  ours, its = pty.openpty()
  process = start(*arguments, f"--output_dir={path}", stderr=its)
  os.close(its)
  shown = []
  with contextlib.suppress(OSError):  # raised when the process has ended
    while chunk := os.read(ours, 4096):
      shown.append(chunk)
  assert process.wait() == 0, b"".join(shown).decode()[-2000:]
  process.stdout.close()
  return path, b"".join(shown).decode()


def last_step(path):
  try:
    return json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])[
      "step"
    ]
  except (OSError, IndexError, ValueError):
    return 0


def saved(checkpoints):
  return any(p.name.isdigit() for p in checkpoints.glob("*"))


def kill_when(process, condition):
  """SIGKILL as soon as `condition` holds; False if it ended before."""
  while not condition():
    if process.poll() is not None:
      return False
    time.sleep(0.001)
  os.kill(process.pid, signal.SIGKILL)
  process.communicate()
  return True


def finish(arguments, path):
  process = start(*arguments, f"--output_dir={path}")
  out, err = process.communicate()
  assert process.returncode == 0, err
  for line in err.splitlines():  # nothing of any library
    assert line.startswith(f"{METHOD}: step "), err
  return out


def equal(path, undisturbed, steps=STEPS):
  assert same_bits(params(path, steps), params(undisturbed, steps))
  assert untimed(path) == untimed(undisturbed)
  best = results(undisturbed)["best_step"]
  assert same_bits(params(path, best), params(undisturbed, best))
  names = set(snapshot(undisturbed)) - set(snapshot(path))
  assert all("/checkpoints/" in f"/{n}" or "tfevents" in n for n in names)
  losses = [
    [
      (r["step"], r["loss"])
      for r in read_jsonl(p / "metrics.jsonl")
      if "loss" in r
    ]
    for p in (path, undisturbed)
  ]
  assert losses[0] == losses[1]
  assert len(losses[0]) == steps


def test_a_terminal_shows_how_far_a_run_is_and_nothing_of_any_library(
  undisturbed,
):
  _, shown = undisturbed
  text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
  assert "compiling" in text
  assert f"{STEPS}/{STEPS} loss " in text
  assert re.search(r"[0-9.]+ steps/s, 0:0[0-9] left", text)
  lines = {line.strip() for line in re.split(r"[\r\n]+", text)} - {""}
  notes = {line for line in lines if line.startswith(f"{METHOD}: step ")}
  (first,) = (note for note in notes if "the first, after" in note)
  assert first.startswith(f"{METHOD}: step 1: ")
  assert len(notes - {first}) == STEPS // 5
  assert all("validation accuracy" in note for note in notes - {first})
  assert all(
    re.match(rf"{re.escape(METHOD)} \S+ *\d+/", x) for x in lines - notes
  )


def test_killed_at_a_random_moment_and_resumed_a_run_ends_bit_for_bit_the_same(
  tmp_path, arguments, undisturbed
):
  path = tmp_path / "run"
  step = random.randint(6, STEPS - 10)
  process = start(*arguments, f"--output_dir={path}")
  assert kill_when(
    process, lambda: last_step(path) >= step and saved(path / "checkpoints")
  )
  assert "resuming" in finish(arguments, path), step
  equal(path, undisturbed[0])


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(3))
def test_killed_at_three_random_moments_a_run_ends_bit_for_bit_the_same(
  tmp_path, arguments, undisturbed, attempt
):
  path, moments = tmp_path / "run", []
  for _ in range(3):
    process = start(*arguments, f"--output_dir={path}")
    if random.random() < 0.3:  # at any time: imports, data, compilation
      moments.append(f"{random.uniform(0.0, 12.0)} s")
      due = time.monotonic() + float(moments[-1].split()[0])
      kill_when(process, lambda due=due: time.monotonic() >= due)
    else:
      begin = last_step(path)
      moments.append(random.randint(begin + 1, begin + STEPS // 3))
      wanted, delay = moments[-1], random.uniform(0.0, 0.05)
      if kill_when(process, lambda wanted=wanted: last_step(path) >= wanted):
        time.sleep(delay)
  finish(arguments, path)
  print(moments)
  equal(path, undisturbed[0])


@pytest.mark.slow
def test_asked_to_stop_twenty_times_a_run_loses_nothing(tmp_path, arguments):
  """At any time, half of them in the middle of a save."""
  path, promised, moments = tmp_path / "run", 0, []
  checkpoints, arguments = path / "checkpoints", [*arguments, "--num_steps=150"]
  finish(arguments, tmp_path / "undisturbed")
  argv = *arguments, f"--output_dir={path}"
  for attempt in range(20):
    process, begin = start(*argv), last_step(path)
    if attempt % 4 == 0:  # imports, data, compilation
      moments.append("at a time")
      hears(process)
      time.sleep(random.uniform(0.0, 6.0))
    elif attempt % 4 == 1:
      moments.append("at a step")
      while last_step(path) < begin + 2 and process.poll() is None:
        time.sleep(0.001)
    else:
      moments.append("in a save")
      while not any(checkpoints.glob("*-tmp*")) and process.poll() is None:
        pass
    if process.poll() is not None:
      break
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    if "resuming" in out:
      assert f"resuming {path} at step {promised}\n" in out
    if "which is saved" in err:
      promised = int(err.partition("stopped after step ")[2].split(",")[0])
      assert (checkpoints / str(promised)).is_dir()
    moments[-1] += f" ({promised})"
  print(moments)
  assert len(moments) == 20
  finish(arguments, path)
  equal(path, tmp_path / "undisturbed", 150)
