"""A table of runs: one row per method, the mean over its seeds."""

import os
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import rich.markup
import rich.table

from augdistill.reports.results import read_results

_HEADER = (
  "method",
  "seeds",
  "metric",
  "student",
  "teacher",
  "agreement",
  "parameters",
  "s / 1000 steps",
)


class Table(NamedTuple):
  """Cells; `rich` prints them as a table, `str` as aligned text.

  Attributes:
    rows: the cells of each method, below the header.
    header: the name of each column.
  """

  rows: tuple[tuple[str, ...], ...]
  header: tuple[str, ...] = _HEADER

  def __rich__(self) -> rich.table.Table:
    table = rich.table.Table()
    for i, name in enumerate(self.header):
      # A column of numbers that would not fit is worse than a folded name.
      table.add_column(name, justify="right" if i else "left", no_wrap=bool(i))
    for row in self.rows:
      table.add_row(*map(rich.markup.escape, row))
    return table

  def __str__(self) -> str:
    lines = (self.header, *self.rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
      "  ".join(
        cell.rjust(width) if i else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(line, widths, strict=True))
      )
      for line in lines
    )


def table(runs: Sequence[str | os.PathLike]) -> Table:
  """Compares finished runs.

  Runs of one method on one task are one row: means over the runs, and behind
  the student's metric the standard deviation where there are several. The
  metric is the task's first, on the test split where there is one. All but
  the mean squared error are in percent.

  Args:
    runs: directories, in the order wanted.

  Returns:
    The table.

  Raises:
    UsageError: if one of them is not finished.
  """
  groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
  for results in map(read_results, runs):
    key = (results["task"], results["method"])
    groups.setdefault(key, []).append(results)
  many = len({task for task, _ in groups}) > 1
  return Table(
    tuple(
      (f"{task}: {method}" if many else method, *_cells(group))
      for (task, method), group in groups.items()
    )
  )


def _cells(group: Sequence[dict[str, Any]]) -> tuple[str, ...]:
  splits = group[0]["metrics"]
  split = "test" if splits.get("test") else "validation"
  metric = next(iter(splits.get(split) or ["-"]))
  speeds = (r["seconds_per_1000_steps"] for r in group)
  return (
    ", ".join(str(r["seed"]) for r in group),
    f"{split} {metric}",
    _mean(metric, (r["metrics"].get(split, {}).get(metric) for r in group)),
    _mean(
      metric, (r["teacher_metrics"].get(split, {}).get(metric) for r in group)
    ),
    _mean("agreement", (r["agreement"] for r in group)),
    f"{group[0]['num_params']['student']:,}",
    f"{statistics.fmean(speeds):.1f}",
  )


def _mean(metric: str, values: Iterable[float | None]) -> str:
  """The mean in percent, with the standard deviation where it can be had."""
  scale, digits = (1, 4) if metric == "mse" else (100, 1)
  known = [scale * v for v in values if v is not None]
  if not known:
    return "-"
  mean = f"{statistics.fmean(known):.{digits}f}"
  if len(known) == 1:
    return mean
  return f"{mean} ± {statistics.stdev(known):.{digits}f}"
