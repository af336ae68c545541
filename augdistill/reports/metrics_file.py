"""What a run reports as it goes: JSON lines, and dashboards beside them."""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

from augdistill import atomic
from augdistill.reports.dashboards import Dashboard


class MetricsWriter:
  """Appends one JSON object per report; every line is on disk at once.

  A start after a kill cuts what was reported after the step that it goes on
  from, and a line that was half-written, so each report is there once.

  Args:
    path: metrics.jsonl.
    samples: samples.jsonl, by default beside it.
    dashboards: what shows the same; they are closed with the files.
    start: steps done before.

  Example:
    with MetricsWriter(run.metrics, start=0) as writer:
      writer.write(100, {"train/loss": 0.5})
  """

  def __init__(
    self,
    path: str | os.PathLike,
    samples: str | os.PathLike | None = None,
    dashboards: Sequence[Dashboard] = (),
    start: int = 0,
  ):
    path = pathlib.Path(path)
    self._samples = pathlib.Path(samples or path.with_name("samples.jsonl"))
    _cut(path, start)
    if self._samples.exists():
      _cut(self._samples, start)
    self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115
    self._dashboards = dashboards

  def write(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
    """Reports metrics.

    Args:
      step: steps done.
      metrics: name -> number; null is written for one that is not finite.
    """
    numbers = {name: float(value) for name, value in metrics.items()}
    finite = {n: v if math.isfinite(v) else None for n, v in numbers.items()}
    self._file.write(json.dumps({"step": step, **finite}) + "\n")
    self._file.flush()
    os.fsync(self._file.fileno())  # A bucket's file system copies it only then.
    for dashboard in self._dashboards:
      dashboard.scalars(step, numbers)

  def write_samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Reports augmented texts.

    Args:
      step: steps done.
      rows: each with `view`, `text`, `augmented`, and perhaps `partner` and
        the teacher's answers to both texts, `teacher` and
        `teacher_augmented`: a probability per name, or a value.
    """
    with open(self._samples, "a", encoding="utf-8") as file:
      for row in rows:
        line = json.dumps({"step": step, **row}, ensure_ascii=False)
        file.write(line + "\n")
    header, cells = sample_table(rows)
    for view, its in cells.items():
      for dashboard in self._dashboards:
        dashboard.table(step, f"augmented/{view}", header, its)

  def close(self) -> None:
    """Closes the files."""
    self._file.close()
    for dashboard in self._dashboards:
      dashboard.close()

  def __enter__(self) -> "MetricsWriter":
    return self

  def __exit__(self, *exception: Any) -> None:
    self.close()


class NoMetrics:
  """As `MetricsWriter`, of a process that leaves reporting to another."""

  def write(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
    """Reports nothing."""

  def write_samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Reports nothing."""

  def __enter__(self) -> "NoMetrics":
    return self

  def __exit__(self, *exception: Any) -> None:
    pass


def _cut(path: pathlib.Path, start: int) -> None:
  """Leaves what was reported up to a step."""
  lines = [row for row in read_metrics(path) if row["step"] <= start]
  with atomic.replacing(path) as file:
    file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in lines)


def sample_table(
  rows: Sequence[Mapping[str, Any]],
) -> tuple[tuple[str, ...], dict[str, list[list[str]]]]:
  """Augmented texts as tables.

  Args:
    rows: as of `MetricsWriter.write_samples`.

  Returns:
    The names of the columns; view -> cells.
  """
  columns = {
    "text": "text",
    "partner": "partner",
    "augmented": "augmented",
    "teacher": "teacher of the text",
    "teacher_augmented": "teacher of the augmented",
  }
  there = [name for name in columns if any(name in row for row in rows)]
  cells: dict[str, list[list[str]]] = {}
  for row in rows:
    written = [_cell(row.get(name, "")) for name in there]
    cells.setdefault(row["view"], []).append(written)
  return tuple(columns[name] for name in there), cells


def _cell(value: Any) -> str:
  """A text; or the likeliest name with its probability; or a value."""
  if isinstance(value, Mapping):
    name, p = max(value.items(), key=lambda item: item[1])
    return f"{name} {p:.2f}"
  return f"{value:.3f}" if isinstance(value, float) else value


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
  """The reports of a run, in order; [] before the first.

  Args:
    path: metrics.jsonl or samples.jsonl; of a run that is under way, what
      follows a half-written line is left out.

  Returns:
    One dict per line, with `step` and what was reported.
  """
  rows = []
  try:
    text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
  except FileNotFoundError:
    return []
  for line in text.splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return rows
