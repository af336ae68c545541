"""From what a step costs to memory, time and money, by published peaks."""

from typing import Any

from augdistill.training import abstract
from augdistill.training.abstract import Arguments, Peak
from augdistill.training.chips import Chip
from augdistill.training.flops import Costs

# Also a program itself, which TPUs keep in their memory.
TEMPORARY = "activations and gradients"


def memory(
  given: Arguments, peak: Peak | None, chip: Chip, compiler: str
) -> dict[str, Any]:
  """Bytes of a device, by what they are, and whether there is room for them.

  Args:
    given: the arguments of a step.
    peak: the most that a step holds at a time; None if that is not known.
    chip: the device.
    compiler: the kind of device that the step was compiled for.

  Returns:
    "bytes_per_device", by what they are; their "total"; what there is
    "of_a_device"; "fits", None where that is not known; and "compiled_for",
    None where the step was not compiled.
  """
  known = {
    "student's parameters": given.state.params,
    "optimizer's state": given.state.opt_state,
    "teacher's parameters": given.teacher_params,
    "batch and the rest": (given.state.step, given.lexicon, given.batch),
  }
  sizes = {n: abstract.bytes_on_a_device(tree) for n, tree in known.items()}
  if peak is not None:
    sizes[TEMPORARY] = max(peak.bytes - sum(sizes.values()), 0)
  total = sum(sizes.values())
  fits = total <= chip.memory and not (peak and peak.refused)
  return {
    "bytes_per_device": sizes,
    "total": total,
    "of_a_device": chip.memory,
    # A part may be too much already; that it fits, only the whole can say.
    "fits": fits if peak is not None or not fits else None,
    "compiled_for": None if peak is None else compiler,
  }


def time(
  costs: Costs,
  chip: Chip,
  devices: int,
  utilisation: float,
  num_steps: int,
  price_per_hour: float | None = None,
) -> dict[str, Any]:
  """How long a step and a run take, and what a run costs.

    seconds = max(sum over types of FLOPs / peak, bytes / bandwidth)
              / devices / utilisation

  What devices tell each other is not counted.

  Args:
    costs: of a step, on all devices.
    chip: a device.
    devices: how many; they share the work equally.
    utilisation: the share of the peaks that is reached.
    num_steps: steps of the run.
    price_per_hour: of all devices together, or None.
  """
  computing = sum(n / chip.peak(t) for t, n in costs.by_dtype.items())
  moving = costs.moved / chip.bandwidth
  seconds = max(computing, moving) / devices / utilisation
  hours = seconds * num_steps / 3600
  return {
    "utilisation": utilisation,
    "limited_by": "products" if computing >= moving else "memory bandwidth",
    "seconds_per_step": seconds,
    "minutes_per_1000_steps": seconds * 1000 / 60,
    "hours": hours,
    "price_per_hour": price_per_hour,
    "price": None if price_per_hour is None else price_per_hour * hours,
  }
