"""Arrays that another program wrote: known by name, read when asked for."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from augdistill.checkpoints.flat import spell
from augdistill.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Stored:
  """An array on disk.

  Attributes:
    shape: its shape.
    dtype: its type, as it is read.
    read: reads it; raises UsageError where its file is damaged.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], np.ndarray]

  def __str__(self) -> str:
    return spell(self.dtype, self.shape)


# Name -> array. The parts of a name are joined as its format joins them.
Arrays = Mapping[str, Stored]


def matrix_shape(arrays: Arrays, name: str, what: str) -> tuple[int, int]:
  """The shape of a matrix that must be there.

  Args:
    arrays: where it is.
    name: its name.
    what: what must hold it, for messages: "DIR must hold a T5".

  Raises:
    UsageError: if it is not there, or no matrix, or has no numbers.
  """
  array = arrays.get(name)
  if array is None:
    raise UsageError(f"{what}, but has no {name}")
  if len(array.shape) != 2 or 0 in array.shape:
    raise UsageError(f"{what}, but {name} is {array}")
  return array.shape


def with_rows(array: Stored, rows: int) -> Stored:
  """A matrix with rows of 0 behind its own, so that it has so many in all."""
  own, *others = array.shape

  def read() -> np.ndarray:
    behind = [(0, rows - own), *((0, 0) for _ in others)]
    return np.pad(array.read(), behind)

  return Stored((rows, *others), array.dtype, read)


def with_outputs(array: Stored, order: Sequence[int]) -> Stored:
  """An array whose last axis is this selection of its own entries."""
  shape = *array.shape[:-1], len(order)
  return Stored(shape, array.dtype, lambda: array.read()[..., list(order)])
