"""Steps of a method at any size, on tokens that are drawn at random."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from augdistill import prng
from augdistill.data.vocabulary import PAD_ID
from augdistill.models.enct5 import enct5
from augdistill.models.precision import cast_matrices
from augdistill.models.sizes import enct5_config
from augdistill.training import mesh
from augdistill.training.abstract import Job
from augdistill.training.lookups import with_lookups
from augdistill.training.optimizers import make_optimizer
from augdistill.training.policies import build_policy
from augdistill.training.step import TrainState, jitted_step
from augdistill.types import Batch, Lexicon, TaskKind


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How large a step is.

  Attributes:
    student: a name of `augdistill.models.sizes`.
    teacher: another one.
    rows: B.
    length: L; no position is padding.
    vocab_size: V.
    classes: C.
    dtype: of activations and the teacher's matrices.
    optimizer: a name of `augdistill.training.optimizers`.
  """

  student: str = "micro"
  teacher: str = "mini"
  rows: int = 64
  length: int = 32
  vocab_size: int = 2200
  classes: int = 20
  dtype: str = "float32"
  optimizer: str = "adamw"

  def __str__(self):
    return (
      f"{self.teacher} teaches {self.student}, {self.rows} x {self.length}, "
      f"V {self.vocab_size:,}, {self.dtype}"
    )

  def job(self) -> Job:
    """What decides what the step is."""
    networks = [
      enct5(enct5_config(size, self.vocab_size, self.classes, dtype=self.dtype))
      for size in (self.student, self.teacher)
    ]
    return Job(
      *networks,
      make_optimizer(self.optimizer, num_steps=10_000),
      self.rows,
      self.length,
      self.vocab_size,
      teacher_dtype=self.dtype,
    )


def random_batch(sizes: Sizes) -> Batch:
  """Rows of tokens that are all alike to the model."""
  draw = np.random.default_rng(0)
  shape = (sizes.rows, sizes.length)
  # From 3 on: below are padding, end and unknown.
  tokens = draw.integers(3, sizes.vocab_size, shape, np.int32)
  labels = draw.integers(0, sizes.classes, sizes.rows)
  return Batch(
    tokens=tokens,
    mask=np.ones(shape, bool),
    label=np.eye(sizes.classes, dtype=np.float32)[labels],
    has_label=np.ones(sizes.rows, bool),
    weight=np.ones(sizes.rows, np.float32),
    example_id=np.arange(sizes.rows, dtype=np.int32),
  )


def runner(
  sizes: Sizes, method: str, steps: int, devices: Mesh
) -> Callable[[], TrainState]:
  """What takes so many steps of a method, its arrays placed on devices.

  Args:
    sizes: of the step.
    method: one that does not alternate.
    steps: how many.
    devices: on which.
  """
  job = sizes.job()
  policy = build_policy(method, TaskKind.CLASSES)
  step = jitted_step(
    optimizer=job.optimizer,
    student=job.student,
    teacher=job.teacher,
    method=policy.methods[0],
  )
  whole = mesh.replicated(devices)

  def init(key):
    params = job.student.init(key)
    return TrainState(jnp.int32(0), params, job.optimizer.init(params))

  places = mesh.state_shardings(job.student, job.optimizer, devices)
  states = [jax.jit(init, out_shardings=places)(prng.run_key(0))]
  teacher_params = jax.jit(
    lambda key: cast_matrices(job.teacher.init(key), sizes.dtype),
    out_shardings=mesh.param_shardings(job.teacher, devices),
  )(prng.run_key(1))
  ids = np.arange(sizes.vocab_size)
  lexicon = Lexicon(producible=ids > 2, protected=ids == PAD_ID)
  lexicon = mesh.place(lexicon, whole)
  if policy.needs_teacher:  # As a run does.
    its = policy.methods, job.teacher, teacher_params
    lexicon = mesh.place(with_lookups(lexicon, *its), whole)
  fixed = (
    teacher_params,
    lexicon,
    mesh.place_batch(random_batch(sizes), devices),
    mesh.place(prng.run_key(0), whole),
  )

  def run() -> TrainState:
    state = states.pop()
    for _ in range(steps):
      state, _ = step(state, *fixed)
    states.append(state)
    return state

  return run
