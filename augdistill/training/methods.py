"""From a method as written to the loss it stands for."""

import functools
from collections.abc import Mapping

from augdistill.augment.copies import repeat
from augdistill.augment.grammar import Call, call_factory, parse
from augdistill.augment.methods import BASES, RECIPES, Recipe
from augdistill.errors import UsageError, suggest
from augdistill.losses.kinds import distance_term, label_term
from augdistill.losses.reweight import mean
from augdistill.training.schedules import ramp
from augdistill.types import (
  LossTerm,
  Method,
  Schedule,
  TaskKind,
  WeightedView,
)


def build_method(
  text: str, kind: TaskKind, recipes: Mapping[str, Recipe] = RECIPES
) -> Method:
  """The loss that a method stands for.

    ft:    weight * label
    kd:    label_weight * label + teacher_weight * distance
    views: weight * the terms of their recipe; under ft, the label alone

  The distance of a view is that of the base, temperature included.

  Args:
    text: the method, in the grammar of `augdistill.augment.grammar`.
    kind: of the task, which decides what "label" and "distance" are.
    recipes: the views there are, by name.

  Returns:
    The method.

  Raises:
    UsageError: for an unknown name or parameter, or a wrong value.
  """
  base, *calls = parse(text)
  if base.name not in BASES:
    raise UsageError(
      f"a method must begin with {' or '.join(BASES)}, got {base.name!r} in "
      f"{text!r}." + suggest(base.name, BASES)
    )
  if base.copies != 1:
    raise UsageError(f"the base {base.name!r} has no copies, got {text!r}")
  factory = {"ft": _fine_tuning, "kd": _distillation}[base.name]
  roles = call_factory(base, functools.partial(factory, kind), "base")
  clean = WeightedView("clean", None, tuple(roles.values()), mean())
  views = []
  for i, call in enumerate(calls):
    number = 1 + sum(before.name == call.name for before in calls[:i])
    name = call.name if number == 1 else f"{call.name}_{number}"
    views.append(_view(call, name, roles, recipes, text))
  return Method(text, clean, tuple(views), needs_teacher="teacher" in roles)


# Role -> name, coefficient in the clean summand, term.
_Roles = dict[str, tuple[str, Schedule, LossTerm]]


def _fine_tuning(kind: TaskKind, weight: float | Call = 1.0) -> _Roles:
  return {"label": ("label", _schedule(weight), label_term(kind))}


def _distillation(
  kind: TaskKind,
  temperature: float = 1.0,
  label_weight: float | Call = 1.0,
  teacher_weight: float | Call = 1.0,
  distance: str | None = None,
) -> _Roles:
  name, term = distance_term(kind, distance, temperature)
  return {
    "label": ("label", _schedule(label_weight), label_term(kind)),
    "teacher": (name, _schedule(teacher_weight), term),
  }


def _view(
  call: Call,
  name: str,
  roles: _Roles,
  recipes: Mapping[str, Recipe],
  text: str,
) -> WeightedView:
  """The summand of one view; its coefficients are 1, its weight its own."""
  if call.name not in recipes:
    hint = suggest(call.name, recipes)
    if call.name in BASES:
      hint = " It is a base and stands first."
    raise UsageError(
      f"no view is called {call.name!r} in {text!r}; there are "
      f"{', '.join(recipes)}." + hint
    )
  recipe = recipes[call.name]
  wanted = recipe.with_teacher if "teacher" in roles else ("label",)
  weight = {k: v for k, v in call.kwargs.items() if k == "weight"}
  return WeightedView(
    name=name,
    maker=repeat(
      call_factory(call, recipe.make, "view", reserved=("weight",)),
      call.copies,
    ),
    terms=tuple((roles[role][0], 1.0, roles[role][2]) for role in wanted),
    reweight=mean(),
    weight=call_factory(Call(call.name, kwargs=weight), _schedule, "view"),
  )


def _schedule(weight: float | Call = 1.0) -> Schedule:
  """A weight as written: a number, or ramp(start, end, steps)."""
  if not isinstance(weight, Call):
    if weight < 0:
      raise ValueError(f"a weight must be >= 0, got {weight:g}")
    return weight
  keys = ("start", "end", "steps")
  if weight.name != "ramp" or weight.kwargs or len(weight.args) != len(keys):
    raise ValueError(
      f"a weight's schedule must read ramp(start, end, steps), got {weight}"
    )
  named = dict(zip(keys, weight.args, strict=True))
  schedule = call_factory(Call("ramp", kwargs=named), ramp, "schedule")
  if min(named["start"], named["end"]) < 0:
    raise ValueError(f"a weight must be >= 0, got {weight}")
  return schedule
