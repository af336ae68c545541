"""Arrays that another program wrote: known by name, read when asked for."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from augdistill.checkpoints.flat import spell


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


def with_rows(array: Stored, rows: int) -> Stored:
  """A matrix with rows of 0 behind its own, so that it has so many in all."""
  own, *others = array.shape

  def read() -> np.ndarray:
    behind = [(0, rows - own), *((0, 0) for _ in others)]
    return np.pad(array.read(), behind)

  return Stored((rows, *others), array.dtype, read)
