"""A run that is killed at any moment goes on as if it had not been.

The run is this file as a script: it saves after every step, so that a save is
under way nearly always, and the state is donated to the next step.
"""

import pathlib
import random
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from augdistill import prng
from augdistill.checkpoints.store import Store

NUM_STEPS = 40


def init_state():
  params = {f"w{i}": jnp.ones((128, 128)) for i in range(10)}
  return {"params": params, "step": jnp.int32(0)}


def train_step(state):
  key = prng.at_step(prng.run_key(0), state["step"])

  def update(name, w):
    noise = jax.random.normal(prng.stream(key, name), w.shape)
    return jnp.sin(w + noise)

  params = {name: update(name, w) for name, w in state["params"].items()}
  return {"params": params, "step": state["step"] + 1}


def train(directory):
  """Trains up to NUM_STEPS, from wherever the directory's run has got to."""
  step_fn = jax.jit(train_step, donate_argnums=0)
  with Store(directory, keep=2, best_metric="score") as store:
    state = init_state()
    if store.latest_step() is not None:
      state = store.restore(state)
    print("start", int(state["step"]), flush=True)
    while (step := int(state["step"])) < NUM_STEPS:
      state = step_fn(state)
      store.save(step + 1, state, {"score": -abs(step - 5)})
      print(step + 1, flush=True)


def kill_at(directory, step, delay):
  """Starts the run, and kills it `delay` seconds after it has reached step."""
  command = [sys.executable, __file__, str(directory)]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    start = int(process.stdout.readline().split()[1])
    while int(process.stdout.readline()) < step:
      pass
    time.sleep(delay)
    process.kill()
  return start


def test_a_run_killed_during_its_saves_ends_with_the_same_bits(tmp_path):
  expected = init_state()
  for _ in range(NUM_STEPS):
    expected = jax.jit(train_step)(expected)
  draw = random.Random(0)
  cut_short = 0
  for kills, kill_step in enumerate(range(1, NUM_STEPS - 4, 5), 1):
    start = kill_at(tmp_path, kill_step, draw.uniform(0, 0.1))
    assert start >= kill_step - 15  # it did not begin anew
    cut_short += any(tmp_path.glob("*-tmp*"))
    saved = Store(tmp_path).latest_step()
    assert saved is None or saved >= kill_step - 2
    if kills >= 3 and cut_short:
      break
  assert cut_short > 0, "no kill fell into a save: the test tests nothing"
  train(tmp_path)
  with Store(tmp_path) as store:
    assert store.latest_step() == NUM_STEPS
    actual = store.restore(init_state())
    assert store.best_step() is None or 6 in store.steps()
  for a, b in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


if __name__ == "__main__":
  train(pathlib.Path(sys.argv[1]))
