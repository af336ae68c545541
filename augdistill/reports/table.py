"""A table of runs: one row per method, the mean over its seeds."""

import os
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import rich.box
import rich.markup
import rich.table

from augdistill.errors import UsageError
from augdistill.reports.results import read_results
from augdistill.reports.run_directory import RunDirectory, statements

_HEADER = (
  "method",
  "runs",
  "student",
  "teacher",
  "agreement",
  "params",
  "s/1000 steps",
)

_TOLD = 3  # Bindings that tell a row from others; more would hide the method.


class Table(NamedTuple):
  """Cells; `rich` prints them as a table, `str` as aligned text.

  Attributes:
    title: tasks, split and metric.
    rows: the cells of each method, below the header.
    header: the name of each column.
  """

  title: str
  rows: tuple[tuple[str, ...], ...]
  header: tuple[str, ...] = _HEADER

  def __rich__(self) -> rich.table.Table:
    table = rich.table.Table(
      title=self.title,
      title_justify="left",
      box=rich.box.SIMPLE,
      padding=(0, 1, 0, 0),
    )
    table.add_column(self.header[0], overflow="fold", min_width=12)
    for name in self.header[1:]:
      table.add_column(name, justify="right", no_wrap=True)
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

  Runs whose configurations differ in nothing but the seed and the teacher's
  directory are one row: means over the runs, and behind each the standard
  deviation where there are several. Rows of one method are told apart by the
  bindings in which they differ. The metric is the task's first, on the test
  split where there is one. All but the mean squared error are in percent.

  Args:
    runs: directories, in the order wanted.

  Returns:
    The table.

  Raises:
    UsageError: if one of them is not finished, or if two are the same.
  """
  groups: dict[tuple[str, ...], list[_Run]] = {}
  for run in map(_read, runs):
    groups.setdefault(run.settings, []).append(run)
  rows = [row for group in groups.values() for row in _of_one_seed_each(group)]
  titles = [
    f"{row[0].results['task']}, {' '.join(_metric(row[0].results))}"
    for row in rows
  ]
  many = len(set(titles)) > 1
  return Table(
    "; ".join(dict.fromkeys(titles)),
    tuple(
      (_name(row[0], rows, many), *_cells([run.results for run in row]))
      for row in rows
    ),
  )


class _Run(NamedTuple):
  """A finished run.

  Attributes:
    path: its directory.
    results: of its results.json.
    settings: its method and task, and the bindings of its configuration
      without the two below.
    teacher: the bindings that name its teacher.
  """

  path: str
  results: dict[str, Any]
  settings: tuple[str, ...]
  teacher: tuple[str, ...]


def _read(path: str | os.PathLike) -> _Run:
  run = RunDirectory(path)
  results, file = read_results(run.path, run.where), run.config_gin
  try:
    config = file.read_text(encoding="utf-8")
  except OSError as error:
    raise UsageError(
      f"{file} must hold the configuration of a run, but: {error.strerror}"
    ) from error
  bindings = [
    line
    for line in statements(config.replace("\\\n", " "))
    if not line.startswith(("SEED =", "METHOD ="))
  ]
  teacher = tuple(b for b in bindings if b.startswith("TEACHER ="))
  return _Run(
    str(path),
    results,
    (
      results["task"],
      results["method"],
      *(b for b in bindings if b not in teacher),
    ),
    teacher,
  )


def _of_one_seed_each(group: list[_Run]) -> list[list[_Run]]:
  """The runs of a row; where a seed repeats, they have teachers of their own.

  Seeds may each have a teacher of their own, or all have one.
  """
  if len({run.results["seed"] for run in group}) == len(group):
    return [group]
  rows: dict[tuple[str, ...], list[_Run]] = {}
  for run in group:
    rows.setdefault(run.teacher, []).append(run)
  for row in rows.values():
    seen: dict[int, str] = {}
    for run in row:
      seed = run.results["seed"]
      if seed in seen:
        raise UsageError(
          f"{seen[seed]} and {run.path} are the same run, of seed {seed}; "
          "give one of them"
        )
      seen[seed] = run.path
  return list(rows.values())


def _name(run: _Run, rows: list[list[_Run]], many: bool) -> str:
  """The method, and what tells it from the method's other rows."""
  task, method, *bindings = run.settings
  others = [
    {*other.settings, *other.teacher}
    for other, *_ in rows
    if other.settings[:2] == run.settings[:2] and other is not run
  ]
  own = [
    b.replace("'", "").replace(" = ", "=")
    for b in (*bindings, *run.teacher)
    if any(b not in other for other in others)
  ]
  own[_TOLD:] = ["..."] if len(own) > _TOLD else []
  return ", ".join([f"{task}: {method}" if many else method, *own])


def _metric(results: dict[str, Any]) -> tuple[str, str]:
  """The split and the metric that are shown."""
  splits = results["metrics"]
  split = "test" if splits.get("test") else "validation"
  return split, next(iter(splits.get(split) or ["-"]))


def _cells(group: Sequence[dict[str, Any]]) -> tuple[str, ...]:
  split, metric = _metric(group[0])
  speeds = (r["seconds_per_1000_steps"] for r in group)

  def mean(which: str) -> str:
    return _mean(metric, (r[which].get(split, {}).get(metric) for r in group))

  return (
    str(len(group)),
    mean("metrics"),
    mean("teacher_metrics").partition(" ")[0],
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
