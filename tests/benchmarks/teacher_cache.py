"""What a step of kd costs when the teacher's answers are read, not asked for.

  python -m tests.benchmarks.teacher_cache [--quick]

The two steps are compiled first and then take turns in one process, so that a
machine whose speed drifts treats them alike; a ratio is taken within its round.
A micro student learns from a mini teacher and from one of T5 1.1's base size,
from rows of 32 and of 128 tokens, none of them padding.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from augdistill import prng
from augdistill.models.networks import network
from augdistill.models.sizes import enct5_config
from augdistill.training.optimizers import make_optimizer
from augdistill.training.policies import build_policy
from augdistill.training.step import TrainState, jitted_step
from augdistill.types import Batch, Lexicon, TaskKind

# Teacher -> rows of a step: a CPU takes seconds for a few of base's.
ROWS = {"mini": 64, "base": 8}
LENGTHS = (32, 128)
VOCABULARY, CLASSES = 2200, 20
STEPS = 4  # of each kind in a round


class Figure(NamedTuple):
  """What was measured of one teacher and length.

  Attributes:
    name: which.
    online: seconds of a step that asks the teacher, the median over rounds.
    ratio: of a step that reads its answers to one that asks, the median.
    lowest: of the rounds.
    highest: likewise.
  """

  name: str
  online: float
  ratio: float
  lowest: float
  highest: float


def make_runs(teacher: str, length: int) -> dict[str, Callable[[], object]]:
  """Some steps that ask the teacher ("online"), and some that read."""
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
    "online": batch,
    "cached": batch._replace(answers=jnp.zeros((rows, CLASSES))),
  }

  def runner(batch: Batch) -> Callable[[], object]:
    params = jax.jit(student.init)(key)
    states = [TrainState(jnp.int32(0), params, optimizer.init(params))]

    def run() -> object:
      state = states.pop()
      for _ in range(STEPS):
        lexicon = Lexicon(producible=words, protected=~words)
        state, _ = step(state, teacher_params, lexicon, batch, key)
      states.append(jax.block_until_ready(state))
      return state.step

    return run

  return {name: runner(batch) for name, batch in batches.items()}


def _seconds(
  runs: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
  """Seconds of each run, by round, taking turns."""
  for run in runs.values():
    run()  # Compiles.
  seconds = {name: [] for name in runs}
  for _ in range(rounds):
    for name, run in runs.items():
      begin = time.perf_counter()
      run()
      seconds[name].append(time.perf_counter() - begin)
  return seconds


def measure(quick: bool) -> list[Figure]:
  """The figures.

  Args:
    quick: the mini teacher alone, and three rounds.
  """
  figures = []
  for teacher in ("mini",) if quick else ROWS:
    for length in LENGTHS:
      runs = make_runs(teacher, length)
      seconds = _seconds(runs, rounds=3 if quick else 7)
      ratios = [
        cached / online
        for cached, online in zip(
          seconds["cached"], seconds["online"], strict=True
        )
      ]
      figures.append(
        Figure(
          f"{teacher}, {ROWS[teacher]} rows of {length} tokens",
          statistics.median(seconds["online"]) / STEPS,
          *(statistics.median(ratios), min(ratios), max(ratios)),
        )
      )
  return figures


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--quick", action="store_true")
  args = parser.parse_args()
  print(f"{'ms online':>9}  {'cached':>6}  {'lowest':>6}  {'highest':>7}")
  for figure in measure(args.quick):
    print(
      f"{1e3 * figure.online:9.1f}  {figure.ratio:6.2f}  {figure.lowest:6.2f}  "
      f"{figure.highest:7.2f}  {figure.name}"
    )


if __name__ == "__main__":
  main()
