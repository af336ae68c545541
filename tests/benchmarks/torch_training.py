"""The training of a student on BANKING77 in PyTorch, as a ratio to ours.

Seconds of the whole training, whose steps both sides take in turns, a share of
them in each round. Ours pads a batch to the length of its bucket; PyTorch's to
its longest text, by a collator, or to 128 tokens, as the usual recipe of
transformers' examples has it. Ours is compiled first, once for each length,
and what that takes is added in figures of their own, a share in each round.
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
  ROUNDS,
  Figure,
  at_least,
  figure,
  taking_turns,
)

METHODS = ("kd", "kd+augpro_mix+augpro_fgsm")
BATCH_SIZE = 64
RECIPE = 128  # tokens, the usual max_length
BOUND = at_least(4.0)
STEPS = 170  # of a round: with seven of them, the 1,200 steps of README.md


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
      compilation = ours.ask(
        "compile", method=method, length=None, steps=steps * (ROUNDS + 1)
      )
      seconds = taking_turns(
        {
          "ours": functools.partial(ours.ask, "train", **what, length=None),
          "longest": functools.partial(
            theirs.ask, "train", **what, length=None
          ),
          "128": functools.partial(theirs.ask, "train", **what, length=RECIPE),
        }
      )
      figures += _figures(method, seconds, compilation, steps)
  return figures


def _figures(
  method: str,
  seconds: dict[str, list[float]],
  compilation: float,
  steps: int,
) -> list[Figure]:
  """A method's figures."""
  share = compilation / len(seconds["ours"])
  compared = {
    "ours": seconds["ours"],
    "ours, compilation included": [s + share for s in seconds["ours"]],
  }
  note = (
    f"per step; {steps * len(seconds['ours'])} steps, compilation "
    f"{compilation:.1f} s; the same losses to {TOLERANCE:g}"
  )
  return [
    figure(
      compared | {f"PyTorch, {method}, padded to {side}": seconds[side]},
      *(f"PyTorch, {method}, padded to {side}", reference),
      per=steps,
      bound=BOUND,
      note=note,
    )
    for side in ("longest", "128")
    for reference in compared
  ]
