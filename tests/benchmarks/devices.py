"""A step on several devices, against the same step on one.

Fake devices of one CPU share its cores, so there the figure is what cutting
costs, and 1 is best; of real ones it is what they gain.
"""

import jax
import numpy as np

from augdistill.training.mesh import make_mesh
from tests.benchmarks.made_up_step import Sizes, runner
from tests.benchmarks.turns import Figure, Missing, figure, taking_turns

STEPS = 10  # in a round
METHOD = "kd+augpro_mix+augpro_fgsm"


def measure(quick: bool) -> list[Figure]:
  """All numbers of devices that are powers of two, rows and parameters cut."""
  return figures_of(Sizes(), 2 if quick else STEPS, 2 if quick else 8)


def figures_of(sizes: Sizes, steps: int, most: int) -> list[Figure]:
  """The step cut over 2, 4, ... devices.

  Args:
    sizes: of the step, whatever the number of devices.
    steps: in a round.
    most: devices.

  Raises:
    Missing: if there is one device only.
  """
  devices = jax.devices()
  if len(devices) < 2:
    raise Missing("two devices or more")
  reference = f"{METHOD}, 1 device"
  shapes = {}
  for power in range(1, int(np.log2(min(most, len(devices)))) + 1):
    count = 2**power
    shapes[f"{METHOD}, rows over {count} devices"] = count, f"{count}x1"
  shapes[f"{METHOD}, parameters over 2 devices"] = 2, "1x2"
  runs = {
    reference: runner(sizes, METHOD, steps, make_mesh("1x1", devices[:1]))
  }
  for name, (count, shape) in shapes.items():
    mesh = make_mesh(shape, devices[:count])
    runs[name] = runner(sizes, METHOD, steps, mesh)
  seconds = taking_turns(runs)
  return [
    figure(seconds, name, reference, per=steps, note=str(sizes))
    for name in shapes
  ]
