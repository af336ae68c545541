"""Benchmarks: ratios are what they say, and every file of them runs."""

import functools
import itertools
import json
import os
import subprocess
import sys

import pytest

from tests.benchmarks import paper_step, real_data, run, turns
from tests.benchmarks.made_up_step import Sizes
from tests.benchmarks.turns import (
  Figure,
  Missing,
  at_least,
  at_most,
  figure,
  ratio,
  taking_turns,
)


class Machine:
  """One whose clock goes on by what programs take, and that gets slower."""

  def __init__(self):
    self.now, self.ran = 0.0, []

  def program(self, name, seconds):
    """Half of its time is spent when it has returned."""
    speed = itertools.chain([100.0], itertools.count(1.0))

    def run():
      slower = next(speed)
      self.ran.append(name)
      self.now += seconds * slower / 2
      return Pending(self, seconds * slower / 2)

    return run


class Pending:
  def __init__(self, machine, seconds):
    self.machine, self.seconds = machine, seconds

  def block_until_ready(self):
    self.machine.now += self.seconds
    return self


def test_programs_take_turns_and_every_other_round_backwards():
  machine = Machine()
  runs = {name: machine.program(name, 1.0) for name in "abc"}
  taking_turns(runs, 8, clock=lambda: machine.now)
  assert "".join(machine.ran) == "abc" + 4 * "abccba"


def test_seconds_are_those_of_a_round_and_the_first_time_does_not_count():
  machine = Machine()
  runs = {"a": machine.program("a", 3.0), "b": machine.program("b", 0.5)}
  seconds = taking_turns(runs, 7, clock=lambda: machine.now)
  assert seconds == {
    "a": [3.0 * i for i in range(1, 8)],
    "b": [0.5 * i for i in range(1, 8)],
  }


def test_a_ratio_is_one_of_a_round_and_the_figure_their_median():
  amounts = {"a": [1, 8, 3, 2, 9, 30, 7], "b": [1, 2, 1, 4, 3, 3, 1]}
  got = figure(amounts, "a", "b", per=2, bound=at_most(3.0), note="n")
  # 1, 4, 3, 1/2, 3, 10, 7; the medians' own is 7 / 2.
  expected = ("a", "b", 3.0, 0.5, 10.0, 7, 3.5, 1.0, "s", ("<=", 3.0), "n")
  assert got == Figure(*expected)


def test_of_two_programs_the_first_is_divided_by_the_second(monkeypatch):
  machine = Machine()
  runs = {
    "slow": machine.program("slow", 3.0),
    "fast": machine.program("", 1.0),
  }
  clocked = functools.partial(taking_turns, clock=lambda: machine.now)
  monkeypatch.setattr(turns, "taking_turns", clocked)
  got = ratio(runs, bound=at_least(2))
  assert got[:6] == ("slow", "fast", 3.0, 3.0, 3.0, 7)


def test_too_few_rounds_are_refused():
  with pytest.raises(ValueError, match="7 rounds or more, got 6"):
    taking_turns({}, 6)


@pytest.mark.parametrize(
  ("bound", "ratio", "holds"),
  [
    (at_most(2.1), 2.1, True),
    (at_most(2.1), 2.11, False),
    (at_least(3), 3.0, True),
    (at_least(3), 2.99, False),
  ],
)
def test_a_bound_holds_or_not(bound, ratio, holds):
  assert bound.holds(ratio) is holds


FIGURES = (
  Figure("a|b", "c", 2.0, 1.0, 3.0, 7, 0.002, 1.0, "s", at_most(1.5), "V 3"),
  Figure("d", "c", 2.0, 1.0, 3.0, 7, 5.0, 2.5, "MB", at_least(2)),
)


@pytest.fixture
def results(monkeypatch):
  """What becomes of three benchmarks, without running them."""
  results = {
    "step_cost": run.Result(FIGURES, ["cpu:0 cpu"]),
    "lengths": run.Result(missing="a data set"),
    "scaling": run.Result(failed="ValueError: no"),
  }
  monkeypatch.setattr(run, "measure_apart", lambda name, quick: results[name])
  return results


def test_the_table_says_what_was_reached_missing_and_failed(
  results, tmp_path, capsys
):
  assert run.main(["--out", str(tmp_path / "new"), *results]) == 1
  table = (tmp_path / "new" / "benchmarks.md").read_text("utf-8")
  assert table in capsys.readouterr().out
  assert (
    r"| a\|b | c | 2 (1 to 3) | <= 1.5: **no** | 2 ms / 1 s | V 3 |" in table
  )
  assert "| d | c | 2 (1 to 3) | >= 2: yes | 5 MB / 2.5 MB |  |" in table
  assert "Missing: a data set" in table
  assert "Failed: ValueError: no" in table


def test_the_file_holds_the_same_and_where_it_was_measured(results, tmp_path):
  assert run.main(["--out", str(tmp_path), "step_cost", "lengths"]) == 0
  told = json.loads((tmp_path / "benchmarks.json").read_text("utf-8"))
  assert {"versions", "git_revision", "cores", "time", "python"} <= told.keys()
  cost = told["benchmarks"]["step_cost"]
  assert cost["devices"] == ["cpu:0 cpu"]
  first, second = cost["figures"]
  assert first["ratio"] == 2.0 and first["reached"] is False
  assert first["bound"] == {"sign": "<=", "value": 1.5}
  assert second["reached"] is True
  assert told["benchmarks"]["lengths"]["missing"] == "a data set"


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    (["lenghts"], "got 'lenghts'. Did you mean 'lengths'?"),
    (["kd", "kd+mixap"], "no view or term is called 'mixap'"),
    (["--rounds", "6", "kd"], "--rounds must be at least 7, got 6"),
    (["--out", __file__], f"must be a directory, got the file {__file__}"),
  ],
)
def test_wrong_arguments_are_refused(capsys, argv, message):
  with pytest.raises(SystemExit) as stopped:
    run.main(argv)
  assert stopped.value.code == 2
  assert message in capsys.readouterr().err


def test_what_is_missing_is_told_and_what_fails_stops_no_other(monkeypatch):
  monkeypatch.setattr(paper_step.jax, "default_backend", lambda: "cpu")
  assert "a GPU or a TPU" in run.measure("paper_step", quick=True).missing
  monkeypatch.setattr(paper_step.jax, "default_backend", lambda: 1 / 0)
  assert "ZeroDivisionError" in run.measure("paper_step", quick=True).failed


@pytest.mark.slow
def test_the_papers_step_runs_at_any_size():
  sizes = Sizes("micro", "micro", 8, 8, 40, 2, "bfloat16", "adafactor")
  figures = paper_step.figures_of(sizes, ("kd",), steps=1, width=16)
  (share,) = figures  # A CPU has no published peak.
  assert share.reference == "kd"
  assert 0 < share.ratio < 10
  assert "minutes per 1,000 steps, the paper's 1.68" in share.note


@pytest.mark.slow
def test_every_benchmark_runs_quickly_in_a_process_of_its_own(tmp_path):
  assert run.main(["--quick", "--out", str(tmp_path)]) == 0
  told = json.loads((tmp_path / "benchmarks.json").read_text("utf-8"))
  assert list(told["benchmarks"]) == list(run.BENCHMARKS)
  for name, result in told["benchmarks"].items():
    assert result["figures"] or result["missing"], name
    assert all(figure["rounds"] >= 7 for figure in result["figures"])
  assert len(told["benchmarks"]["devices"]["devices"]) == 8


def test_real_data_that_is_not_there_is_missing(monkeypatch, tmp_path):
  monkeypatch.setenv(real_data.FOLDER, str(tmp_path))
  with pytest.raises(Missing, match=r"where DIR/data/rte/train\.tsv is"):
    real_data.load("rte")


def test_a_benchmark_ends_with_what_started_it(tmp_path):
  script = tmp_path / "start.py"
  script.write_text(
    "import time\n"
    "from tests.benchmarks import run\n"
    "def sleep(name, quick):\n"
    "  print(name, flush=True)\n"
    "  time.sleep(600)\n"
    "run.measure = sleep\n"
    "if __name__ == '__main__':\n"
    "  run.measure_apart('asleep', quick=True)\n"
  )
  started = subprocess.Popen(
    [sys.executable, script],
    stdout=subprocess.PIPE,
    env=os.environ | {"PYTHONPATH": str(run.ROOT)},
  )
  with started:
    assert started.stdout.readline() == b"asleep\n"
    started.kill()
    # The pipe is closed when the last of them has ended.
    assert started.communicate(timeout=60) == (b"", None)
