"""How long the steps of a run took."""

import contextlib
import time
from collections.abc import Callable, Iterator

import jax


class Stopwatch:
  """Seconds spent in steps: neither compiling nor evaluating nor saving.

  The first step of a process compiles; it is counted as long as an average
  later one.

  Args:
    before: seconds of earlier processes.
  """

  def __init__(self, before: float):
    self._before, self._idle, self._steps = before, 0.0, 0
    self._start: float | None = None

  def timed(self, step_fn: Callable) -> Callable:
    """`step_fn`, with the clock started when its first call is complete."""

    def step(*args):
      result = step_fn(*args)
      self._steps += 1
      if self._start is None:
        jax.block_until_ready(result)
        self._start = time.perf_counter()
      return result

    return step

  def seconds(self) -> float:
    """Seconds so far, with those of earlier processes."""
    if self._start is None:
      return self._before
    running = time.perf_counter() - self._start - self._idle
    first = running / (self._steps - 1) if self._steps > 1 else 0.0
    return self._before + running + first

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """A context whose time does not count."""
    begin = time.perf_counter()
    try:
      yield
    finally:
      self._idle += time.perf_counter() - begin
