"""How long a call takes, as who waits for its answer sees it."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

_WARM_UP = 3  # calls, or fewer slow ones


class Latency(NamedTuple):
  """Milliseconds of a call.

  Attributes:
    p50_ms: half of the calls took no longer.
    p95_ms: 95 % of them took no longer.
    runs: how many calls were timed.
  """

  p50_ms: float
  p95_ms: float
  runs: int


def latency(
  call: Callable[[], Any],
  runs: int = 100,
  least_runs: int = 5,
  seconds: float = 5.0,
  clock: Callable[[], float] = time.perf_counter,
) -> Latency:
  """Times a call, again and again, after it has warmed up.

  Args:
    call: what is timed, until its arrays are there.
    runs: how often at the most.
    least_runs: how often at the least.
    seconds: no more calls when so much time has been spent in them.
    clock: gives seconds.

  Returns:
    Its latency; warming up, and so compiling, does not count.
  """

  def times(most: int, least: int) -> list[float]:
    taken: list[float] = []
    while len(taken) < least or (len(taken) < most and sum(taken) < seconds):
      begin = clock()
      jax.block_until_ready(call())
      taken.append(clock() - begin)
    return taken

  times(_WARM_UP, 1)
  taken = times(runs, least_runs)
  p50, p95 = np.percentile(np.array(taken) * 1000, [50, 95])
  return Latency(float(p50), float(p95), len(taken))
