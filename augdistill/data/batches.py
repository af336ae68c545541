"""Rows as arrays of one static shape."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from augdistill.data.answers import Answers
from augdistill.data.dataset import Examples
from augdistill.data.draws import choices
from augdistill.data.plan import evaluation_rows, rows_of_similar_length_at
from augdistill.data.rewrites import Rewrites
from augdistill.data.vocabulary import PAD_ID
from augdistill.types import Batch, Text

_MULTIPLE = 8  # of positions

# Numbers of the shares that a host has of every batch, ascending; and how many
# equal shares there are of it.
Shares = tuple[Sequence[int], int]
ALL: Shares = ((0,), 1)


def padded_length(lengths: np.ndarray) -> int:
  """The smallest multiple of 8 that holds the longest row of a split."""
  return -(-int(lengths.max(initial=1)) // _MULTIPLE) * _MULTIPLE


def round_down_length(positions: int) -> int:
  """The longest rows that, padded, fit so many positions."""
  return positions // _MULTIPLE * _MULTIPLE


def text_length(tokens: int) -> int:
  """The smallest of 16, 24, 32, 48, 64, 96, ... that holds so many tokens."""
  size = 16
  while size < tokens:  # 2^k, then 3/2 2^k, then 2^(k + 1)
    size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
  return size


def batch_length(lengths: np.ndarray, rows: np.ndarray) -> int:
  """L of a batch: the `text_length` of its longest row.

  It is never more than the split's `padded_length`. So short texts are not
  padded to the longest text there is, and a run has few shapes to compile.

  Args:
    lengths: i64[N] of all rows of the split.
    rows: i64[B] all rows of the batch, whichever host makes them.

  Returns:
    L.
  """
  size = text_length(int(lengths[rows].max()))
  return min(size, padded_length(lengths))


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


def make_rewrites(batch: Batch, rewrites: Rewrites, rows: np.ndarray) -> Batch:
  """The rewrites of a batch's rows, as it carries them.

  Args:
    batch: the rows themselves, long enough for their rewrites.
    rewrites: those of all rows.
    rows: i64[B] the numbers of the batch's rows.

  Returns:
    A batch [R, B, ...], R the most rewrites that any row of the split has.
    Where a row has fewer, its own text stands in at weight 0.
  """
  copies = []
  for copy in range(int(rewrites.counts.max())):
    there = copy < rewrites.counts[rows]
    index = np.where(there, rewrites.offsets[rows] + copy, 0)
    new = make_batch(rewrites.examples, index, batch.tokens.shape[1])
    copies.append(
      batch._replace(
        tokens=np.where(there[:, None], new.tokens, batch.tokens),
        mask=np.where(there[:, None], new.mask, batch.mask),
        weight=np.where(there, batch.weight, np.float32(0.0)),
      )
    )
  fields = zip(*(copy[:6] for copy in copies), strict=True)
  return Batch(*map(np.stack, fields))


def first_rows(batch: Batch, count: int) -> Batch:
  """The first `count` rows of a batch, or all of a smaller one."""
  rewrites, teacher = batch.rewrites, batch.teacher
  if rewrites is not None:
    rewrites = Batch(*(field[:, :count] for field in rewrites[:6]))
  if teacher is not None:
    teacher = Text(*(field[:count] for field in teacher))
  first = (field[:count] for field in batch[:6])
  return Batch(*first, rewrites=rewrites, teacher=teacher)


def train_batches(
  examples: Examples,
  batch_size: int,
  seed: int,
  *,
  rewrites: Rewrites | None = None,
  teacher: Examples | None = None,
  answers: Answers | None = None,
  length: int | None = None,
  host: Shares = ALL,
) -> Callable[[int], Batch]:
  """The training batches of a run.

  Args:
    examples: the training split, at least one row.
    batch_size: B, over all hosts.
    seed: the run's seed.
    rewrites: other texts of the rows, which every batch carries; which rows a
      step takes does not depend on them.
    teacher: the same rows with the teacher's own vocabulary.
    answers: the teacher's to the rows, of which every batch carries one each.
    length: L; by default each batch's own `batch_length`.
    host: the equal shares of every batch that this host makes.

  Returns:
    step -> this host's rows of that step's batch.
  """
  lengths = examples.lengths
  if rewrites is not None:
    lengths = np.maximum(lengths, rewrites.lengths)
  _check_length(lengths, length)
  shard = share_of_host(batch_size, host)

  def batch_at(step: int) -> Batch:
    rows = rows_of_similar_length_at(
      examples.lengths, batch_size, seed, examples.fingerprint, step
    )
    if teacher is not None:
      teacher_size = batch_length(teacher.lengths, rows)
    size, rows = length or batch_length(lengths, rows), rows[shard]
    batch = make_batch(examples, rows, size)
    if rewrites is not None:
      batch = batch._replace(rewrites=make_rewrites(batch, rewrites, rows))
    if teacher is not None:
      its = make_batch(teacher, rows, teacher_size)
      batch = batch._replace(teacher=Text(its.tokens, its.mask))
    if answers is not None:
      drawn = choices(batch_size, answers.draws, "answers", seed, step)[shard]
      batch = batch._replace(answers=answers.at(rows, drawn))
    return batch

  return batch_at


def eval_batches(
  examples: Examples,
  batch_size: int,
  *,
  length: int | None = None,
  host: Shares = ALL,
) -> Iterator[Batch]:
  """Every row once, in order; rows that only fill the last batch weigh 0.

  Args: as of `train_batches`.

  Yields:
    ceil(N / B) batches.
  """
  _check_length(examples.lengths, length)
  shard = share_of_host(batch_size, host)
  for rows, weight in evaluation_rows(len(examples), batch_size):
    size = length or batch_length(examples.lengths, rows)
    yield make_batch(examples, rows[shard], size, weight[shard])


def _check_length(lengths: np.ndarray, length: int | None) -> None:
  if length is not None and length < lengths.max():
    raise ValueError(
      f"length must hold the longest row, {lengths.max()} tokens, got {length}"
    )


def share_of_host(batch_size: int, host: Shares) -> np.ndarray:
  """The places in a batch of the rows that a host makes.

  Args:
    batch_size: B, over all hosts.
    host: its shares.

  Returns:
    i64[rows of the host].

  Raises:
    ValueError: if the shares cannot be equal.
  """
  shares, count = host
  if batch_size % count:
    raise ValueError(
      f"batch_size must be a multiple of the number of shares, {count}, got "
      f"{batch_size}"
    )
  return np.arange(batch_size).reshape(count, -1)[list(shares)].ravel()
