"""Ratios of times, of what takes turns in one process.

The speed of a machine drifts, so seconds of two programs say little unless
both ran in the same minute. A round runs every program once, every other round
in the opposite order; a ratio is taken within its round, and the median over
rounds is the figure.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax

from augdistill.training import freed_memory

ROUNDS = 7  # at least, for a median


class Missing(Exception):
  """A benchmark needs what is not there; its text says what, and the remedy."""


class Bound(NamedTuple):
  """What was asked of a ratio.

  Attributes:
    sign: "<=" or ">=".
    value: what it is compared with.
  """

  sign: str
  value: float

  def holds(self, ratio: float) -> bool:
    """Whether a ratio is as was asked."""
    return ratio <= self.value if self.sign == "<=" else ratio >= self.value


def at_most(value: float) -> Bound:
  """A ratio that must not be larger."""
  return Bound("<=", value)


def at_least(value: float) -> Bound:
  """A ratio that must not be smaller."""
  return Bound(">=", value)


class Figure(NamedTuple):
  """One ratio.

  Attributes:
    name: what is measured.
    reference: what it is divided by.
    ratio: the median over rounds.
    lowest: of a round.
    highest: of a round.
    rounds: how many there were.
    amount: the median of what is measured, in `unit`.
    reference_amount: the median of the reference.
    unit: "s", or "MB".
    bound: what was asked of the ratio, or None.
    note: shapes, and what else a reader needs.
  """

  name: str
  reference: str
  ratio: float
  lowest: float
  highest: float
  rounds: int
  amount: float
  reference_amount: float
  unit: str = "s"
  bound: Bound | None = None
  note: str = ""


def taking_turns(
  runs: Mapping[str, Callable[[], object]],
  rounds: int = ROUNDS,
  clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
  """Seconds of each program, by round.

  Args:
    runs: name -> a program; it has ended when what it returns is there.
    rounds: how many, after one that is not counted, which compiles.
    clock: says the time in seconds.

  Raises:
    ValueError: for too few rounds.
  """
  if rounds < ROUNDS:
    raise ValueError(f"a median takes {ROUNDS} rounds or more, got {rounds}")
  for run in runs.values():
    jax.block_until_ready(run())
  freed_memory.keep()  # As a run does after its first step.
  seconds = {name: [] for name in runs}
  for number in range(rounds):
    names = list(runs) if number % 2 == 0 else list(runs)[::-1]
    for name in names:
      begin = clock()
      jax.block_until_ready(runs[name]())
      seconds[name].append(clock() - begin)
  return seconds


def figure(
  amounts: Mapping[str, Sequence[float]],
  name: str,
  reference: str,
  *,
  per: int = 1,
  unit: str = "s",
  bound: Bound | None = None,
  note: str = "",
) -> Figure:
  """The ratio of two of what took turns.

  Args:
    amounts: name -> an amount of every round, as of `taking_turns`.
    name: the key of what is measured.
    reference: the key of what it is divided by.
    per: how often a program does in a round what the figure is of.
    unit: of the amounts.
    bound: what was asked of the ratio.
    note: what a reader needs.
  """
  pairs = [*zip(amounts[name], amounts[reference], strict=True)]
  ratios = [its / others for its, others in pairs]
  return Figure(
    name,
    reference,
    statistics.median(ratios),
    min(ratios),
    max(ratios),
    len(ratios),
    statistics.median(its for its, _ in pairs) / per,
    statistics.median(others for _, others in pairs) / per,
    unit,
    bound,
    note,
  )


def ratio(
  runs: Mapping[str, Callable[[], object]],
  *,
  rounds: int = ROUNDS,
  per: int = 1,
  bound: Bound | None = None,
  note: str = "",
) -> Figure:
  """The figure of two programs, the first divided by the second.

  Args:
    runs: what is measured, and the reference, by name.
    rounds: as of `taking_turns`.
    per: as of `figure`, and so are `bound` and `note`.
    bound: what was asked of the ratio.
    note: what a reader needs.
  """
  name, reference = runs
  seconds = taking_turns(runs, rounds)
  return figure(seconds, name, reference, per=per, bound=bound, note=note)
