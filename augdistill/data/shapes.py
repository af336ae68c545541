"""The few shapes in which texts are labelled, and which text goes where.

Every shape of a batch is a program of its own, so shapes must be few; and
every padded position costs as much as a real one, so they must fit. Lengths
double: a row is padded to less than twice its length, to the next of

  16, 32, 64, ..., the model's own length

and each length comes with a few numbers of rows. Of n rows that wait, as many
are taken as fill a shape at least half. So of a batch that is not the smallest
of its length more than a quarter is real.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from augdistill.data.vocabulary import PAD_ID
from augdistill.types import Batch

_SHORTEST = 16  # positions; less takes no less time


class Shape(NamedTuple):
  """A batch's rows B and positions L."""

  rows: int
  length: int


def shapes_up_to(
  max_length: int, rows: Sequence[int], max_positions: int | None = None
) -> tuple[Shape, ...]:
  """The shapes of a model that reads so many tokens.

  Args:
    max_length: the most tokens of a row.
    rows: the numbers of rows that a batch may have.
    max_positions: the most positions of a batch, padding included, so that
      none takes long; where a number of rows does not fit, as many as do.

  Returns:
    The shapes, each once, the shortest first and the fewest rows first.

  Example:
    >>> [tuple(shape) for shape in shapes_up_to(20, (1, 8), 100)]
    [(1, 16), (6, 16), (1, 24), (4, 24)]
  """
  last = -(-max_length // 8) * 8
  lengths, length = [], _SHORTEST
  while length < last:
    lengths.append(length)
    length *= 2
  shapes = set()
  for length in (*lengths, last):
    fit = max(rows) if max_positions is None else max_positions // length
    shapes |= {Shape(max(1, min(n, fit)), length) for n in rows}
  return tuple(sorted(shapes, key=lambda shape: (shape.length, shape.rows)))


def next_batch(
  lengths: np.ndarray, shapes: Sequence[Shape]
) -> tuple[np.ndarray, Shape]:
  """The first row that waits, and which others go with it.

  No row waits for ever, since the first one always goes.

  Args:
    lengths: i64[N] of the rows that wait, in their order, N >= 1.
    shapes: as of `shapes_up_to` for the longest of them.

  Returns:
    i64[n], the numbers of rows of the first row's padded length, in order; and
    the shape that holds them, of which they fill half unless it is the
    smallest of that length.
  """
  all_lengths = np.unique([shape.length for shape in shapes])
  padded = all_lengths[np.searchsorted(all_lengths, lengths)]  # i64[N]
  same = np.flatnonzero(padded == padded[0])
  sizes = [shape.rows for shape in shapes if shape.length == padded[0]]
  size = max(n for n in sizes if n <= max(2 * len(same), min(sizes)))
  return same[:size], Shape(size, int(padded[0]))


def padded_batch(
  rows: Sequence[np.ndarray], shape: Shape, num_outputs: int
) -> Batch:
  """Rows as one batch of a shape.

  Args:
    rows: i32[L_i] the tokens of at most B rows.
    shape: B and L.
    num_outputs: C.

  Returns:
    A batch without labels. Rows that only fill it weigh 0 and have one token,
    of padding, since nothing can be attended to in a row without any.
  """
  tokens = np.full(shape, PAD_ID, np.int32)
  lengths = np.ones(shape.rows, np.int64)
  for i, row in enumerate(rows):
    tokens[i, : len(row)] = row
    lengths[i] = len(row)
  real = np.arange(shape.rows) < len(rows)
  return Batch(
    tokens=tokens,
    mask=np.arange(shape.length) < lengths[:, None],
    label=np.zeros((shape.rows, num_outputs), np.float32),
    has_label=np.zeros(shape.rows, bool),
    weight=real.astype(np.float32),
    example_id=np.zeros(shape.rows, np.int32),
  )
