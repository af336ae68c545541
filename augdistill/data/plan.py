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
    up with row 0 at weight 0.
  """
  batches = []
  for first in range(0, num_examples, batch_size):
    rows = np.arange(first, first + batch_size)
    real = rows < num_examples
    batches.append((np.where(real, rows, 0), real.astype(np.float32)))
  return batches
