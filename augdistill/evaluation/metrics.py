"""Metrics, by the names that tasks use.

A metric is a function (predictions, labels) -> float of two arrays [N, C]:
one-hot rows for classes, 0 or 1 per name for multi-label, the value for a
regression (C = 1). A ratio whose denominator is 0 is 0: there is no
correlation with a constant, and no F1 of a class that neither occurs nor is
predicted. So no metric is ever NaN.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float

from augdistill import errors
from augdistill.evaluation.outputs import decide
from augdistill.types import Task, TaskKind

Matrix = Float[np.ndarray, "N C"]


def accuracy(predictions: Matrix, labels: Matrix) -> float:
  """Share of rows whose class, or whose whole set of names, is right."""
  return float(np.mean(np.all(predictions == labels, axis=-1)))


def f1(predictions: Matrix, labels: Matrix) -> float:
  """F1 of the last class, which is the positive one."""
  return micro_f1(predictions[:, -1:], labels[:, -1:])


def macro_f1(predictions: Matrix, labels: Matrix) -> float:
  """Mean over all C classes of each one's F1."""
  return float(np.mean(_f1(*_counts(predictions, labels))))


def micro_f1(predictions: Matrix, labels: Matrix) -> float:
  """F1 = 2 TP / (2 TP + FP + FN) of counts that are summed over classes."""
  counts = (c.sum(keepdims=True) for c in _counts(predictions, labels))
  return float(_f1(*counts)[0])


def matthews_correlation(predictions: Matrix, labels: Matrix) -> float:
  """R_K = cov(X, Y) / sqrt(cov(X, X) cov(Y, Y)) of one-hot matrices.

  For two classes this is the Matthews correlation of GLUE's CoLA.

  References:
    Gorodkin 2004, Comput. Biol. Chem. 28.
  """
  return _correlation(predictions, labels)


def pearson(predictions: Matrix, labels: Matrix) -> float:
  """Pearson's correlation of values."""
  return _correlation(predictions, labels)


def spearman(predictions: Matrix, labels: Matrix) -> float:
  """Pearson's correlation of ranks; equal values share their average rank."""
  return _correlation(_ranks(predictions), _ranks(labels))


def mse(predictions: Matrix, labels: Matrix) -> float:
  """Mean squared error."""
  return float(np.mean((predictions - labels) ** 2))


METRICS: Mapping[str, Callable[[Matrix, Matrix], float]] = {
  "accuracy": accuracy,
  "f1": f1,
  "macro_f1": macro_f1,
  "micro_f1": micro_f1,
  "exact_match": accuracy,
  "matthews_correlation": matthews_correlation,
  "pearson": pearson,
  "spearman": spearman,
  "mse": mse,
}


def higher_is_better(name: str) -> bool:
  """Whether a larger value of this metric is the better one."""
  return name != "mse"


def compute(
  task: Task,
  logits: Matrix,
  labels: Matrix,
  has_label: Bool[np.ndarray, " N"],
) -> dict[str, float]:
  """The task's metrics over the rows that have a label.

  Args:
    task: says which metrics, and what the outputs mean.
    logits: f[N, C] logits, or values.
    labels: f[N, C] as in a `Batch`.
    has_label: bool[N].

  Returns:
    Name -> value, in the task's order; {} where no row has a label.

  Raises:
    RunError: if a logit is NaN or infinite.
    UsageError: if the task has a metric that does not exist.
  """
  rows = np.asarray(has_label, bool)
  logits = np.asarray(logits, np.float64)[rows]
  labels = np.asarray(labels, np.float64)[rows]
  bad = int(np.sum(~np.all(np.isfinite(logits), axis=-1)))
  if bad:
    raise errors.RunError(
      f"a model's outputs must be finite, but {bad} of {len(logits)} rows are "
      "not: the model has diverged, train it anew with a lower learning rate"
    )
  for name in task.metrics:
    if name not in METRICS:
      raise errors.UsageError(
        f"there is no metric {name!r}.{errors.suggest(name, METRICS)} "
        f"There are: {errors.listing(METRICS, limit=20)}"
      )
  if not len(labels):
    return {}
  predictions = decide(task.kind, logits)
  if task.kind != TaskKind.REGRESSION:  # a label may be a soft one
    labels = decide(task.kind, labels - 0.5)
  return {name: METRICS[name](predictions, labels) for name in task.metrics}


def _counts(predictions: Matrix, labels: Matrix) -> tuple[np.ndarray, ...]:
  """True positives, predicted and actual positives of each column."""
  return (
    np.sum(predictions * labels, axis=0),
    np.sum(predictions, axis=0),
    np.sum(labels, axis=0),
  )


def _f1(
  hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray
) -> np.ndarray:
  total = predicted + actual  # = 2 TP + FP + FN
  return np.where(total > 0, 2 * hits / np.maximum(total, 1), 0.0)


def _correlation(x: Matrix, y: Matrix) -> float:
  """cov(x, y) / sqrt(cov(x, x) cov(y, y)), summed over columns; 0 for 0 / 0."""
  if np.all(x == x[:1]) or np.all(y == y[:1]):  # exactly, before rounding
    return 0.0
  x, y = x - x.mean(axis=0), y - y.mean(axis=0)
  x, y = x / np.abs(x).max(), y / np.abs(y).max()  # squares cannot underflow
  r = np.sum(x * y) / np.sqrt(np.sum(x**2) * np.sum(y**2))
  return float(np.clip(r, -1.0, 1.0))


def _ranks(values: Matrix) -> Matrix:
  _, inverse, counts = np.unique(
    values, return_inverse=True, return_counts=True
  )
  ranks = np.cumsum(counts) - (counts - 1) / 2
  return ranks[inverse].reshape(values.shape)
