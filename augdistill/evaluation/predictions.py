"""The file that shows what a model says about each text."""

import json
import os
from collections.abc import Iterator, Sequence, Sized
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from augdistill import atomic
from augdistill.evaluation.outputs import decide, name_of, probabilities
from augdistill.types import Task, TaskKind

TEXT_NAMES = {1: ("sentence",), 2: ("sentence1", "sentence2")}


@runtime_checkable
class Rows(Protocol):
  """The part of a data set that is shown beside the predictions.

  Attributes:
    texts: per row one text, or two for pairs.
    label: f32[N, C].
    has_label: bool[N].
    example_id: i32[N].
  """

  texts: Sequence[tuple[str, ...]]
  label: Float[np.ndarray, "N C"]
  has_label: Bool[np.ndarray, " N"]
  example_id: Int[np.ndarray, " N"]


def write_predictions(
  path: str | os.PathLike,
  task: Task,
  examples: Rows,
  logits: Float[np.ndarray, "N C"],
  teacher_logits: Float[np.ndarray, "N C"] | None = None,
) -> None:
  """Writes one JSON object per row, in the data set's order.

    {"example_id", "sentence" (or "sentence1", "sentence2"), "label",
     "prediction", "probabilities", "teacher_probabilities"}

  Labels are names, lists of names, or numbers; null where a row has none.
  Probabilities are a dict from name to number, null without a teacher; a
  regression has neither of the two.

  Args:
    path: a .jsonl file, which is replaced as a whole.
    task: what the outputs mean.
    examples: the rows.
    logits: f[N, C].
    teacher_logits: f[N, C], or None.

  Raises:
    ValueError: if there are not as many logits as rows.
  """
  with atomic.replacing(path) as file:
    for row in prediction_rows(task, examples, logits, teacher_logits):
      file.write(json.dumps(row, ensure_ascii=False) + "\n")


def prediction_rows(
  task: Task,
  examples: Rows,
  logits: Float[np.ndarray, "N C"],
  teacher_logits: Float[np.ndarray, "N C"] | None = None,
) -> Iterator[dict[str, Any]]:
  """The objects that `write_predictions` writes."""
  texts = examples.texts
  student = answers(task, logits)
  teacher = _by_name(task, teacher_logits)
  for i in range(_same_length(texts, logits, teacher)):
    row = {
      "example_id": int(examples.example_id[i]),
      **dict(zip(TEXT_NAMES[len(texts[i])], texts[i], strict=True)),
      "label": name_of(task, examples.label[i])
      if examples.has_label[i]
      else None,
      **student[i],
    }
    if task.kind != TaskKind.REGRESSION:
      row["teacher_probabilities"] = teacher and teacher[i]
    yield row


def answers(
  task: Task, logits: Float[np.ndarray, "N C"]
) -> list[dict[str, Any]]:
  """What a model says of each row: {"prediction", "probabilities"}.

  The prediction is a name, a list of names, or a number; a regression has no
  probabilities.
  """
  decisions, named = decide(task.kind, logits), _by_name(task, logits)
  rows = [{"prediction": name_of(task, decision)} for decision in decisions]
  if named is None:
    return rows
  return [
    {**row, "probabilities": its} for row, its in zip(rows, named, strict=True)
  ]


def _by_name(
  task: Task, logits: Float[np.ndarray, "N C"] | None
) -> list[dict[str, float]] | None:
  """Each row's probabilities as name -> number, to six digits."""
  if logits is None or task.kind == TaskKind.REGRESSION:
    return None
  rows = np.round(probabilities(task.kind, logits), 6).tolist()
  return [dict(zip(task.label_names, row, strict=True)) for row in rows]


def _same_length(*columns: Sized | None) -> int:
  lengths = {len(column) for column in columns if column is not None}
  if len(lengths) != 1:
    raise ValueError(f"rows and logits must be equally many, got {lengths}")
  return lengths.pop()
