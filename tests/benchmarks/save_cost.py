"""What saving costs a run: how long it blocks, and how much it slows steps.

  python tests/benchmarks/save_cost.py [--rounds N] [--model NAME]

The state is that of a T5 1.1 encoder with AdamW; a step is one of `ft` on 8
rows of 32 tokens. A round takes steps without a save, then saves as a run does
and takes steps until the save is on disk, then saves and waits. On a CPU the
background has to share the cores with the steps; on an accelerator it has not.
"""

import argparse
import functools
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp

from augdistill import prng
from augdistill.checkpoints.store import Store
from augdistill.data.batches import train_batches
from augdistill.data.load import DataConfig, load_data
from augdistill.models.enct5 import enct5
from augdistill.models.sizes import enct5_config
from augdistill.training.methods import build_method
from augdistill.training.optimizers import make_optimizer
from augdistill.training.step import TrainState, jitted_step
from augdistill.types import TaskKind

STEPS = 5


def main() -> None:
  """Prints the medians, and their ratios."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--model", default="small")
  args = parser.parse_args()
  data = load_data(DataConfig(task="helpdesk", max_length=32))
  shape = enct5_config(args.model, data.vocab.size, data.task.num_outputs)
  student, optimizer = enct5(shape), make_optimizer(num_steps=10_000)
  batch = train_batches(data.train, 8, seed=0, length=32)(0)
  method = build_method("ft", TaskKind.CLASSES)
  step = jitted_step(
    optimizer=optimizer, student=student, teacher=None, method=method
  )
  params = jax.jit(student.init)(prng.run_key(0))
  state = TrainState(jnp.int32(0), params, optimizer.init(params))
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  step = functools.partial(
    step,
    teacher_params=None,
    lexicon=jax.device_put(data.vocab.lexicon),
    batch=batch,
    key=prng.run_key(0),
  )

  def take(state):
    state, _ = step(state)
    return jax.block_until_ready(state)

  state = take(state)
  alone, beside, blocked, whole = [], [], [], []
  with tempfile.TemporaryDirectory() as folder, Store(folder, keep=1) as store:
    for number in range(args.rounds):
      begin = time.perf_counter()
      for _ in range(STEPS):
        state = take(state)
      alone.append((time.perf_counter() - begin) / STEPS)
      begin, taken = time.perf_counter(), 0
      store.save(2 * number, state)
      blocked.append(time.perf_counter() - begin)
      after = time.perf_counter()
      while store.latest_step() != 2 * number:
        state, taken = take(state), taken + 1
      beside.append((time.perf_counter() - after) / taken)
      store.wait()
      begin = time.perf_counter()
      store.save(2 * number + 1, state)
      store.wait()
      whole.append(time.perf_counter() - begin)
  of = statistics.median
  slower = [b / a for b, a in zip(beside, alone, strict=True)]
  print(
    f"{args.model}, {size / 1e9:.2f} GB, {args.rounds} rounds: a save blocks "
    f"{of(blocked):.2f} s, {of(blocked) / of(whole):.2f} of the "
    f"{of(whole):.2f} s that it takes alone; a step beside it takes "
    f"{of(slower):.2f} times the {of(alone):.2f}"
    " s of one without"
  )


if __name__ == "__main__":
  main()
