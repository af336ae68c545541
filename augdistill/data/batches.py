"""Rows as arrays of one static shape."""

from collections.abc import Callable, Iterator

import numpy as np

from augdistill.data.dataset import Examples
from augdistill.data.plan import evaluation_rows, rows_at
from augdistill.data.vocabulary import PAD_ID
from augdistill.types import Batch


def padded_length(*examples: Examples) -> int:
  """L: the smallest multiple of 8 that holds the longest row of these splits.

  Short texts are thus never padded to the maximal length.
  """
  longest = max((int(e.lengths.max()) for e in examples if len(e)), default=1)
  return -(-longest // 8) * 8


def make_batch(
  examples: Examples,
  rows: np.ndarray,
  length: int,
  weight: np.ndarray | None = None,
) -> Batch:
  """The given rows as a batch of NumPy arrays.

  Args:
    examples: where the rows are.
    rows: i64[B] their numbers.
    length: L, at least the longest row's.
    weight: f32[B], by default 1 for all.

  Returns:
    A batch of B rows, padded to L.
  """
  lengths = examples.lengths[rows][:, None]  # [B, 1]
  positions = np.arange(length)[None, :]  # [1, L]
  mask = positions < lengths  # [B, L]
  flat = np.where(mask, examples.offsets[rows][:, None] + positions, 0)
  return Batch(
    tokens=np.where(mask, examples.tokens[flat], np.int32(PAD_ID)),
    mask=mask,
    label=np.asarray(examples.label[rows]),
    has_label=np.asarray(examples.has_label[rows]),
    weight=np.ones(len(rows), np.float32) if weight is None else weight,
    example_id=np.asarray(examples.example_id[rows]),
  )


def train_batches(
  examples: Examples,
  batch_size: int,
  seed: int,
  *,
  length: int | None = None,
  host: tuple[int, int] = (0, 1),
) -> Callable[[int], Batch]:
  """The training batches of a run.

  Args:
    examples: the training split, at least one row.
    batch_size: B, over all hosts.
    seed: the run's seed.
    length: L; by default the split's own padded length.
    host: (this host's number, number of hosts), which divides B: the host
      makes its contiguous share of every batch.

  Returns:
    step -> this host's rows of that step's batch.
  """
  length = _checked_length(examples, length)
  shard = _shard(batch_size, host)

  def batch_at(step: int) -> Batch:
    rows = rows_at(len(examples), batch_size, seed, examples.fingerprint, step)
    return make_batch(examples, rows[shard], length)

  return batch_at


def eval_batches(
  examples: Examples,
  batch_size: int,
  *,
  length: int | None = None,
  host: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
  """Every row once, in order; rows that only fill the last batch weigh 0.

  Args: as of `train_batches`.

  Yields:
    ceil(N / B) batches.
  """
  length = _checked_length(examples, length)
  shard = _shard(batch_size, host)
  for rows, weight in evaluation_rows(len(examples), batch_size):
    yield make_batch(examples, rows[shard], length, weight[shard])


def _checked_length(examples: Examples, length: int | None) -> int:
  shortest = padded_length(examples)
  if length is not None and length < examples.lengths.max():
    raise ValueError(
      f"length must hold the longest row, {examples.lengths.max()} tokens, "
      f"got {length}"
    )
  return length or shortest


def _shard(batch_size: int, host: tuple[int, int]) -> slice:
  index, count = host
  if batch_size % count:
    raise ValueError(
      f"batch_size must be a multiple of the number of hosts, {count}, got "
      f"{batch_size}"
    )
  share = batch_size // count
  return slice(index * share, (index + 1) * share)
