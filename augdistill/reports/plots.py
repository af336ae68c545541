"""Plots as SVG that stands inside a page and takes its colours from it."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from augdistill.reports.comparison import Comparison, Row

# Of Okabe and Ito (2008): told apart by the colour-blind, on light and dark.
COLOURS = (
  *("#0072B2", "#E69F00", "#009E73", "#CC79A7"),
  *("#56B4E9", "#D55E00", "#999999", "#B8A800"),
)
MARKERS = "osD^vP*X"
# From nothing, so that it does on light and on dark pages, to a blue on which
# numbers of both can be read.
_SHADES = LinearSegmentedColormap.from_list(
  "shares", ["#56B4E900", "#56B4E9aa"]
)
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


def curves(
  found: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]],
) -> list[str]:
  """Values against steps: an SVG per plot.

  Args:
    found: plot -> curve -> (step, value).
  """
  made = []
  with matplotlib.rc_context(_STYLE):
    for plot, its in found.items():
      figure, axes = _figure(height=3.2)
      for i, (name, points) in enumerate(its.items()):
        steps, values = zip(*points, strict=True)
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(steps, values, color=colour, linewidth=1.5, label=name)
      axes.set_xlabel("step")
      axes.set_ylabel(plot)
      made.append(_svg(figure, axes, plot))
  return made


def matrix_plot(confusion: Int[np.ndarray, "C C"], names: Sequence[str]) -> str:
  """Rows of each class by what was said of them, as shades and numbers.

  Args:
    confusion: rows of the class i that were taken for j.
    names: of the classes.

  Returns:
    SVG.
  """
  shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
  size = len(names)
  with matplotlib.rc_context(_STYLE | {"axes.grid": False}):
    figure, axes = _figure(height=2.2 + 0.32 * size)
    axes.imshow(shares, cmap=_SHADES, vmin=0, vmax=1)
    for i, j in np.argwhere(confusion):
      axes.text(j, i, confusion[i, j], ha="center", va="center", fontsize=9)
    axes.set_xticks(range(size), names, rotation=45, ha="right")
    axes.set_yticks(range(size), names)
    axes.set_xlabel("said")
    axes.set_ylabel("label")
    return _svg(figure, axes, "confusion", legend=False)


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


def _figure(height: float = 4.4) -> tuple[Figure, Axes]:
  figure = Figure(figsize=(7.2, height), layout="constrained")
  return figure, figure.add_subplot()


def _scale(metric: str) -> float:
  return 1.0 if metric == "mse" else 100.0


def _label(comparison: Comparison) -> str:
  unit = "" if comparison.metric == "mse" else ", %"
  return f"{comparison.split} {comparison.metric}{unit}"


def _svg(figure: Figure, axes: Axes, title: str, legend: bool = True) -> str:
  if legend:
    below = {"loc": "outside lower center", "ncols": 2, "frameon": False}
    figure.legend(*axes.get_legend_handles_labels(), **below)
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
  # Black is the page's own colour, and narrow pages make the plot narrower.
  text = re.sub(r"#000000|#262626|(?<=[:\s])black", "currentColor", text)
  width = float(re.search(r'width="([0-9.]+)pt"', text)[1])
  text = re.sub(r' (?:width|height)="[0-9.]+pt"', "", text, count=2)
  head = f'<svg role="img" aria-label="{title}" '
  head += f'style="max-width: {width / 0.75:.0f}px" '
  return text.replace("<svg ", head, 1)
