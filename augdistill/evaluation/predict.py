"""A model's logits on a whole data set."""

import functools
from collections.abc import Callable, Iterable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float

from augdistill.data.batches import ALL, Shares, eval_batches
from augdistill.data.dataset import Examples, take
from augdistill.evaluation.metrics import pearson
from augdistill.evaluation.outputs import decide
from augdistill.types import Batch, Inputs, Network, Params, Task, TaskKind


@functools.partial(jax.jit, static_argnames="network")
def logits_of(
  network: Network, params: Params, batch: Batch
) -> Float[Array, "B C"]:
  """Deterministic logits of one batch; compiled once per network and shape."""
  inputs = Inputs(mask=batch.mask[None], tokens=batch.tokens[None])
  return network.forward(params, inputs, key=None).logits[0]


def predict(
  network: Network,
  params: Params,
  batches: Iterable[Batch],
  place: Callable[[Batch], Batch] = lambda batch: batch,
) -> Float[np.ndarray, "N C"]:
  """Runs a network over batches.

  Args:
    network: the model; the same object each time, or it compiles anew.
    params: its parameters, wherever they are.
    batches: every row once; rows of weight 0 are padding and are dropped.
    place: puts a batch of NumPy arrays on the devices, for more than one.

  Returns:
    f32[N, C] logits, or values, in the order of the batches.
  """
  rows = []
  for batch in map(place, batches):
    rows.append((logits_of(network, params, batch), batch.weight))
  parts = [fetch(logits)[fetch(weight) > 0] for logits, weight in rows]
  return np.concatenate(
    [np.zeros((0, network.num_outputs), np.float32), *parts]
  ).astype(np.float32)


def predict_split(
  network: Network,
  params: Params,
  examples: Examples,
  batch_size: int,
  *,
  host: Shares = ALL,
  place: Callable[[Batch], Batch] = lambda batch: batch,
) -> Float[np.ndarray, "N C"]:
  """Runs a network over a split, rows of about one length together.

  Every padded position costs as much as a real one. The longest rows come
  first: the last batch, which is filled up, is then one of short rows.

  Args:
    network: as of `predict`; so are `params` and `place`.
    params: its parameters.
    examples: the split.
    batch_size: B, over all hosts.
    host: the equal shares of every batch that this host makes.
    place: for more than one device.

  Returns:
    f32[N, C] logits, or values, in the data set's order.
  """
  order = np.argsort(-examples.lengths, kind="stable")
  batches = eval_batches(take(examples, order), batch_size, host=host)
  found = predict(network, params, batches, place)
  logits = np.empty_like(found)
  logits[order] = found
  return logits


def agreement(
  student_logits: Float[np.ndarray, "N C"],
  teacher_logits: Float[np.ndarray, "N C"],
  task: Task,
) -> float:
  """How often a student says what its teacher says.

  Args:
    student_logits: f[N, C].
    teacher_logits: f[N, C].
    task: what they mean.

  Returns:
    The share of equal classes; of equal yes-or-no decisions of a multi-label
    task; Pearson's correlation of a regression's values.
  """
  student = decide(task.kind, student_logits)
  teacher = decide(task.kind, teacher_logits)
  if task.kind == TaskKind.REGRESSION:
    return pearson(student, teacher)
  if task.kind == TaskKind.CLASSES:
    return float(np.mean(np.all(student == teacher, axis=-1)))
  return float(np.mean(student == teacher))


def fetch(array: Array | np.ndarray) -> np.ndarray:
  """The whole array, also where other hosts hold parts of it."""
  if isinstance(array, jax.Array) and not array.is_fully_addressable:
    return multihost_utils.process_allgather(array, tiled=True)
  return np.asarray(array)
