"""The training of a student on BANKING77 in PyTorch, as a ratio to ours.

Both sides take the steps of a training in turns. Ours pads a batch to the
length of its bucket; PyTorch's to its longest text, by a collator, or to 128
tokens, as the usual recipe of transformers' examples has it. Ours is compiled
before, once for each length that the whole training needs. What that takes is
added in figures of their own, to each step its share; so is, where the
teacher's answers are read, the time to ask for them, once for each text and
without dropout.
"""

import dataclasses
import functools

from augdistill.models.sizes import enct5_config
from tests.benchmarks import real_data
from tests.benchmarks.torch_step import (
  TOLERANCE,
  both_sides,
  check_same_work,
  need_torch,
)
from tests.benchmarks.turns import (
  Figure,
  at_least,
  figure,
  taking_turns,
)

METHODS = ("kd", "kd+augpro_mix+augpro_fgsm")
BATCH_SIZE = 64
RECIPE = 128  # tokens, the usual max_length
OURS = {"ours": {}, "ours with a teacher cache": {"cached": True}}
THEIRS = {"padded to the longest": None, "padded to 128": RECIPE}
BOUND = at_least(4.0)
STEPS = 24  # of a round
TRAINING = 1200  # steps of a whole training, as of README.md's


def measure(quick: bool) -> list[Figure]:
  """A training by every method.

  Args:
    quick: of `kd` alone, and of few steps.

  Raises:
    Missing: without torch, transformers, or the data.
    RunError: if the two sides would not do the same work.
  """
  need_torch()
  data = real_data.load("banking77", RECIPE)
  shape = functools.partial(
    enct5_config,
    vocab_size=data.vocab.size,
    num_outputs=data.task.num_outputs,
  )
  work = {
    "teacher": dataclasses.asdict(shape("mini")),
    "student": dataclasses.asdict(shape("micro")),
    "batch_size": BATCH_SIZE,
  }
  figures = []
  with both_sides(work, data.train, data.vocab.lexicon) as (ours, theirs):
    for method in METHODS[:1] if quick else METHODS:
      check_same_work(ours, theirs, method, None)
      steps = 4 if quick else STEPS
      what = {"method": method, "steps": steps}
      begun = {
        name: ours.ask(
          "compile", **what | how | {"steps": TRAINING}, length=None
        )
        for name, how in OURS.items()
      }
      runs = {
        name: functools.partial(ours.ask, "train", **what, **how, length=None)
        for name, how in OURS.items()
      } | {
        name: functools.partial(theirs.ask, "train", **what, length=length)
        for name, length in THEIRS.items()
      }
      figures += _figures(method, taking_turns(runs), begun, steps)
  return figures


def _figures(
  method: str,
  seconds: dict[str, list[float]],
  begun: dict[str, float],
  steps: int,
) -> list[Figure]:
  """A method's figures."""
  figures = []
  for theirs in THEIRS:
    for ours, first in begun.items():
      share = first * steps / TRAINING
      compared = {
        f"PyTorch, {method}, {theirs}": seconds[theirs],
        ours: seconds[ours],
        f"{ours}, all included": [s + share for s in seconds[ours]],
      }
      name, *references = compared
      note = (
        f"per step; {first:.1f} s before the first of {TRAINING:,}; the same "
        f"losses to {TOLERANCE:g}"
      )
      figures += [
        figure(compared, name, its, per=steps, bound=BOUND, note=note)
        for its in references
      ]
  return figures
