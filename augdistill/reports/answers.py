"""What a run said about the rows that it was scored on, read back."""

import json
from typing import NamedTuple

import numpy as np

from augdistill.errors import UsageError
from augdistill.reports.run_directory import RunDirectory


class Answers(NamedTuple):
  """What a run said about the rows that it was scored on.

  Attributes:
    texts: per row one text, or two.
    example_id: i64[N].
    names: the name of each output; () for a regression.
    labels: f64[N, C], as decisions.
    decisions: f64[N, C], as of `outputs.decide`.
    probabilities: f64[N, C], or None.
  """

  texts: tuple[tuple[str, ...], ...]
  example_id: np.ndarray
  names: tuple[str, ...]
  labels: np.ndarray
  decisions: np.ndarray
  probabilities: np.ndarray | None

  def written(self, decision: np.ndarray) -> str:
    """A label or a decision, f64[C], as a person writes it."""
    if not self.names:
      return f"{decision[0]:.3g}"
    named = [n for n, v in zip(self.names, decision, strict=True) if v > 0.5]
    return ", ".join(named) or "(none)"


def read_answers(run: str, split: str) -> Answers:
  """Reads a run's predictions on the labelled rows of a split.

  Raises:
    UsageError: if there are none.
  """
  path = RunDirectory(run).predictions(split)
  try:
    with path.open(encoding="utf-8") as file:
      lines = [json.loads(line) for line in file]
  except (OSError, ValueError) as error:
    raise UsageError(
      f"{path} must hold the predictions of a finished run, but: {error}"
    ) from error
  lines = [line for line in lines if line["label"] is not None]
  if not lines:
    raise UsageError(f"{path} must have rows with a label, and has none")
  names = tuple(lines[0].get("probabilities") or ())

  def as_numbers(values: list) -> np.ndarray:
    if not names:
      return np.array(values, np.float64)[:, None]
    index = {name: i for i, name in enumerate(names)}
    made = np.zeros((len(values), len(names)))
    for row, value in enumerate(values):
      for name in value if isinstance(value, list) else [value]:
        made[row, index[name]] = 1.0
    return made

  probabilities = None
  if names:
    probabilities = np.array(
      [[line["probabilities"][name] for name in names] for line in lines]
    )
  keys = [k for k in lines[0] if k.startswith("sentence")]
  return Answers(
    texts=tuple(tuple(line[key] for key in keys) for line in lines),
    example_id=np.array([line["example_id"] for line in lines]),
    names=names,
    labels=as_numbers([line["label"] for line in lines]),
    decisions=as_numbers([line["prediction"] for line in lines]),
    probabilities=probabilities,
  )
