"""The runs of a grid, and results.jsonl, which holds what came out of them."""

import json
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from augdistill import atomic
from augdistill.reports.results import read_results


class Cell(NamedTuple):
  """One run of a grid.

  Attributes:
    method: as the user wrote it.
    rows: how many training rows it learnt from; None for all.
    seed: its seed.
    path: its directory.
    error: why it failed; None if it is finished.
    command: its command, as text.
  """

  method: str
  rows: int | None
  seed: int
  path: str
  error: str | None
  command: str


def write_results(path: pathlib.Path, cells: Iterable[Cell]) -> None:
  """Writes results.jsonl: a line per run, finished or failed.

  It is made anew from the runs each time, so what a kill left half-written is
  mended by the next start.
  """
  with atomic.replacing(path) as file:
    for cell in cells:
      line = {**cell._asdict()}
      if cell.error is None:
        line["results"] = read_results(cell.path)
      file.write(json.dumps(line, ensure_ascii=False) + "\n")
