"""What the runs of a grid say about its methods.

A grid has a run for each method, number of training rows and seed. All are
scored on the same rows; methods are compared seed by seed, within a number of
training rows.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from augdistill.errors import UsageError
from augdistill.evaluation.calibration import expected_calibration_error
from augdistill.evaluation.significance import Difference, compare
from augdistill.reports.answers import Answers, read_answers
from augdistill.reports.grid_results import Cell
from augdistill.reports.results import read_results

SHOWN = 10  # example sentences


class Row(NamedTuple):
  """A method with a number of training rows.

  Attributes:
    method: as the user wrote it.
    rows: how many training rows.
    seeds: those that are finished.
    mean: of the metric, over seeds; None if none is finished.
    deviation: its standard deviation; None for fewer than two seeds.
    difference: to the baseline; None for itself and where it is missing.
    steps: of each run.
    seconds: of training, the mean over seeds.
    per_1000: seconds per 1,000 steps, the mean over seeds.
    relative: `per_1000` in units of the baseline's.
    agreement: with the teacher; None without one.
    calibration: the expected calibration error; None where there is none.
    errors: of the runs that failed.
  """

  method: str
  rows: int | None
  seeds: tuple[int, ...]
  mean: float | None
  deviation: float | None
  difference: Difference | None
  steps: int | None
  seconds: float | None
  per_1000: float | None
  relative: float | None
  agreement: float | None
  calibration: float | None
  errors: tuple[str, ...]


class Disagreement(NamedTuple):
  """A text on which the two best methods differ."""

  text: str
  label: str
  best: str
  second: str


class Comparison(NamedTuple):
  """A whole grid.

  Attributes:
    task: the task's name.
    split: on which the methods are compared, test or validation.
    metric: the task's first.
    baseline: the method that the others are compared with.
    teacher: the teacher's value of the metric; None without one.
    scored: how many rows were scored.
    table: a row per method and number of training rows.
    best: the method with the highest mean at the most training rows.
    second: the one behind it; "" if there is none.
    disagreements: texts on which these two differ.
  """

  task: str
  split: str
  metric: str
  baseline: str
  teacher: float | None
  scored: int
  table: tuple[Row, ...]
  best: str
  second: str
  disagreements: tuple[Disagreement, ...]


def compare_runs(cells: Sequence[Cell], baseline: str) -> Comparison:
  """Compares the methods of a grid.

  Args:
    cells: its runs, finished or failed, in the order of the report.
    baseline: one of their methods.

  Returns:
    The comparison of those that are finished.

  Raises:
    UsageError: if none is finished, or two were scored on other rows.
  """
  finished = [cell for cell in cells if cell.error is None]
  if not finished:
    raise UsageError("there must be a finished run to compare")
  results = {cell: read_results(cell.path) for cell in finished}
  first = results[finished[0]]
  split = "test" if first["metrics"].get("test") else "validation"
  metric = next(iter(first["metrics"][split]))
  answers = {cell: read_answers(cell.path, split) for cell in finished}
  reference = answers[finished[0]]
  for cell, its in answers.items():
    if its.names != reference.names or not np.array_equal(
      its.example_id, reference.example_id
    ):
      raise UsageError(
        f"all runs must be scored on the same {split} rows, but {cell.path} "
        f"and {finished[0].path} are not"
      )
  table = []
  for size in dict.fromkeys(cell.rows for cell in cells):
    here = [cell for cell in cells if cell.rows == size]
    table += _rows_of_size(here, baseline, split, metric, results, answers)
  ranked = _ranked(table, first_is_best=metric != "mse")
  best, second = [*ranked, "", ""][:2]
  teachers = [r["teacher_metrics"].get(split, {}) for r in results.values()]
  return Comparison(
    task=first["task"],
    split=split,
    metric=metric,
    baseline=baseline,
    teacher=next((t[metric] for t in teachers if metric in t), None),
    scored=len(reference.labels),
    table=tuple(table),
    best=best,
    second=second,
    disagreements=_disagreements(best, second, table, answers),
  )


def _rows_of_size(
  cells: Sequence[Cell],
  baseline: str,
  split: str,
  metric: str,
  results: Mapping[Cell, Mapping[str, Any]],
  answers: Mapping[Cell, Answers],
) -> list[Row]:
  """The table's rows of one number of training rows."""
  methods = dict.fromkeys(cell.method for cell in cells)
  done = {
    method: {c.seed: c for c in cells if c.method == method and not c.error}
    for method in methods
  }
  differences = _differences(done, baseline, metric, answers)
  base = _mean(
    results[c]["seconds_per_1000_steps"]
    for c in done.get(baseline, {}).values()
  )
  table = []
  for method, by_seed in done.items():
    its = [results[cell] for cell in by_seed.values()]
    values = [r["metrics"][split][metric] for r in its]
    per_1000 = _mean(r["seconds_per_1000_steps"] for r in its)
    table.append(
      Row(
        method=method,
        rows=cells[0].rows,
        seeds=tuple(by_seed),
        mean=_mean(values),
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        difference=differences.get(method),
        steps=its[0]["num_steps"] if its else None,
        seconds=_mean(r["train_seconds"] for r in its),
        per_1000=per_1000,
        relative=per_1000 / base if base and per_1000 else None,
        agreement=_mean(r["agreement"] for r in its),
        calibration=_mean(_calibration(answers[c]) for c in by_seed.values()),
        errors=tuple(
          c.error for c in cells if c.method == method and c.error is not None
        ),
      )
    )
  return table


def _differences(
  done: Mapping[str, Mapping[int, Cell]],
  baseline: str,
  metric: str,
  answers: Mapping[Cell, Answers],
) -> dict[str, Difference]:
  """Method -> its difference to the baseline, over the seeds that both have.

  Methods of equally many seeds are one family, whose verdicts are corrected
  for their number; so are all, unless runs have failed.
  """
  families: dict[tuple[int, ...], list[str]] = {}
  for method, by_seed in done.items():
    seeds = tuple(s for s in done.get(baseline, {}) if s in by_seed)
    if method != baseline and seeds:
      families.setdefault(seeds, []).append(method)
  made = {}
  for seeds, methods in families.items():
    decisions = {
      method: np.stack([answers[done[method][s]].decisions for s in seeds])
      for method in [baseline, *methods]
    }
    labels = answers[done[baseline][seeds[0]]].labels
    if len(labels) > 1:
      made |= compare(
        {method: decisions[method] for method in methods},
        decisions[baseline],
        labels,
        metric,
        alpha=0.05 * len(methods) / sum(map(len, families.values())),
      )
  return made


def _ranked(table: Sequence[Row], first_is_best: bool) -> list[str]:
  """The methods at the most training rows, the best first."""
  sizes = [row.rows for row in table if row.mean is not None]
  most = None if None in sizes else max(sizes)
  there = [row for row in table if row.rows == most and row.mean is not None]
  there.sort(key=lambda row: row.mean, reverse=first_is_best)
  return [row.method for row in there]


def _disagreements(
  best: str,
  second: str,
  table: Sequence[Row],
  answers: Mapping[Cell, Answers],
) -> tuple[Disagreement, ...]:
  """Rows on which the two best differ, evenly over those that there are."""
  if not second:
    return ()
  size = next(
    row.rows for row in reversed(table) if row.method == best and row.seeds
  )
  by_method = {
    method: {
      cell.seed: its
      for cell, its in answers.items()
      if cell.method == method and cell.rows == size
    }
    for method in (best, second)
  }
  seeds = [s for s in by_method[best] if s in by_method[second]]
  if not seeds:
    return ()
  one, other = by_method[best][seeds[0]], by_method[second][seeds[0]]
  differ = np.flatnonzero(np.any(one.decisions != other.decisions, axis=-1))
  if len(differ) > SHOWN:
    differ = differ[np.linspace(0, len(differ) - 1, SHOWN).astype(int)]
  return tuple(
    Disagreement(
      text=" / ".join(one.texts[i]),
      label=one.written(one.labels[i]),
      best=one.written(one.decisions[i]),
      second=other.written(other.decisions[i]),
    )
    for i in differ
  )


def _calibration(answers: Answers) -> float | None:
  """Of classes only: a row of several names has no one confidence."""
  one_hot = np.all(answers.labels.sum(axis=-1) == 1)
  if answers.probabilities is None or not one_hot:
    return None
  if not np.allclose(answers.probabilities.sum(axis=-1), 1.0, atol=1e-3):
    return None
  return expected_calibration_error(answers.probabilities, answers.labels)


def _mean(values: Any) -> float | None:
  known = [value for value in values if value is not None]
  return statistics.fmean(known) if known else None
