"""What a model's outputs mean: probabilities, decisions, and their names."""

from typing import Any

import numpy as np
from jaxtyping import Float

from augdistill.types import Task, TaskKind


def probabilities(
  kind: TaskKind, logits: Float[np.ndarray, "N C"]
) -> Float[np.ndarray, "N C"]:
  """Softmax over classes, or a sigmoid for each name of a multi-label task.

  Args:
    kind: classes or multi-label.
    logits: f[N, C].

  Returns:
    f64[N, C].

  Raises:
    ValueError: for regression, which has none.
  """
  logits = np.asarray(logits, np.float64)
  if kind == TaskKind.CLASSES:
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)
  if kind == TaskKind.MULTI_LABEL:
    return np.exp(-np.logaddexp(0.0, -logits))
  raise ValueError("a regression has no probabilities")


def decide(
  kind: TaskKind, logits: Float[np.ndarray, "N C"]
) -> Float[np.ndarray, "N C"]:
  """What a model says, in the form of a label.

  Args:
    kind: what a label is.
    logits: f[N, C], or values.

  Returns:
    f64[N, C]: one-hot at the largest logit, the lowest index at a tie; or 1
    where a name's probability is above one half; or the value itself.
  """
  logits = np.asarray(logits, np.float64)
  if kind == TaskKind.CLASSES:
    return np.eye(logits.shape[-1])[np.argmax(logits, axis=-1)]
  if kind == TaskKind.MULTI_LABEL:
    return (logits > 0).astype(np.float64)
  return logits


def name_of(task: Task, label: Float[np.ndarray, " C"]) -> Any:
  """A label as a person writes it: a name, a number, or a list of names."""
  if task.kind == TaskKind.REGRESSION:
    return float(label[0])
  if task.kind == TaskKind.CLASSES:
    return task.label_names[int(np.argmax(label))]
  return [n for n, v in zip(task.label_names, label, strict=True) if v > 0.5]
