"""What a step of kd costs when the teacher's answers are read, not asked for.

A micro student learns from a mini teacher and from one of T5 1.1's base size,
from rows of 32 and of 128 tokens, none of them padding.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from augdistill import prng
from augdistill.models.networks import network
from augdistill.models.sizes import enct5_config
from augdistill.training.optimizers import make_optimizer
from augdistill.training.policies import build_policy
from augdistill.training.step import TrainState, jitted_step
from augdistill.types import Batch, Lexicon, TaskKind
from tests.benchmarks.turns import Figure, ratio

# Teacher -> rows of a step: a CPU takes seconds for a few of base's.
ROWS = {"mini": 64, "base": 8}
LENGTHS = (32, 128)
VOCABULARY, CLASSES = 2200, 20
STEPS = 4  # of each kind in a round


def make_runs(teacher: str, length: int) -> dict[str, Callable[[], object]]:
  """Some steps that read the teacher's answers, and some that ask."""
  shape = functools.partial(
    enct5_config, vocab_size=VOCABULARY, num_outputs=CLASSES
  )
  student, its = network(shape("micro")), network(shape(teacher))
  teacher_params = jax.jit(its.init)(prng.run_key(1))
  optimizer = make_optimizer(learning_rate=1e-3, num_steps=10_000)
  step = jitted_step(
    optimizer=optimizer,
    student=student,
    teacher=its,
    method=build_policy("kd", TaskKind.CLASSES).methods[0],
    teacher_dropout=False,
  )
  rows, key = ROWS[teacher], prng.run_key(0)
  words = jnp.ones(VOCABULARY, bool)
  batch = Batch(
    tokens=jax.random.randint(key, (rows, length), 3, VOCABULARY),
    mask=jnp.ones((rows, length), bool),
    label=jax.nn.one_hot(jnp.arange(rows) % CLASSES, CLASSES),
    has_label=jnp.ones(rows, bool),
    weight=jnp.ones(rows),
    example_id=jnp.arange(rows, dtype=jnp.int32),
  )
  batches = {
    "answers read": batch._replace(answers=jnp.zeros((rows, CLASSES))),
    "teacher asked": batch,
  }

  def runner(batch: Batch) -> Callable[[], object]:
    params = jax.jit(student.init)(key)
    states = [TrainState(jnp.int32(0), params, optimizer.init(params))]

    def run() -> object:
      state = states.pop()
      for _ in range(STEPS):
        lexicon = Lexicon(producible=words, protected=~words)
        state, _ = step(state, teacher_params, lexicon, batch, key)
      states.append(state)
      return state.step

    return run

  return {name: runner(batch) for name, batch in batches.items()}


def measure(quick: bool) -> list[Figure]:
  """The figures; of the mini teacher alone if quick."""
  return [
    ratio(
      make_runs(teacher, length),
      per=STEPS,
      note=f"{teacher} teacher, {ROWS[teacher]} rows of {length} tokens",
    )
    for teacher in (("mini",) if quick else ROWS)
    for length in LENGTHS
  ]
