"""How long the steps of a run took."""

import contextlib
import time
from collections.abc import Callable, Iterator

import jax
from jax import monitoring

# What JAX says when it has compiled a program.
_COMPILED = "/jax/core/compile/backend_compile_duration"


class Stopwatch:
  """Seconds spent in steps: neither compiling nor evaluating nor saving.

  The first step of a process compiles, and so does the first one of every
  length of the texts and of every method that takes turns. Each is counted as
  long as an average other one.

  Args:
    before: seconds of earlier processes.
    began: when the run was asked for, by `time.perf_counter`.

  Attributes:
    startup_seconds: from then to the end of this process's first step; 0
      before it.
    startup_compiling: those of them in which that step was compiled, or read
      from the cache of programs.
  """

  def __init__(self, before: float, began: float):
    self._before, self._began, self._idle = before, began, 0.0
    self.startup_seconds = self.startup_compiling = 0.0
    self._steps, self._compiling = 0, 0
    self._start: float | None = None

  def timed(self, step_fn: Callable) -> Callable:
    """`step_fn`, with the clock started when its first call is complete."""

    def step(*args):
      compiled = []

      def listen(event, seconds, **kwargs):
        del kwargs
        if event == _COMPILED:
          compiled.append(seconds)

      begin = time.perf_counter()
      monitoring.register_event_duration_secs_listener(listen)
      try:
        result = step_fn(*args)
      finally:
        monitoring.unregister_event_duration_listener(listen)
      self._steps += 1
      if compiled or self._start is None:
        jax.block_until_ready(result)
        self._leave_out(begin, time.perf_counter(), sum(compiled, 0.0))
      return result

    return step

  def _leave_out(self, begin: float, end: float, compiling: float) -> None:
    """Does not count the step between these times, which compiled so long."""
    self._compiling += 1
    if self._start is None:
      self._start = end
      self.startup_seconds = end - self._began
      self.startup_compiling = compiling
    else:
      self._idle += end - begin

  def seconds(self) -> float:
    """Seconds so far, with those of earlier processes."""
    if self._start is None:
      return self._before
    running = time.perf_counter() - self._start - self._idle
    others = self._steps - self._compiling
    left_out = self._compiling * running / others if others else 0.0
    return self._before + running + left_out

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """A context whose time does not count."""
    begin = time.perf_counter()
    try:
      yield
    finally:
      self._idle += time.perf_counter() - begin
