"""What labels mean: the task that they define, and labels as arrays."""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from augdistill.data.files import RawLabel
from augdistill.errors import UsageError, listing, suggest
from augdistill.types import Task, TaskKind

# By kind; the first one chooses the best checkpoint.
METRICS = {
  TaskKind.CLASSES: ("accuracy", "macro_f1", "matthews_correlation"),
  TaskKind.REGRESSION: ("pearson", "spearman", "mse"),
  TaskKind.MULTI_LABEL: ("micro_f1", "macro_f1", "exact_match"),
}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_INTEGER = re.compile(r"[+-]?\d+")


def infer_kind(labels: Sequence[RawLabel]) -> TaskKind:
  """What labels are, as `infer_task` infers it."""
  if any(not isinstance(label, str) or "|" in label for label in labels):
    return TaskKind.MULTI_LABEL
  numbers = all(_NUMBER.fullmatch(label) for label in labels)
  if numbers and any("." in label for label in labels):
    return TaskKind.REGRESSION
  return TaskKind.CLASSES


def infer_task(
  name: str,
  labels: Sequence[RawLabel],
  *,
  kind: TaskKind | str | None = None,
  pair: bool = False,
) -> Task:
  """The task that training labels define.

  Numbers of which at least one has a decimal point are regression; lists, or
  names joined by `|`, are multi-label; all else, integers too, are the names
  of classes. Names are in order: of their value if all are integers, else of
  their letters.

  Args:
    name: the task's name, for reports.
    labels: the labels of all training rows.
    kind: what the labels are, if it is not to be inferred.
    pair: whether an example is two texts.

  Returns:
    The task, with the metrics of its kind.

  Raises:
    UsageError: if there are fewer than two classes.
  """
  kind = TaskKind(kind) if kind else infer_kind(labels)
  names = ()
  if kind != TaskKind.REGRESSION:
    found = {n for label in labels for n in _names(label, kind)}
    names = tuple(sorted(found, key=_order(found)))
    least = 2 if kind == TaskKind.CLASSES else 1
    if len(names) < least:
      raise UsageError(
        f"the training data of '{name}' must have at least {least} different "
        f"label(s), got {listing(names)}."
      )
  return Task(name, kind, names, METRICS[kind], pair)


def encode_labels(
  task: Task, labels: Sequence[RawLabel], where: Callable[[int], str]
) -> np.ndarray:
  """Labels as numbers.

  Args:
    task: what the labels mean.
    labels: one per row.
    where: how messages name a row.

  Returns:
    f32[N, C]: one-hot for classes, 0/1 per name for multi-label, the value
    for regression. Always finite.

  Raises:
    UsageError: for a name that the task does not have, or no finite number.
  """
  if task.kind == TaskKind.REGRESSION:
    values = [_number(label, where, i) for i, label in enumerate(labels)]
    return np.array(values, np.float32).reshape(-1, 1)
  column = {name: i for i, name in enumerate(task.label_names)}
  encoded = np.zeros((len(labels), len(column)), np.float32)
  for i, label in enumerate(labels):
    names = _names(label, task.kind)
    if task.kind == TaskKind.CLASSES and len(names) != 1:
      raise UsageError(f"{where(i)}: label must be one name, got {names}.")
    for name in names:
      if name not in column:
        raise UsageError(
          f"{where(i)}: label '{name}' must be one of the training data's: "
          f"{listing(column)}.{suggest(name, column)}"
        )
      encoded[i, column[name]] = 1.0
  return encoded


def _names(label: RawLabel, kind: TaskKind) -> tuple[str, ...]:
  """The names that a label holds: one if classes, any number if multi-label."""
  if not isinstance(label, str):
    return label
  if kind == TaskKind.CLASSES:
    return (label,)
  return tuple(n.strip() for n in label.split("|") if n.strip())


def _order(names: Iterable[str]) -> Callable[[str], object]:
  integers = all(_INTEGER.fullmatch(name) for name in names)
  return (lambda name: (int(name), name)) if integers else str


def _number(label: RawLabel, where: Callable[[int], str], row: int) -> float:
  if not isinstance(label, str) or not _NUMBER.fullmatch(label):
    raise UsageError(
      f"{where(row)}: label must be a number, since this is a regression "
      f"task, got {label!r}; if the labels are names, give --task_kind."
    )
  value = float(label)
  if abs(value) > float(np.finfo(np.float32).max):
    raise UsageError(f"{where(row)}: label must be finite, got {label!r}.")
  return value
