"""From a method as written to the loss it stands for."""

from collections.abc import Mapping

from augdistill.augment.copies import repeat
from augdistill.augment.methods import (
  BASES,
  RECIPES,
  Call,
  Recipe,
  call_factory,
  parse,
)
from augdistill.errors import UsageError, suggest
from augdistill.losses.kinds import distance_term, label_term
from augdistill.losses.reweight import mean
from augdistill.training.schedules import ramp
from augdistill.types import Method, Schedule, TaskKind, WeightedView


def build_method(
  text: str, kind: TaskKind, recipes: Mapping[str, Recipe] = RECIPES
) -> Method:
  """The loss that a method stands for.

    ft:    weight * label
    kd:    label_weight * label + teacher_weight * distance
    views: weight * the terms of their recipe; under ft, the label alone

  The distance of a view is that of the base, temperature included.

  Args:
    text: the method, in the grammar of `augdistill.augment.methods`.
    kind: of the task, which decides what "label" and "distance" are.
    recipes: the views there are, by name.

  Returns:
    The method.

  Raises:
    UsageError: for an unknown name or parameter, or a wrong value.
  """
  base, *views = parse(text)
  if base.name not in BASES:
    raise UsageError(
      f"a method must begin with {' or '.join(BASES)}, got {base.name!r} in "
      f"{text!r}." + suggest(base.name, BASES)
    )
  if base.copies != 1:
    raise UsageError(f"the base {base.name!r} has no copies, got {text!r}")
  role = {"label": ("label", 1.0, label_term(kind))}
  if base.name == "ft":
    weight = call_factory(base, lambda weight=1.0: _schedule(weight), "base")
    coefficients: dict[str, Schedule] = {"label": weight}
  else:
    coefficients, (name, distance) = _distillation(base, kind)
    role["teacher"] = (name, 1.0, distance)
  clean_terms = tuple(
    (role[r][0], coefficient, role[r][2])
    for r, coefficient in coefficients.items()
  )
  clean = WeightedView("clean", None, clean_terms, mean())

  weighted, seen = [], {}
  for call in views:
    if call.name not in recipes:
      hint = (
        " It is a base and stands first."
        if call.name in BASES
        else suggest(call.name, recipes)
      )
      raise UsageError(
        f"no view is called {call.name!r} in {text!r}; there are "
        f"{', '.join(recipes)}." + hint
      )
    recipe = recipes[call.name]
    maker = call_factory(call, recipe.make, "view", reserved=("weight",))
    roles = ("label",) if base.name == "ft" else recipe.with_teacher
    seen[call.name] = seen.get(call.name, 0) + 1
    number = f"_{seen[call.name]}" if seen[call.name] > 1 else ""
    weighted.append(
      WeightedView(
        call.name + number,
        repeat(maker, call.copies),
        tuple(role[r] for r in roles),
        mean(),
        _schedule(call.kwargs.get("weight", 1.0)),
      )
    )
  return Method(text, clean, tuple(weighted), needs_teacher=base.name != "ft")


def _distillation(base: Call, kind: TaskKind):
  def factory(
    temperature=1.0, label_weight=1.0, teacher_weight=1.0, distance=None
  ):
    coefficients = {
      "label": _schedule(label_weight),
      "teacher": _schedule(teacher_weight),
    }
    return coefficients, distance_term(kind, distance, temperature)

  return call_factory(base, factory, "base")


def _schedule(value) -> Schedule:
  if isinstance(value, bool) or value is None or isinstance(value, str):
    raise UsageError(f"a weight must be a number or ramp(a, b, n), got {value!r}")
  if isinstance(value, Call):
    if value.name != "ramp" or len(value.args) != 3:
      raise UsageError(
        "a weight's schedule must read ramp(start, end, steps), got "
        f"{value.name}({', '.join(map(str, value.args))})"
      )
    return ramp(*value.args)
  if value < 0:
    raise UsageError(f"a weight must be >= 0, got {value}")
  return float(value)
