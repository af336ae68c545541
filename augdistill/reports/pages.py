"""Pages that open offline, and the same in Markdown."""

import rich.box
import rich.table
import rich.text

from augdistill.evaluation.metrics import higher_is_better
from augdistill.evaluation.significance import Difference
from augdistill.reports import plots
from augdistill.reports.comparison import Comparison, Row
from augdistill.reports.grid_results import Cell
from augdistill.reports.rendering import environment, markdown_table

_COLUMNS = (
  "method",
  "seeds",
  "{metric}",
  "± sd",
  "against {baseline}",
  "95 % interval",
  "p",
  "verdict",
  "steps",
  "s / 1,000 steps",
  "cost",
  "agreement",
  "ECE",
)


def comparison_pages(
  comparison: Comparison, cells: list[Cell], versions: dict[str, str]
) -> tuple[str, str]:
  """report.html and report.md of a grid.

  Args:
    comparison: what came out.
    cells: its runs, for their commands and errors.
    versions: package -> version.

  Returns:
    (HTML, Markdown).
  """
  given = {
    "comparison": comparison,
    "cells": cells,
    "versions": versions,
    "sizes": list(dict.fromkeys(row.rows for row in comparison.table)),
    "header": [
      name.format(metric=comparison.metric, baseline=comparison.baseline)
      for name in _COLUMNS
    ],
    "cells_of": lambda row: _cells(row, comparison),
    "claims": claims(comparison),
    "direction": "higher" if higher_is_better(comparison.metric) else "lower",
    "number": _number(comparison.metric),
    "pipe": markdown_table,
  }
  templates = environment()
  html = templates.get_template("comparison.html").render(
    **given,
    cost_plot=plots.cost_plot(comparison),
    size_plot=plots.size_plot(comparison),
  )
  return html, templates.get_template("comparison.md").render(**given)


def comparison_table(comparison: Comparison) -> rich.table.Table:
  """The table for a terminal, with the columns that fit there."""
  shown = (0, 2, 3, 4, 5, 7, 10, 11)
  table = rich.table.Table(box=rich.box.SIMPLE, padding=(0, 1, 0, 0))
  sizes = len({row.rows for row in comparison.table}) > 1
  for i in shown:
    name = _COLUMNS[i].format(
      metric=comparison.metric, baseline=comparison.baseline
    )
    table.add_column(name, justify="right" if i else "left")
  if sizes:
    table.add_column("rows", justify="right")
  for row in comparison.table:
    cells = _cells(row, comparison)
    size = ["all" if row.rows is None else f"{row.rows:,}"] if sizes else []
    table.add_row(*(rich.text.Text(cells[i]) for i in shown), *size)
  return table


def claims(comparison: Comparison) -> list[str]:
  """What may be said about the methods: only what the intervals say."""
  said = []
  number = _number(comparison.metric)
  for row in comparison.table:
    if not row.difference or not row.difference.verdict:
      continue
    low, high = row.difference.low, row.difference.high
    where = "" if row.rows is None else f" with {row.rows:,} training rows"
    said.append(
      f"{row.method} is {row.difference.verdict} than {comparison.baseline}"
      f"{where}, by {number(abs(row.difference.mean))} "
      f"({number(low)} to {number(high)})"
    )
  return said


def _verdict(difference: Difference) -> str:
  if difference.seeds == 1:
    return "one seed"
  return difference.verdict or "not shown"


def _number(metric: str):
  """Writes a value of the metric: in percent, but for squared errors."""
  if metric == "mse":
    return lambda value: f"{value:.4f}"
  return lambda value: f"{100 * value:.1f}"


def _cells(row: Row, comparison: Comparison) -> list[str]:
  """A row as text; "" where there is nothing to say."""
  number = _number(comparison.metric)

  def said(value, write):
    return "" if value is None else write(value)

  d = row.difference
  return [
    row.method,
    ", ".join(map(str, row.seeds)) or "failed",
    said(row.mean, number),
    said(row.deviation, number),
    f"{'+' if d.mean >= 0 else ''}{number(d.mean)}" if d else "",
    f"{number(d.low)} to {number(d.high)}" if d else "",
    f"{d.p:.3f}" if d else "",
    _verdict(d) if d else "",
    said(row.steps, "{:,}".format),
    said(row.per_1000, "{:.1f}".format),
    said(row.relative, "{:.2f}".format),
    said(row.agreement, lambda value: f"{100 * value:.1f}"),
    said(row.calibration, lambda value: f"{100 * value:.1f}"),
  ]
