"""Weights as they are written in a method: numbers and schedules."""

from typing import Any

from augdistill.augment.grammar import Call, call_factory, written
from augdistill.errors import UsageError
from augdistill.training.schedules import ramp
from augdistill.types import Schedule


def weight_schedule(weight: float | Call) -> Schedule:
  """A weight from a number, or from ramp(start, end, steps).

  Raises:
    ValueError: if it is negative, or no such schedule.
  """
  if not isinstance(weight, Call):
    if weight < 0:
      raise ValueError(f"a weight must be >= 0, got {weight:g}")
    return weight
  keys = ("start", "end", "steps")
  whole = not weight.kwargs and len(weight.args) == len(keys)
  if weight.name != "ramp" or not whole or weight.copies > 1:
    raise ValueError(
      f"a weight's schedule must read ramp(start, end, steps), got {weight}"
    )
  named = dict(zip(keys, weight.args, strict=True))
  schedule = call_factory(Call("ramp", kwargs=named), ramp, "schedule")
  if min(named["start"], named["end"]) < 0:
    raise ValueError(f"a weight must be >= 0, got {weight}")
  return schedule


def read_weight(where: str, key: str, value: Any) -> Schedule:
  """A weight as a view or a term has it.

  Args:
    where: names the view or the term, for errors.
    key: the weight's own name.
    value: as parsed.

  Raises:
    UsageError: as `weight_schedule`, or if `value` is neither a number nor a
      schedule.
  """
  if isinstance(value, bool) or not isinstance(value, int | float | Call):
    raise UsageError(
      f"{where}: {key} must be a number or a schedule, got {written(value)!r}"
    )
  try:
    return weight_schedule(value if isinstance(value, Call) else float(value))
  except ValueError as error:
    raise UsageError(f"{where}: {error}") from error
