"""What a person sees of a grid while it runs."""

import statistics
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from augdistill.cli.grid import Planned
from augdistill.reports.results import read_results


class GridProgress:
  """What has become of the runs of a grid: a live table, or a line each.

  Args:
    planned: all of its runs.
    console: where to.
  """

  def __init__(self, planned: Sequence[Planned], console: Console):
    self._states = dict.fromkeys(planned, "")
    self._console = console
    self._seconds: list[float] = []
    self._live = Live(console=console, refresh_per_second=2)

  def __enter__(self) -> "GridProgress":
    if self._console.is_terminal:
      self._live.start()
    return self

  def __exit__(self, *exception: Any) -> None:
    if self._console.is_terminal:
      self._live.stop()

  def begin(self, run: Planned) -> None:
    """A run begins."""
    self._states[run] = "..."
    self._live.update(self._table())

  def end(self, run: Planned, error: str | None, seconds: float) -> None:
    """A run has ended, or was finished already: then in no time."""
    value = "failed" if error else _first_score(run)
    self._states[run] = value
    if seconds:
      self._seconds.append(seconds)
    self._live.update(self._table())
    if seconds and not self._console.is_terminal:
      size = "all" if run.rows is None else f"{run.rows:,}"
      done = sum(map(bool, self._states.values()))
      self._console.print(
        f"[{done}/{len(self._states)}] {run.method}, {size} rows, seed "
        f"{run.seed}: {error or value}, {seconds:.0f} s{self._left()}",
        markup=False,
        soft_wrap=True,
      )

  def _left(self) -> str:
    waiting = sum(not state for state in self._states.values())
    if not waiting or not self._seconds:
      return ""
    minutes = waiting * statistics.fmean(self._seconds) / 60
    return f", about {minutes:.0f} min left"

  def _table(self) -> Table:
    """A row per method and size, a column per seed."""
    seeds = dict.fromkeys(run.seed for run in self._states)
    table = Table("method", "rows", *(f"seed {seed}" for seed in seeds))
    table.caption = self._left().removeprefix(", ") or None
    lines: dict[tuple, dict[int, str]] = {}
    for run, state in self._states.items():
      lines.setdefault((run.method, run.rows), {})[run.seed] = state
    for (method, rows), states in lines.items():
      size = "all" if rows is None else f"{rows:,}"
      table.add_row(Text(method), size, *(states[seed] for seed in seeds))
    return table


def _first_score(run: Planned) -> str:
  """The first metric on the last split, of a finished run."""
  splits = read_results(run.path)["metrics"]
  values = splits.get("test") or splits["validation"]
  return f"{next(iter(values.values())):.4f}"
