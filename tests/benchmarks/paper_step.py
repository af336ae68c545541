"""AugPro's step at its full size: time, and how much of the device it uses.

A large EncT5 teaches a small one, 512 rows of 128 tokens, in bfloat16. Two
shares say how much of a device is used, both from the step's products as
counted on its jaxpr: of what its maker publishes, and of what one large product
of two matrices reaches beside it. The paper's table 3 has minutes per 1,000
steps on "8 TPU v3 slices".
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np

from augdistill.training import abstract
from augdistill.training.chips import CHIPS, Chip
from augdistill.training.flops import Costs, costs_of
from augdistill.training.mesh import make_mesh
from augdistill.training.policies import build_policy
from augdistill.types import TaskKind
from tests.benchmarks.made_up_step import Sizes, runner
from tests.benchmarks.turns import Figure, Missing, figure, taking_turns

FULL = Sizes(
  student="small",
  teacher="large",
  rows=512,
  length=128,
  vocab_size=32128,
  classes=2,
  dtype="bfloat16",
  optimizer="adafactor",
)
# Minutes per 1,000 steps, the paper's table 3.
PAPER = {
  "kd": 1.68,
  "kd+knn": 4.57,
  "kd+mixup": 3.48,
  "kd+augpro_mix": 3.48,
  "kd+fgsm": 3.24,
  "kd+augpro_fgsm": 3.24,
}
WIDTH = 8192  # of the matrices of the large product


def measure(quick: bool) -> list[Figure]:
  """The paper's methods, where there is an accelerator.

  Raises:
    Missing: if there is none.
  """
  if jax.default_backend() == "cpu":
    raise Missing("a GPU or a TPU; on a CPU a step takes minutes")
  methods = ("kd", "kd+augpro_mix") if quick else tuple(PAPER)
  return figures_of(FULL, methods, steps=3 if quick else 10, width=WIDTH)


def figures_of(
  sizes: Sizes, methods: tuple[str, ...], steps: int, width: int
) -> list[Figure]:
  """What steps cost, and which shares of the device's speed they reach.

  Args:
    sizes: of the step.
    methods: whose steps, those of others against the first.
    steps: of each in a round.
    width: of the matrices of the large product.
  """
  devices = make_mesh()
  product = f"a product of {width} x {width}, {sizes.dtype}"
  runs = {m: runner(sizes, m, steps, devices) for m in methods}
  runs[product] = _product(width, sizes.dtype)
  seconds = taking_turns(runs)
  figures = []
  for method in methods:
    costs = _costs(sizes, method)
    minutes = np.median(seconds[method]) / steps * 1000 / 60
    note = f"{sizes}; {minutes:.3g} minutes per 1,000 steps"
    if method in PAPER:
      note += f", the paper's {PAPER[method]}"
    if method != methods[0]:
      figures.append(figure(seconds, method, methods[0], per=steps, note=note))
    count = f"{sum(costs.by_dtype.values()) / 1e12:.3g} TFLOP a step"
    for at, ideal in _ideals(costs, seconds[product], width).items():
      name = f"{method}, its products alone at {at}"
      shares = {name: [steps * s for s in ideal], method: seconds[method]}
      figures.append(
        figure(shares, name, method, per=steps, note=f"{note}; {count}")
      )
  return figures


def _product(width: int, dtype: str):
  factor = jnp.ones((width, width), dtype)
  multiply = jax.jit(jnp.matmul)
  return lambda: multiply(factor, factor)


def _costs(sizes: Sizes, method: str) -> Costs:
  policy = build_policy(method, TaskKind.CLASSES)
  job = dataclasses.replace(sizes.job(), neighbours=policy.num_neighbours)
  given = abstract.arguments(job, make_mesh())
  return costs_of(abstract.trace(job, policy.methods[0], given).jaxpr)


def _ideals(
  costs: Costs, product: list[float], width: int
) -> dict[str, list[float]]:
  """Seconds of a step's products by round, by the speed that they would have.

  Args:
    costs: of a step.
    product: seconds of the large product, by round.
    width: of its matrices.
  """
  count, total = len(jax.devices()), sum(costs.by_dtype.values())
  ideals = {
    "the speed of a large one": [
      total * s / (2 * width**3) / count for s in product
    ]
  }
  chip = _chip(jax.devices()[0].device_kind)
  if chip is not None:
    needed = sum(n / chip.peak(t) for t, n in costs.by_dtype.items()) / count
    ideals["the published peak"] = [needed] * len(product)
  return ideals


def _chip(device_kind: str) -> Chip | None:
  for chip in CHIPS.values():
    if re.search(chip.pattern, device_kind, re.IGNORECASE):
      return chip
  return None
