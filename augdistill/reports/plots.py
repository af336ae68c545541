"""Plots as SVG that stands inside a page and takes its colours from it."""

import io
import re
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from augdistill.reports.comparison import Comparison, Row

# Of Okabe and Ito (2008): told apart by the colour-blind, on light and dark.
COLOURS = (
  *("#0072B2", "#E69F00", "#009E73", "#CC79A7"),
  *("#56B4E9", "#D55E00", "#999999", "#B8A800"),
)
MARKERS = "osD^vP*X"
_STYLE = {
  "svg.fonttype": "none",  # Text stays text: it can be read and searched.
  "svg.hashsalt": "augdistill",  # Equal plots are equal files.
  "font.size": 11,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "grid.alpha": 0.25,
}


def cost_plot(comparison: Comparison) -> str:
  """The metric against seconds of training; the methods that none dominates.

  Args:
    comparison: of runs with the most training rows, if there are several.

  Returns:
    SVG.
  """
  rows = _of_most_rows(comparison)
  scale = _scale(comparison.metric)
  with matplotlib.rc_context(_STYLE):
    figure, axes = _figure()
    for i, row in enumerate(rows):
      axes.errorbar(
        row.seconds,
        scale * row.mean,
        yerr=scale * (row.deviation or 0),
        marker=MARKERS[i % len(MARKERS)],
        color=COLOURS[i % len(COLOURS)],
        linestyle="none",
        markersize=8,
        capsize=3,
        label=row.method,
      )
    front = pareto(rows, higher=comparison.metric != "mse")
    axes.plot(
      [row.seconds for row in front],
      [scale * row.mean for row in front],
      color="#888888",
      linestyle="--",
      linewidth=1,
      zorder=0,
      label="none is cheaper and better",
    )
    axes.set_xlabel("training, seconds per run")
    axes.set_ylabel(_label(comparison))
    axes.set_xlim(left=0)
    return _svg(figure, axes, "accuracy against cost")


def size_plot(comparison: Comparison) -> str | None:
  """The metric against the number of training rows, a line per method.

  Returns:
    SVG; None where there is but one number of rows.
  """
  sizes = {row.rows for row in comparison.table if row.mean is not None}
  if len(sizes) < 2:
    return None
  scale = _scale(comparison.metric)
  # All of the rows stand one step to the right of the most that were counted.
  known = sorted(size for size in sizes if size is not None)
  place = {size: i for i, size in enumerate([*known, *({None} & sizes)])}
  with matplotlib.rc_context(_STYLE):
    figure, axes = _figure()
    methods = dict.fromkeys(row.method for row in comparison.table)
    for i, method in enumerate(methods):
      rows = [
        row
        for row in comparison.table
        if row.method == method and row.mean is not None
      ]
      rows.sort(key=lambda row: place[row.rows])
      axes.errorbar(
        [place[row.rows] for row in rows],
        [scale * row.mean for row in rows],
        yerr=[scale * (row.deviation or 0) for row in rows],
        marker=MARKERS[i % len(MARKERS)],
        color=COLOURS[i % len(COLOURS)],
        capsize=3,
        label=method,
      )
    names = ["all" if size is None else f"{size:,}" for size in place]
    axes.set_xticks([*place.values()], names)
    axes.set_xlabel("training rows")
    axes.set_ylabel(_label(comparison))
    return _svg(figure, axes, "accuracy against training rows")


def pareto(rows: Sequence[Row], higher: bool = True) -> list[Row]:
  """The rows than which none is both cheaper and better, the cheapest first.

  Args:
    rows: with a mean and seconds.
    higher: whether a larger mean is the better one.
  """
  sign = 1 if higher else -1
  front: list[Row] = []
  for row in sorted(rows, key=lambda row: (row.seconds, -sign * row.mean)):
    if not front or sign * row.mean > sign * front[-1].mean:
      front.append(row)
  return front


def _of_most_rows(comparison: Comparison) -> list[Row]:
  rows = [row for row in comparison.table if row.mean is not None]
  sizes = {row.rows for row in rows}
  most = None if None in sizes else max(sizes)
  return [row for row in rows if row.rows == most]


def _figure() -> tuple[Figure, Axes]:
  figure = Figure(figsize=(7.2, 4.4), layout="constrained")
  return figure, figure.add_subplot()


def _scale(metric: str) -> float:
  return 1.0 if metric == "mse" else 100.0


def _label(comparison: Comparison) -> str:
  unit = "" if comparison.metric == "mse" else ", %"
  return f"{comparison.split} {comparison.metric}{unit}"


def _svg(figure: Figure, axes: Axes, title: str) -> str:
  axes.legend(
    loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False
  )
  file = io.StringIO()
  figure.savefig(
    file,
    format="svg",
    transparent=True,
    bbox_inches="tight",
    metadata={"Date": None, "Title": title},
  )
  text = file.getvalue()
  text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
  text = text[text.index("<svg") :]
  # Black is the page's own colour; the size is that of the page, too.
  text = re.sub(r"#000000|#262626|(?<=[:\s])black", "currentColor", text)
  text = re.sub(
    r'<svg ([^>]*?)height="[^"]*" ?([^>]*?)width="[^"]*" ?', r"<svg \1\2", text
  )
  return re.sub(
    r"<svg ", f'<svg role="img" aria-label="{title}" ', text, count=1
  )
