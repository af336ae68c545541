"""A step in PyTorch with transformers, as a ratio to ours.

The same algorithm on the same cores: the two sides are processes that take
turns, each with as many threads as there are cores to it
(`tests.benchmarks.worker`), at equal shapes, padding included. What is
measured is the same work: with equal parameters and no dropout, both sides'
logits and their losses of a few steps must agree, or nothing is timed. There
is one difference: T5 shares a dropout mask between the positions of a text, as
ours do, and transformers draws one for each.
"""

import contextlib
import functools
import importlib.util
import json
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from augdistill.data.dataset import Examples
from augdistill.errors import RunError
from augdistill.types import Lexicon
from tests.benchmarks.turns import (
  Figure,
  Missing,
  at_least,
  figure,
  taking_turns,
)
from tests.benchmarks.worker import Worker, workers

METHODS = ("kd", "kd+augpro_mix", "kd+augpro_mix+augpro_fgsm")
OURS, THEIRS = "tests.benchmarks.our_worker", "tests.benchmarks.torch_worker"
BOUND = at_least(1.6)  # against eager PyTorch
TOLERANCE = 1e-4
NUM_OUTPUTS = 77

MINI = {"emb_dim": 192, "mlp_dim": 512, "num_heads": 6, "head_dim": 32}
MICRO = {"emb_dim": 64, "mlp_dim": 128, "num_heads": 4, "head_dim": 16}
SMALL = {"emb_dim": 512, "mlp_dim": 1024, "num_heads": 6, "head_dim": 64}
HALF = {"emb_dim": 256, "mlp_dim": 512, "num_heads": 4, "head_dim": 64}
# Teacher and student, the size of a batch, its length and steps of a round.
WORKS = {
  "quickstart": (
    MINI | {"num_layers": 3, "embedding_init": 0.1},
    MICRO | {"num_layers": 1, "embedding_init": 0.1},
    *(2200, 64, 32, 20),
  ),
  "t5-small": (
    SMALL | {"num_layers": 8},
    HALF | {"num_layers": 4},
    *(32128, 16, 64, 4),
  ),
}


def measure(quick: bool) -> list[Figure]:
  """A step of every method at both sizes.

  Args:
    quick: at the quickstart's alone, fewer steps, and without torch.compile.

  Raises:
    Missing: without torch and transformers.
    RunError: if the two sides would not do the same work.
  """
  need_torch()
  figures = []
  for name in ["quickstart"] if quick else WORKS:
    teacher, student, vocab_size, size, length, steps = WORKS[name]
    shapes = {"vocab_size": vocab_size, "num_outputs": NUM_OUTPUTS}
    work = {
      "teacher": teacher | shapes | {"dropout_rate": 0.1},
      "student": student | shapes | {"dropout_rate": 0.1},
      "batch_size": size,
    }
    with both_sides(work, *made_up(vocab_size, 8 * size, length)) as sides:
      for method in METHODS:
        check_same_work(*sides, method, length)
        figures += _figures(sides, name, method, length, steps, quick)
  return figures


def _figures(
  sides: list[Worker],
  name: str,
  method: str,
  length: int,
  steps: int,
  quick: bool,
) -> list[Figure]:
  """A method's figures at one size."""
  ours, theirs = sides
  steps = 2 if quick else steps
  what = {"method": method, "length": length, "steps": steps}
  train = {
    "ours": functools.partial(ours.ask, "train", **what),
    "PyTorch": functools.partial(theirs.ask, "train", **what),
  }
  if not quick:
    train["torch.compile"] = functools.partial(
      theirs.ask, "train", **what, compiled=True
    )
  seconds = taking_turns(train)
  return [
    figure(
      {f"{side}, {method}, {name}": its, "ours": seconds["ours"]},
      *(f"{side}, {method}, {name}", "ours"),
      per=steps,
      bound=BOUND if side == "PyTorch" else None,
      note=f"{length} tokens; the same logits and losses to {TOLERANCE:g}",
    )
    for side, its in seconds.items()
    if side != "ours"
  ]


def need_torch() -> None:
  """Raises Missing where there is no torch or no transformers."""
  for package in ("torch", "transformers"):
    if importlib.util.find_spec(package) is None:
      raise Missing(
        f"{package} is not installed: pip install --constraint "
        "launch/constraints.txt 'augdistill[bench]'"
      )


def made_up(
  vocab_size: int, num_rows: int, length: int
) -> tuple[Examples, Lexicon]:
  """Random texts of length / 2 to length tokens, each with an end."""
  draw = np.random.default_rng(0)
  lengths = draw.integers(length // 2, length, num_rows, endpoint=True)
  lengths[::8] = length  # The longest are there.
  offsets = np.concatenate([[0], np.cumsum(lengths)])
  tokens = draw.integers(3, vocab_size, offsets[-1], dtype=np.int32)
  tokens[offsets[1:] - 1] = 1
  classes = draw.integers(0, NUM_OUTPUTS, num_rows)
  special = np.arange(vocab_size) < 3
  return Examples(
    tokens=tokens,
    offsets=offsets,
    label=np.eye(NUM_OUTPUTS, dtype=np.float32)[classes],
    has_label=np.ones(num_rows, bool),
    example_id=np.arange(num_rows, dtype=np.int32),
    read_texts=list,
  ), Lexicon(producible=~special, protected=special)


@contextlib.contextmanager
def both_sides(
  work: Mapping[str, Any], rows: Examples, lexicon: Lexicon
) -> Iterator[list[Worker]]:
  """Our worker and PyTorch's, on the same rows and first parameters.

  Args:
    work: fields of `EncT5Config` of "teacher" and "student", and "batch_size".
    rows: the texts.
    lexicon: what may be put into them.

  Yields:
    The two.
  """
  with tempfile.TemporaryDirectory() as folder:
    (pathlib.Path(folder) / "work.json").write_text(json.dumps(work))
    np.savez(
      pathlib.Path(folder) / "rows.npz",
      tokens=rows.tokens,
      offsets=rows.offsets,
      label=rows.label,
      has_label=rows.has_label,
      example_id=np.arange(len(rows), dtype=np.int32),
      producible=np.asarray(lexicon.producible),
      protected=np.asarray(lexicon.protected),
    )
    with workers(folder, OURS, THEIRS) as sides:
      threads = [side.ask("threads") for side in sides]
      if threads[0] != threads[1]:
        raise RunError(f"both sides must have equal threads, got {threads}")
      yield sides


def check_same_work(
  ours: Worker,
  theirs: Worker,
  method: str,
  length: int | None,
  steps: int = 3,
) -> None:
  """Raises RunError unless both sides compute the same without dropout.

  Args:
    ours: our worker.
    theirs: the other one.
    method: of which the losses of some steps are compared.
    length: of a batch, as of `train_batches`.
    steps: how many.
  """
  mine = ours.ask("answers", method=method, length=length, steps=steps)
  other = theirs.ask("answers", method=method, seen=mine["seen"])
  for what in ("student", "teacher", "losses"):
    off = np.max(np.abs(np.subtract(mine[what], other[what])))
    if not off <= TOLERANCE:
      raise RunError(
        f"both sides must compute the same, and their {what} of {method} "
        f"differ by {off:.1e}, more than {TOLERANCE:g}: {mine[what]} and "
        f"{other[what]}"
      )
