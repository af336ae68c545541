"""Metrics as they come: metrics.jsonl, and TensorBoard beside it."""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, SupportsFloat

import tensorboardX

from augdistill import atomic


class MetricsWriter:
  """Appends one JSON object per report; every line is on disk at once.

  TensorBoard has the same numbers as `distill/NAME`, beside those of others.

  A start after a kill cuts what was reported after the step that it goes on
  from, and a line that was half-written, so each report is there once.

  Args:
    path: metrics.jsonl.
    tensorboard: the directory of event files, or None for none.
    start: steps done before.

  Example:
    with MetricsWriter(run.metrics, run.tensorboard, start=0) as writer:
      writer.write(100, {"train/loss": 0.5})
  """

  def __init__(
    self,
    path: str | os.PathLike,
    tensorboard: str | os.PathLike | None = None,
    start: int = 0,
  ):
    path = pathlib.Path(path)
    lines = [row for row in read_metrics(path) if row["step"] <= start]
    with atomic.replacing(path) as file:
      file.writelines(json.dumps(row) + "\n" for row in lines)
    self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115
    # TensorBoard forgets what a killed start reported of steps that come again.
    self._events = (
      tensorboardX.SummaryWriter(
        str(tensorboard), purge_step=start + 1, filename_suffix=f".{start}"
      )
      if tensorboard
      else None
    )

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
    if self._events:
      for name, value in numbers.items():
        self._events.add_scalar(f"distill/{name}", value, step)

  def close(self) -> None:
    """Closes the files."""
    self._file.close()
    if self._events:
      self._events.close()

  def __enter__(self) -> "MetricsWriter":
    return self

  def __exit__(self, *exception: Any) -> None:
    self.close()


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
  """The reports of a run, in order; [] before the first.

  Args:
    path: metrics.jsonl, which may be of a run that is under way: what
      follows a half-written line is left out.

  Returns:
    One dict per report, with `step` and the metrics.
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
