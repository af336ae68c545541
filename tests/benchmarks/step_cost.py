"""What a step of each method costs, as a ratio to the first one's.

  python tests/benchmarks/step_cost.py [--rounds N] [METHOD ...]

Methods are compiled first and then take turns in one process, so that a machine
whose speed drifts treats them alike: a round is so many steps of every method,
and a ratio is taken within its round. Of many methods, some at a time do so,
each time beside the first one, since a process has room for so many programs
only. Sizes and data are those of the
quickstart: a micro student, a mini teacher, 64 rows of the help-desk data.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from augdistill import prng
from augdistill.data.batches import train_batches
from augdistill.data.load import DataConfig, load_data
from augdistill.models.enct5 import enct5
from augdistill.models.projected import with_projections
from augdistill.models.sizes import enct5_config
from augdistill.training.optimizers import make_optimizer
from augdistill.training.policies import build_policy
from augdistill.training.step import TrainState, train_step
from augdistill.types import Batch, TaskKind

METHODS = ["kd", "kd+augpro_mix", "kd+augpro_fgsm", "kd+augpro_mix+augpro_fgsm"]
STEPS = 30  # of each method in a round
LENGTH = 32  # tokens of a row, padding included
AT_A_TIME = 8  # methods beside the first


def with_rewrites(batch: Batch, copies: int = 4) -> Batch:
  """The batch with its own texts as rewrites: they cost what others would."""
  return batch._replace(
    rewrites=jax.tree.map(lambda x: np.repeat(x[None], copies, axis=0), batch)
  )


def make_runner() -> Callable[[str], Callable[[], float]]:
  """Method -> what takes steps of it, and returns the seconds of one."""
  data = load_data(DataConfig(task="helpdesk", max_length=LENGTH))
  shape = functools.partial(
    enct5_config,
    vocab_size=data.vocab.size,
    num_outputs=data.task.num_outputs,
  )
  student, teacher = enct5(shape("micro")), enct5(shape("mini"))
  lexicon = jax.device_put(data.vocab.lexicon)
  teacher_params = jax.jit(teacher.init)(prng.run_key(1))
  optimizer = make_optimizer(learning_rate=1e-3, num_steps=10_000)
  # Of one length, so that a method is compiled once.
  batch_at = train_batches(data.train, 64, seed=0, length=LENGTH)
  batches = [jax.device_put(with_rewrites(batch_at(i))) for i in range(STEPS)]

  def runner(method: str) -> Callable[[], float]:
    policy = build_policy(method, TaskKind.CLASSES)
    learner = student
    if policy.needs_projections:
      learner = with_projections(student, shape("mini").emb_dim)
    steps = [
      jax.jit(
        functools.partial(
          train_step,
          optimizer=optimizer,
          student=learner,
          teacher=teacher,
          method=method,
        ),
        donate_argnums=0,
      )
      for method in policy.methods
    ]
    params = jax.jit(learner.init)(prng.run_key(0))
    states = [TrainState(jnp.int32(0), params, optimizer.init(params))]

    def run() -> float:
      begin = time.perf_counter()
      state = states.pop()
      for i, batch in enumerate(batches):
        step = steps[policy.choose(0, i)]
        state, _ = step(state, teacher_params, lexicon, batch, prng.run_key(0))
      states.append(jax.block_until_ready(state))
      return (time.perf_counter() - begin) / len(batches)

    return run

  return runner


def taking_turns(
  runs: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, list[float]]:
  """Seconds of a step of each method, by round."""
  for run in runs.values():
    run()  # Compiles every shape.
  seconds = {method: [] for method in runs}
  for _ in range(rounds):
    for method, run in runs.items():
      seconds[method].append(run())
  return seconds


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rounds", type=int, default=12)
  parser.add_argument("methods", nargs="*", default=METHODS)
  args = parser.parse_args()
  runner = make_runner()
  first, *others = dict.fromkeys(args.methods)
  print(f"{args.rounds} rounds of {STEPS} steps, {jax.devices()}")
  print(f"{'ms/step':>8}  {'ratio':>6}  {'lowest':>6}  {'highest':>7}  method")
  for start in range(0, max(len(others), 1), AT_A_TIME):
    methods = [first, *others[start : start + AT_A_TIME]]
    seconds = taking_turns({m: runner(m) for m in methods}, args.rounds)
    jax.clear_caches()
    for method in methods[bool(start) :]:
      ratios = [
        a / b for a, b in zip(seconds[method], seconds[first], strict=True)
      ]
      print(
        f"{1e3 * statistics.median(seconds[method]):8.1f}  "
        f"{statistics.median(ratios):6.2f}  {min(ratios):6.2f}  "
        f"{max(ratios):7.2f}  {method}",
        flush=True,
      )


if __name__ == "__main__":
  main()
