"""Our side of the comparison: `python -m tests.benchmarks.our_worker FOLDER`.

The folder has work.json and rows.npz, as of `tests.benchmarks.torch_step`.
"""

import functools
import json
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from augdistill import prng
from augdistill.checkpoints.flat import named_leaves
from augdistill.checkpoints.t5_names import to_transformers
from augdistill.data.answers import Answers
from augdistill.data.batches import train_batches
from augdistill.data.dataset import Examples
from augdistill.evaluation.predict import predict_split
from augdistill.models.enct5 import EncT5Config, enct5
from augdistill.training import freed_memory
from augdistill.training.lookups import with_lookups
from augdistill.training.methods import build_method
from augdistill.training.optimizers import make_optimizer
from augdistill.training.phases import draw_all_partners
from augdistill.training.step import TrainState, jitted_step
from augdistill.types import Lexicon, TaskKind, clean_view
from tests.benchmarks import worker

SEED = 0
ROWS = ("tokens", "offsets", "label", "has_label", "example_id")


class Side:
  """What the worker answers."""

  def __init__(self, folder: str):
    folder = pathlib.Path(folder)
    self.work = json.loads((folder / "work.json").read_text())
    with np.load(folder / "rows.npz") as rows:
      self.examples = Examples(*(rows[name] for name in ROWS), read_texts=list)
      self.lexicon = Lexicon(
        jnp.asarray(rows["producible"]), jnp.asarray(rows["protected"])
      )
    self.key = prng.run_key(SEED)
    # A constant learning rate: a schedule costs nothing on either side.
    self.optimizer = make_optimizer(decay="constant", warmup_fraction=0.0)
    self.teacher_params = self.init("teacher")
    for who in ("student", "teacher"):
      weights = to_transformers(
        dict(named_leaves(jax.device_get(self.init(who))))
      )
      save_file(weights, folder / f"{who}.safetensors")

  def network(self, who: str, **changes):
    return enct5(EncT5Config(**self.work[who] | changes))

  def init(self, who: str):
    return jax.jit(self.network(who).init)(prng.stream(self.key, who))

  def state(self) -> TrainState:
    params = self.init("student")
    return TrainState(jnp.int32(0), params, self.optimizer.init(params))

  def step(self, method: str, teacher_dropout: bool = True, **changes):
    """(state, batch) -> (state, metrics), as of `cli.fit.make_step`."""
    method = build_method(method, TaskKind.CLASSES)
    teacher, params = self.network("teacher"), self.teacher_params
    lexicon = with_lookups(self.lexicon, [method], teacher, params)
    step = jitted_step(
      optimizer=self.optimizer,
      student=self.network("student", **changes),
      teacher=teacher,
      method=method,
      teacher_dropout=teacher_dropout,
      num_microbatches=1,
    )
    return lambda state, batch: step(state, params, lexicon, batch, self.key)

  def batches(self, length: int | None, cached: bool = False):
    size = self.work["batch_size"]
    answers = self.kept_answers() if cached else None
    return train_batches(
      self.examples, size, SEED, answers=answers, length=length
    )

  @functools.cache  # noqa: B019  (the process ends with it)
  def kept_answers(self) -> Answers:
    """The teacher's answers to all rows, without dropout, as a cache's."""
    its = self.network("teacher"), self.teacher_params
    logits = predict_split(*its, self.examples, self.work["batch_size"])
    rows = np.arange(len(self.examples))
    return Answers([logits[:, None]], np.zeros_like(rows), rows)

  @functools.cache  # noqa: B019
  def training(
    self, method: str, length: int | None, cached: bool = False
  ) -> list:
    """[step, state] of a training that goes on."""
    return [self.step(method, teacher_dropout=not cached), self.state()]

  def train(
    self, method: str, length: int | None, steps: int, cached: bool = False
  ) -> None:
    """Takes so many more steps of a training."""
    training = self.training(method, length, cached)
    batch_at, (step, state) = self.batches(length, cached), training
    for number in range(int(state.step), int(state.step) + steps):
      state, _ = step(state, batch_at(number))
    training[1] = jax.block_until_ready(state)
    freed_memory.keep()  # As a run does after its first step.

  def compile(
    self, method: str, length: int | None, steps: int, cached: bool = False
  ) -> float:
    """Compiles what so many steps need; returns the seconds.

    With `cached` the teacher is asked, too.
    """
    begin, batch_at = time.perf_counter(), self.batches(length, cached)
    step, _ = self.training(method, length, cached)
    of_length = {
      batch.tokens.shape: batch for batch in map(batch_at, range(steps))
    }
    for batch in of_length.values():
      jax.block_until_ready(step(self.state(), batch))
    freed_memory.keep()  # As a run does after its first step.
    return time.perf_counter() - begin

  def answers(self, method: str, length: int | None, steps: int) -> dict:
    """What both sides must agree on, without dropout.

    Returns:
      "seen": of each step's batch the rows, their length, and their partners;
      "student" and "teacher": logits of the first batch, [B, C]; "losses": of
      each step.
    """
    made = build_method(method, TaskKind.CLASSES)
    step = self.step(method, teacher_dropout=False, dropout_rate=0.0)
    state, batch_at = self.state(), self.batches(length)
    said = {"seen": [], "losses": []}
    inputs = clean_view(batch_at(0)).student
    for who, params in (
      ("student", state.params),
      ("teacher", self.teacher_params),
    ):
      logits = jax.jit(self.network(who).forward)(params, inputs).logits
      said[who] = logits[0].tolist()
    for number in range(steps):
      batch, key = batch_at(number), prng.at_step(self.key, number)
      drawn = draw_all_partners(made, jax.tree.map(jnp.asarray, batch), key)
      partners = [p[0].tolist() for p in drawn.values()]
      said["seen"].append(
        {
          "rows": batch.example_id.tolist(),
          "length": batch.tokens.shape[1],
          "partner": partners[0] if partners else [],
        }
      )
      state, metrics = step(state, batch)
      total, weight = metrics["loss"]
      said["losses"].append(float(total / weight))
    return said


def main() -> None:
  cores = worker.stay(sys.argv[2])  # JAX has a thread for each.
  freed_memory.in_first_thread()  # As a run does.
  side = Side(sys.argv[1])
  worker.serve(
    {
      "train": side.train,
      "answers": side.answers,
      "compile": side.compile,
      "threads": lambda: cores,
    }
  )


if __name__ == "__main__":
  main()
