"""Which rows a step trains on: a function of (data, seed, step).

Each epoch is a permutation of the rows. Epochs follow each other without a
gap, and step s takes rows s * B ... (s + 1) * B - 1 of that stream: no row is
dropped at the end of an epoch, and a run that is resumed at step s goes on as
if it had never stopped.
"""

import functools

import numpy as np

from augdistill.data.draws import permutation


def rows_at(
  num_examples: int, batch_size: int, seed: int, fingerprint: str, step: int
) -> np.ndarray:
  """The rows of the batch of step `step`.

  Args:
    num_examples: N, how many rows there are.
    batch_size: B.
    seed: the run's seed.
    fingerprint: the data's, so that other data have another order.
    step: from 0.

  Returns:
    i64[B] row numbers, each below N.
  """
  first = step * batch_size
  epochs = range(
    first // num_examples, (first + batch_size - 1) // num_examples + 1
  )
  stream = [_epoch(num_examples, fingerprint, seed, e) for e in epochs]
  skipped = first - epochs[0] * num_examples
  return np.concatenate(stream)[skipped : skipped + batch_size]


def rows_of_similar_length_at(
  lengths: np.ndarray,
  batch_size: int,
  seed: int,
  fingerprint: str,
  step: int,
  window: int = 8,
) -> np.ndarray:
  """As `rows_at`, but the rows of a batch have about the same length.

  The batches of `window` steps are pooled, sorted by length, cut into batches
  again, and taken in a random order. So each window trains on the same rows
  as without, and little of a batch is padding. Small data have a smaller
  window, so that no row meets its own repetitions in a batch.

  Args:
    lengths: i64[N], of each row.
    batch_size: B.
    seed: the run's seed.
    fingerprint: the data's.
    step: from 0.
    window: how many steps are pooled at most.

  Returns:
    i64[B] row numbers.
  """
  steps = max(1, min(window, len(lengths) // (2 * batch_size)))
  first = step - step % steps
  rows = np.concatenate(
    [
      rows_at(len(lengths), batch_size, seed, fingerprint, first + i)
      for i in range(steps)
    ]
  )
  rows = rows[np.argsort(lengths[rows], kind="stable")]
  turn = permutation(steps, "window", fingerprint, seed, first)[step - first]
  return rows[turn * batch_size : (turn + 1) * batch_size]


@functools.lru_cache(maxsize=4)
def _epoch(n: int, fingerprint: str, seed: int, epoch: int) -> np.ndarray:
  return permutation(n, "epoch", fingerprint, seed, epoch)


def evaluation_rows(
  num_examples: int, batch_size: int
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Batches that hold every row once, in order.

  Args:
    num_examples: N, how many rows there are.
    batch_size: B.

  Returns:
    ceil(N / B) pairs (rows i64[B], weight f32[B]). The last batch is filled
    up with its first row at weight 0.
  """
  batches = []
  for first in range(0, num_examples, batch_size):
    rows = np.arange(first, first + batch_size)
    real = rows < num_examples
    batches.append((np.where(real, rows, first), real.astype(np.float32)))
  return batches
