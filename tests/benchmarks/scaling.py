"""How the time of a step grows with rows, tokens and the vocabulary.

The base is the quickstart's step: a mini teacher, a micro student, 64 rows of
32 tokens. Only the projection and the optimizer read the whole vocabulary.
"""

import dataclasses

from augdistill.training.mesh import make_mesh
from tests.benchmarks.made_up_step import Sizes, runner
from tests.benchmarks.turns import Figure, figure, taking_turns

METHODS = ("kd", "kd+augpro_mix+augpro_fgsm")
STEPS = 10  # in a round
OTHERS = {
  "rows": (16, 128, 256),
  "length": (16, 64, 128),
  "vocab_size": (4096, 8192, 32128),
}


def measure(quick: bool) -> list[Figure]:
  """The step of both methods at every size, against that at the base."""
  if quick:
    others = {axis: sizes[:1] for axis, sizes in OTHERS.items()}
    return figures_of(Sizes(), others, METHODS[:1], 2)
  return figures_of(Sizes(), OTHERS, METHODS, STEPS)


def figures_of(
  base: Sizes,
  others: dict[str, tuple[int, ...]],
  methods: tuple[str, ...],
  steps: int,
) -> list[Figure]:
  """The step at other sizes of one axis each, against that at the base.

  Args:
    base: the reference.
    others: a field of `Sizes` -> what it is in the place of the base's.
    methods: whose steps.
    steps: of each in a round.
  """
  devices = make_mesh()
  figures = []
  for method in methods:
    reference = f"{method}, {_of(base)}"
    runs = {reference: runner(base, method, steps, devices)}
    notes = {}
    for axis, values in others.items():
      for value in values:
        sizes = dataclasses.replace(base, **{axis: value})
        name = f"{method}, {_of(sizes)}"
        times = value / getattr(base, axis)
        notes[name] = f"{times:.3g} times the {axis.replace('_', ' ')}"
        runs[name] = runner(sizes, method, steps, devices)
    seconds = taking_turns(runs)
    figures += [
      figure(seconds, name, reference, per=steps, note=note)
      for name, note in notes.items()
    ]
  return figures


def _of(sizes: Sizes) -> str:
  return f"{sizes.rows} x {sizes.length}, V {sizes.vocab_size:,}"
