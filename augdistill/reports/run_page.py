"""One run's page: its scores, its curves, and what it gets wrong."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from augdistill.errors import UsageError
from augdistill.evaluation.metrics import higher_is_better
from augdistill.reports import plots
from augdistill.reports.answers import Answers, read_answers
from augdistill.reports.metrics_file import read_metrics, sample_table
from augdistill.reports.rendering import environment
from augdistill.reports.results import read_results
from augdistill.reports.run_directory import RunDirectory

_MATRIX = 20  # classes up to which all pairs are shown
_PAIRS = 15
_ERRORS = 10


class Error(NamedTuple):
  """A row that the run gets wrong.

  Attributes:
    text: what it read.
    label: what is right.
    said: what it said.
    by: its probability of what it said; or the distance, of a regression.
  """

  text: str
  label: str
  said: str
  by: float


def run_page(path: str | os.PathLike) -> str:
  """The page of a finished run.

  Args:
    path: its directory.

  Returns:
    HTML that opens offline.

  Raises:
    UsageError: if the run is not finished, or its files are not whole.
  """
  run = RunDirectory(path)
  results = read_results(run.path, run.where)
  splits = [s for s in ("test", "validation") if results["metrics"].get(s)]
  if not splits:
    raise UsageError(f"{path} must have been scored on labelled rows")
  split = splits[0]
  answers = read_answers(str(run.path), split)
  classes = bool(answers.names) and bool(
    np.all(answers.labels.sum(axis=-1) == 1)
  )
  confusion = confusions(answers) if classes else None
  matrix = None
  if classes and len(answers.names) <= _MATRIX:
    matrix = plots.matrix_plot(confusion, answers.names)
  samples = read_metrics(run.samples)
  last = samples[-1]["step"] if samples else 0
  header, cells = sample_table([row for row in samples if row["step"] == last])
  return (
    environment()
    .get_template("run.html")
    .render(
      results=results,
      splits=splits,
      split=split,
      scored=len(answers.labels),
      higher_is_better=higher_is_better,
      curves=plots.curves(curves(read_metrics(run.metrics))),
      matrix=matrix,
      pairs=confused_pairs(confusion, answers.names) if classes else [],
      samples=cells,
      sampled_at=last,
      sample_header=header,
      errors=worst_errors(answers),
      regression=not answers.names,
      config=_text(run.config_gin),
      command=_text(run.path / "command.sh"),
      provenance=_provenance(run),
    )
  )


def curves(
  reports: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, list[tuple[int, float]]]]:
  """What changed with the steps: plot -> curve -> (step, value).

  Args:
    reports: as of `metrics_file.read_metrics`.

  Returns:
    The training loss with its terms, and the metrics on validation rows.
  """
  found: dict[str, dict[str, list[tuple[int, float]]]] = {}
  for report in reports:
    for name, value in report.items():
      plot, curve = _place(name)
      if plot and value is not None:
        points = found.setdefault(plot, {}).setdefault(curve, [])
        points.append((report["step"], value))
  return found


# Metrics of a view that are no terms of the loss: what it did to the texts.
_STATISTICS = ("changed", "from_b", "from_neither", "replaced", "norm")


def _place(name: str) -> tuple[str | None, str]:
  """The plot and the curve of a metric."""
  head, _, tail = name.partition("/")
  if head == "validation":
    plot = "validation" if higher_is_better(tail) else f"validation {tail}"
    return plot, tail
  if name == "loss" or (tail and tail not in _STATISTICS):
    return "training loss", name
  return None, name


def confusions(answers: Answers) -> np.ndarray:
  """i64[C, C]: rows of each class, by what was said of them."""
  size = len(answers.names)
  table = np.zeros((size, size), np.int64)
  true, said = answers.labels.argmax(-1), answers.decisions.argmax(-1)
  np.add.at(table, (true, said), 1)
  return table


def confused_pairs(
  confusion: np.ndarray, names: Sequence[str]
) -> list[tuple[str, str, int, int]]:
  """(class, what was said instead, how often, of how many), the most first."""
  counts = Counter(
    {
      (int(i), int(j)): int(confusion[i, j])
      for i, j in np.argwhere(confusion)
      if i != j
    }
  )
  return [
    (names[i], names[j], count, int(confusion[i].sum()))
    for (i, j), count in counts.most_common(_PAIRS)
  ]


def worst_errors(answers: Answers, count: int = _ERRORS) -> list[Error]:
  """The errors of which the run is surest, or the largest of a regression."""
  if answers.probabilities is None:
    by = np.abs(answers.decisions - answers.labels).sum(axis=-1)
    wrong = by > 0
  else:
    # The probability of everything that was said: names that were not given
    # count by their complement.
    given = answers.decisions > 0
    p = answers.probabilities
    one_hot = np.all(answers.labels.sum(axis=-1) == 1)
    all_of_it = np.prod(np.where(given, p, 1 - p), axis=-1)
    by = p.max(axis=-1) if one_hot else all_of_it
    wrong = np.any(answers.decisions != answers.labels, axis=-1)
  order = np.argsort(-np.where(wrong, by, -np.inf), kind="stable")
  return [
    Error(
      text=" / ".join(answers.texts[i]),
      label=answers.written(answers.labels[i]),
      said=answers.written(answers.decisions[i]),
      by=float(by[i]),
    )
    for i in order[: min(count, int(wrong.sum()))]
  ]


def _text(path: Any) -> str:
  try:
    return path.read_text(encoding="utf-8").strip()
  except OSError:
    return ""


def _provenance(run: RunDirectory) -> dict[str, Any]:
  try:
    text = (run.path / "provenance.json").read_text(encoding="utf-8")
    return json.loads(text)
  except (OSError, ValueError):
    return {}
