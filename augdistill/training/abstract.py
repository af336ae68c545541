"""A step on arrays that nobody has: traced, counted and compiled, never run.

The shapes, types and places of all arrays are those of a run, so that what a
step costs is known before anything of its size is made: no data, no teacher
and no device of the kind are needed.
"""

import dataclasses
import functools
import math
import re
from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from augdistill import prng
from augdistill.models.precision import cast_matrices
from augdistill.training import mesh
from augdistill.training.flops import (
  Costs,
  bytes_of,
  costs_of,
  count_elementwise,
)
from augdistill.training.step import TrainState, jitted_step
from augdistill.types import Batch, Lexicon, Method, Network, Text

# Of CPUs: the memory is the same, and a fifth of the time is saved.
_QUICKLY = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
}
# What the optimizer's operations are called among the parts of a step.
OPTIMIZER = "optimizer:update"


@dataclasses.dataclass(frozen=True)
class Job:
  """What decides what a step is.

  Attributes:
    student: the network that learns.
    teacher: the network that it learns from, or None.
    optimizer: an optax transformation.
    batch_size: B, rows over all devices.
    length: L, tokens of a row, padding included.
    vocab_size: V, the student's.
    rewrites: R, other texts of each row; 0 for none.
    neighbours: of each token of the vocabulary, looked up before the first
      step; 0 for none.
    apart: whether the teacher reads with a vocabulary of its own.
    answered: whether a batch brings the teacher's answers to its rows.
    teacher_dropout: whether the teacher drops out.
    num_microbatches: parts into which a batch is cut.
    shard_teacher: whether the teacher's parameters are cut over all devices.
    teacher_dtype: of the teacher's matrices; None for float32.
  """

  student: Network
  teacher: Network | None
  optimizer: optax.GradientTransformation
  batch_size: int
  length: int
  vocab_size: int
  rewrites: int = 0
  neighbours: int = 0
  apart: bool = False
  answered: bool = False
  teacher_dropout: bool = True
  num_microbatches: int = 1
  shard_teacher: bool = False
  teacher_dtype: str | None = None


class Arguments(NamedTuple):
  """What a step is called with: a `jax.ShapeDtypeStruct` for every array."""

  state: TrainState
  teacher_params: Any
  lexicon: Lexicon
  batch: Batch
  key: Any


def arguments(job: Job, devices: Mesh) -> Arguments:
  """What the step of a job is called with, and where it lies.

  Args:
    job: the step.
    devices: on which it is to run; they need not be there.
  """
  whole = mesh.replicated(devices)
  student = jax.eval_shape(job.student.init, jax.random.key(0))
  state = jax.eval_shape(
    lambda params: TrainState(jnp.int32(0), params, job.optimizer.init(params)),
    student,
  )
  teacher = teacher_places = None
  if job.teacher is not None:
    teacher = jax.eval_shape(job.teacher.init, jax.random.key(0))
    if job.teacher_dtype:
      teacher = cast_matrices(teacher, job.teacher_dtype)
    teacher_places = mesh.param_shardings(
      job.teacher, devices, job.shard_teacher
    )
  words = jax.ShapeDtypeStruct((job.vocab_size,), bool)
  lists = jax.ShapeDtypeStruct((job.vocab_size, job.neighbours), jnp.int32)
  lexicon = Lexicon(
    producible=words,
    protected=words,
    neighbours=lists if job.neighbours else None,
  )
  batch = _batch(job)
  rows = NamedSharding(devices, PartitionSpec("data"))
  copies = NamedSharding(devices, PartitionSpec(None, "data"))
  places = jax.tree.map(lambda _: rows, batch._replace(rewrites=None))
  places = places._replace(
    rewrites=jax.tree.map(lambda _: copies, batch.rewrites)
  )
  key = jax.eval_shape(functools.partial(prng.run_key, 0))
  return Arguments(
    _placed(state, mesh.state_shardings(job.student, job.optimizer, devices)),
    _placed(teacher, teacher_places),
    _placed(lexicon, jax.tree.map(lambda _: whole, lexicon)),
    _placed(batch, places),
    _placed(key, whole),
  )


def _placed(tree: Any, places: Any) -> Any:
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    tree,
    places,
  )


def _batch(job: Job) -> Batch:
  """The shapes of a batch of the longest rows."""
  rows, classes = job.batch_size, job.student.num_outputs
  shape = jax.ShapeDtypeStruct
  words = shape((rows, job.length), jnp.int32)
  mask = shape((rows, job.length), bool)
  batch = Batch(
    tokens=words,
    mask=mask,
    label=shape((rows, classes), jnp.float32),
    has_label=shape((rows,), bool),
    weight=shape((rows,), jnp.float32),
    example_id=shape((rows,), jnp.int32),
  )
  rewrites = None
  if job.rewrites:
    rewrites = jax.tree.map(
      lambda x: shape((job.rewrites, *x.shape), x.dtype), batch
    )
  theirs = Text(words, mask) if job.apart else None
  answers = batch.label if job.answered else None
  return batch._replace(rewrites=rewrites, teacher=theirs, answers=answers)


def trace(job: Job, method: Method, given: Arguments) -> jax.stages.Traced:
  """The step of a job with one method; nothing is computed.

  Args:
    job: the step.
    method: what it minimises.
    given: its arguments.

  Raises:
    UsageError: if the method does not fit the networks or the batch.
  """
  step = jitted_step(
    optimizer=job.optimizer,
    student=job.student,
    teacher=job.teacher,
    method=method,
    teacher_dropout=job.teacher_dropout,
    num_microbatches=job.num_microbatches,
  )
  return step.trace(*given)


def costs(job: Job, traced: jax.stages.Traced, given: Arguments) -> Costs:
  """What a step costs: its products, and the optimizer beside them.

  The optimizer multiplies no matrices. Its operations, which go element by
  element, are the part `OPTIMIZER`; and it reads a gradient, and reads and
  writes parameters and its own state.

  Args:
    job: the step.
    traced: the step as traced.
    given: its arguments.
  """
  of_models = costs_of(traced.jaxpr)
  params, opt_state = given.state.params, given.state.opt_state

  def update(grads, opt_state, params):
    updates, opt_state = job.optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  flops = count_elementwise(update, params, opt_state, params)
  leaves = jax.tree.leaves(params), jax.tree.leaves(opt_state)
  moved = 3 * sum(map(bytes_of, leaves[0])) + 2 * sum(map(bytes_of, leaves[1]))
  return Costs(
    of_models.by_part + Counter({OPTIMIZER: flops}),
    of_models.by_dtype,
    of_models.moved + moved,
  )


def count(tree: Any) -> int:
  """How many numbers a tree holds."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def bytes_on_a_device(tree: Any) -> int:
  """Bytes of one device's share of a tree of placed shapes."""
  total = 0
  for leaf in jax.tree.leaves(tree):
    share = leaf.sharding.shard_shape(leaf.shape)
    size = getattr(leaf.dtype, "itemsize", 0)
    total += math.prod(share) * size
  return total


class Peak(NamedTuple):
  """What a step holds at a time, at the most, on one device.

  Attributes:
    bytes: how much, at least that if it is refused.
    refused: whether its compiler said that there is no room for it.
  """

  bytes: int
  refused: bool = False


def peak_of(traced: Any, devices: Mesh) -> Peak:
  """Compiles a step.

  Args:
    traced: the step, a `jax.stages.Traced`.
    devices: for which it was traced; they need not be there.
  """
  on_cpu = devices.devices.flat[0].platform == "cpu"
  options = _QUICKLY if on_cpu else None
  try:
    compiled = traced.lower().compile(compiler_options=options)
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return Peak(bytes_said(str(error)), refused=True)
  return Peak(peak_bytes(compiled.memory_analysis()))


def bytes_said(error: str) -> int:
  """The first number of bytes in what a compiler says, "40.25G" for one."""
  found = re.search(r"([0-9.]+)([KMGT])\b", error)
  if not found:
    return 0
  return int(float(found[1]) * 1024 ** (1 + "KMGT".index(found[2])))


def peak_bytes(analysis: Any) -> int:
  """What a compiled program holds at a time, on one device, itself included.

  Args:
    analysis: of a `jax.stages.Compiled`, or None, where a compiler does not
      say.
  """
  if analysis is None:
    return 0
  return (
    analysis.argument_size_in_bytes
    + analysis.output_size_in_bytes
    - analysis.alias_size_in_bytes
    + analysis.temp_size_in_bytes
    + analysis.generated_code_size_in_bytes
  )
