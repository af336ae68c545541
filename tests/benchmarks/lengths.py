"""Epochs of `kd` in buckets of their length, against rows padded to 128.

The same rows go into the same steps; only what they are padded to differs.
That both learn the same is checked before anything is timed.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from augdistill import prng
from augdistill.data.batches import train_batches
from augdistill.data.dataset import Examples
from augdistill.data.load import Data
from augdistill.models.enct5 import enct5
from augdistill.models.sizes import enct5_config
from augdistill.training.methods import build_method
from augdistill.training.optimizers import make_optimizer
from augdistill.training.step import TrainState, grads_and_metrics, jitted_step
from augdistill.types import Batch, Network, TaskKind
from tests.benchmarks import real_data
from tests.benchmarks.turns import Figure, at_least, ratio

PADDED = 128
BATCH_SIZE = 64
ROWS = 2048  # of an epoch
CHECKED = 3  # steps whose gradients are compared
TOLERANCE = 1e-4
ASKED = {"banking77": at_least(3), "sst2": at_least(3), "rte": None}


def measure(quick: bool) -> list[Figure]:
  """An epoch of each data set, or a short one of the first."""
  names, rows = ([*ASKED][:1], 512) if quick else (ASKED, ROWS)
  return [epochs(name, real_data.load(name), rows) for name in names]


def epochs(name: str, data: Data, rows: int) -> Figure:
  """An epoch padded to 128, against one in buckets.

  Args:
    name: of the data.
    data: whose training rows are learnt from, with their own vocabulary.
    rows: of the epoch, drawn at random.

  Raises:
    AssertionError: if the two do not learn the same.
  """
  examples = real_data.some_rows(data.train, rows)
  padded = train_batches(examples, BATCH_SIZE, seed=0, length=PADDED)
  own = train_batches(examples, BATCH_SIZE, seed=0)
  far = max(difference(data, padded(i), own(i)) for i in range(CHECKED))
  assert far < TOLERANCE, f"{name}: gradients differ by {far:.1e} of their norm"
  per = -(-len(examples) // BATCH_SIZE)
  mean = np.mean(examples.lengths)
  positions = np.mean([own(i).tokens.shape[1] for i in range(per)])
  return ratio(
    {
      f"`kd`, {name}, padded to {PADDED}": epoch(data, examples, padded),
      f"`kd`, {name}, in buckets": epoch(data, examples, own),
    },
    per=per,
    bound=ASKED.get(name),
    note=f"a step of {per}; {mean:.0f} tokens a row in {positions:.0f} "
    f"positions, gradients equal to {far:.0e}",
  )


def networks(data: Data, dropout_rate: float) -> tuple[Network, Network]:
  """A micro student and a mini teacher."""
  shape = functools.partial(
    enct5_config,
    vocab_size=data.vocab.size,
    num_outputs=data.task.num_outputs,
    dropout_rate=dropout_rate,
  )
  return enct5(shape("micro")), enct5(shape("mini"))


def difference(data: Data, batch: Batch, other: Batch) -> float:
  """How far apart two batches' gradients are, relative to their norm."""
  # Without dropout, whose masks depend on the shape.
  student, teacher = networks(data, dropout_rate=0.0)
  params, teacher_params = (
    student.init(prng.run_key(0)),
    teacher.init(prng.run_key(1)),
  )
  grads = jax.jit(
    functools.partial(
      grads_and_metrics,
      student=student,
      teacher=teacher,
      method=build_method("kd", TaskKind.CLASSES),
    )
  )
  one, two = (
    grads(
      params,
      teacher_params,
      data.vocab.lexicon,
      given,
      prng.run_key(0),
      jnp.int32(0),
    )[0]
    for given in (batch, other)
  )
  one, two = (
    np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    for tree in (one, two)
  )
  return float(np.linalg.norm(one - two) / np.linalg.norm(two))


def epoch(
  data: Data, examples: Examples, batch_at: Callable[[int], Batch]
) -> Callable[[], TrainState]:
  """What takes the steps of an epoch, its batches made on the way."""
  student, teacher = networks(data, dropout_rate=0.1)
  optimizer = make_optimizer(num_steps=10_000)
  step = jitted_step(
    optimizer=optimizer,
    student=student,
    teacher=teacher,
    method=build_method("kd", TaskKind.CLASSES),
  )
  params = jax.jit(student.init)(prng.run_key(0))
  states = [TrainState(jnp.int32(0), params, optimizer.init(params))]
  teacher_params = jax.jit(teacher.init)(prng.run_key(1))
  lexicon = jax.device_put(data.vocab.lexicon)

  def run() -> TrainState:
    state = states.pop()
    for i in range(-(-len(examples) // BATCH_SIZE)):
      state, _ = step(
        state, teacher_params, lexicon, batch_at(i), prng.run_key(0)
      )
    states.append(state)
    return state

  return run
