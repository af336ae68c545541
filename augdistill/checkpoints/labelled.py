"""What the outputs of a classifier of transformers mean."""

import re

from augdistill.checkpoints.config_json import Config, field
from augdistill.checkpoints.foreign import Arrays, matrix_shape
from augdistill.errors import UsageError, listing
from augdistill.types import Task, TaskKind

# config.json's problem_type; without, one output is a number.
_KINDS = {
  "single_label_classification": TaskKind.CLASSES,
  "multi_label_classification": TaskKind.MULTI_LABEL,
  "regression": TaskKind.REGRESSION,
}
# What transformers calls classes that nobody named.
_UNNAMED = re.compile(r"LABEL_(\d+)")
_HEAD = "head/kernel"


def task_of(arrays: Arrays, config: Config, where: str) -> Task | None:
  """The task of a classifier.

  Args:
    arrays: its weights, by this package's names.
    config: `config.json`.
    where: what messages call the place.

  Returns:
    The task; classes without a name, LABEL_0 and so on, are called by their
    number, as they are in data. None where there is no head.

  Raises:
    UsageError: if its kind is unknown, two outputs have one name, or its head
      is no matrix.
  """
  if _HEAD not in arrays:
    return None
  _, count = matrix_shape(arrays, _HEAD, f"{where} must hold a classifier")
  said = field(config, where, str, None, "problem_type")
  if said is not None and said not in _KINDS:
    raise UsageError(
      f"{where} must have a problem_type of {listing(_KINDS)}, got {said!r}"
    )
  kind = TaskKind.CLASSES if count > 1 else TaskKind.REGRESSION
  kind = _KINDS.get(said, kind)
  name = where.rstrip("/").rpartition("/")[2]
  if kind == TaskKind.REGRESSION:
    return Task(name, kind)
  given = field(config, where, dict, {}, "id2label")
  names = [str(given.get(str(i), f"LABEL_{i}")) for i in range(count)]
  names = [_UNNAMED.sub(r"\1", name) for name in names]
  if len(set(names)) < count:
    raise UsageError(
      f"{where} must name its classes apart, got {listing(names)}"
    )
  return Task(name, kind, tuple(names))
