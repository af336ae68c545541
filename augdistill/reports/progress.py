"""How far a run has got: a bar on a terminal, now and then a line elsewhere."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar


class Progress:
  """Shows steps, steps per second, the loss and the time left, on stderr.

  The speed leaves out what is before the first update, which compiles.

  Args:
    start: steps done before.
    num_steps: steps of the whole run.
    name: what is running.
    seconds_between_lines: without a terminal, the least time between lines.
    console: where to.

  Example:
    with Progress(0, 1000, "kd") as progress:
      progress.update(100, loss=0.5)
      progress.note(100, {"accuracy": 0.7})
  """

  def __init__(
    self,
    start: int,
    num_steps: int,
    name: str,
    seconds_between_lines: float = 15.0,
    console: Console | None = None,
  ):
    self._console = console or Console(stderr=True, highlight=False)
    self._num_steps = num_steps
    self._name = name
    self._period = seconds_between_lines
    self._first: tuple[int, float] | None = None
    self._last_line = float("-inf")
    self._bar = Bar(
      TextColumn("{task.description}", markup=False),
      BarColumn(),
      MofNCompleteColumn(),
      TextColumn("{task.fields[status]}", markup=False),
      console=self._console,
      refresh_per_second=4,
      disable=not self._console.is_terminal,
    )
    self._task = self._bar.add_task(
      name, completed=start, total=num_steps, status="compiling"
    )

  def update(self, step: int, loss: float) -> None:
    """Shows that `step` steps are done; the run's last is always shown."""
    now = time.monotonic()
    self._first = self._first or (step, now)
    status = f"loss {loss:.4f}{self._speed(step, now)}"
    self._bar.update(self._task, completed=step, status=status)
    due = now - self._last_line >= self._period or step >= self._num_steps
    if due and not self._console.is_terminal:
      self._last_line = now
      self._print(f"{self._name}: step {step}/{self._num_steps}, {status}")

  def first(self, step: int, seconds: float, compiling: float) -> None:
    """Says how long the first step took to come, and its compilation of it."""
    self._print(
      f"{self._name}: step {step}: the first, after {seconds:.1f} s, of which "
      f"{compiling:.1f} s compiling"
    )

  def note(self, step: int, values: Mapping[str, float]) -> None:
    """Prints scores of a step on a line of its own."""
    numbers = ", ".join(f"{k} {v:.4f}" for k, v in values.items())
    self._print(f"{self._name}: step {step}: {numbers}")

  def _speed(self, step: int, now: float) -> str:
    steps, seconds = step - self._first[0], now - self._first[1]
    if steps <= 0 or seconds <= 0:
      return ""
    left = (self._num_steps - step) * seconds / steps
    return f", {steps / seconds:.1f} steps/s, {_spell(left)} left"

  def _print(self, line: str) -> None:
    self._console.print(escape(line), soft_wrap=True)

  def __enter__(self) -> "Progress":
    self._bar.start()
    return self

  def __exit__(self, *exception: Any) -> None:
    self._bar.stop()


def _spell(seconds: float) -> str:
  """75 -> "1:15", 3700 -> "1:01:40"."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02}:{seconds:02}"
  return f"{minutes}:{seconds:02}"
