"""From a method as written to the loss it stands for."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from augdistill.augment.copies import repeat
from augdistill.augment.grammar import (
  Call,
  call_factory,
  keys_of,
  parse,
  written,
)
from augdistill.augment.methods import BASES, RECIPES, Recipe
from augdistill.errors import UsageError, suggest
from augdistill.losses.named import REWEIGHTINGS, TERMS
from augdistill.training.bases import Base, base_of
from augdistill.training.weights import read_weight
from augdistill.types import (
  Method,
  Reweight,
  TaskKind,
  ViewMaker,
  WeightedView,
)


def build_method(
  text: str, kind: TaskKind, recipes: Mapping[str, Recipe] = RECIPES
) -> Method:
  """The loss that a method stands for.

    ft:    weight * label
    kd:    label_weight * label + teacher_weight * distance
    views: weight * reweight(the terms of their recipe)
    terms: weight * term, added to the summands that they are `on`

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
  return assemble(parse(text), text, kind, recipes)


def assemble(
  calls: tuple[Call, ...],
  text: str,
  kind: TaskKind,
  recipes: Mapping[str, Recipe] = RECIPES,
) -> Method:
  """`build_method` of a text that is parsed already."""
  base = base_of(calls[0], text, kind)
  items = calls[1:]
  clean = ()
  if base.clean:
    clean = (
      WeightedView("clean", None, base.terms, REWEIGHTINGS["mean"].make()),
    )
  views = clean + tuple(
    _view(call, name, base, recipes, text)
    for call, name in _numbered([c for c in items if c.name not in TERMS])
  )
  deep = [call for call in items if call.name in TERMS]
  if deep and not base.has_teacher:
    raise UsageError(
      f"the term {deep[0].name!r} compares with a teacher, so it needs the "
      f"base kd, got {text!r}"
    )
  for call, name in _numbered(deep):
    views = _with_term(views, call, name, text)
  if not views:
    raise UsageError(f"a method without its clean batch needs a view: {text!r}")
  for view in views:
    if not view.terms:
      raise UsageError(
        f"view {view.name!r} must be compared by something, but all its "
        f"weights are 0 in {text!r}; leave the view out, or put a term on it"
      )
  return Method(
    text,
    views[0] if base.clean else None,
    views[1:] if base.clean else views,
    needs_teacher=base.has_teacher,
    needs_projections=any(_projects(call) for call in deep),
  )


def _numbered(calls: list[Call]) -> list[tuple[Call, str]]:
  """Each call with its name; the second of a name is called NAME_2."""
  named = []
  for i, call in enumerate(calls):
    number = 1 + sum(before.name == call.name for before in calls[:i])
    named.append((call, call.name if number == 1 else f"{call.name}_{number}"))
  return named


def _view(
  call: Call,
  name: str,
  base: Base,
  recipes: Mapping[str, Recipe],
  text: str,
) -> WeightedView:
  """The summand of one view."""
  maker, common = _maker(call, base, recipes, text)
  recipe = recipes[call.name]
  wanted = recipe.with_teacher if base.has_teacher else recipe.with_label
  weights = dict.fromkeys(wanted, 1.0) | {
    role: common[f"{role}_weight"]
    for role in base.roles
    if f"{role}_weight" in common
  }
  terms = []
  for role, weight in weights.items():
    if weight == 0:  # Left out: it is not even computed.
      continue
    if role not in base.roles:
      raise UsageError(
        f"view {call.name!r} compares by {role}, which there is not for this "
        "kind of task"
      )
    reported, term, _, needs_clean = base.roles[role]
    if needs_clean and not base.clean:
      raise UsageError(
        f"view {call.name!r}: {role} compares with the clean batch, which "
        f"{text!r} does not have"
      )
    where = f"view {call.name!r}"
    terms.append((reported, read_weight(where, f"{role}_weight", weight), term))
  if maker.needs_clean and not base.clean:
    raise UsageError(
      f"view {call.name!r} begins at the clean batch, which {text!r} does not "
      "have"
    )
  return WeightedView(
    name=name,
    maker=maker,
    terms=tuple(terms),
    reweight=_reweighting(call, common.get("reweight", recipe.reweight)),
    weight=read_weight(
      f"view {call.name!r}", "weight", common.get("weight", 1.0)
    ),
  )


def _maker(
  call: Call, base: Base, recipes: Mapping[str, Recipe], text: str
) -> tuple[ViewMaker, dict[str, Any]]:
  """A view's maker, and the keys that are not its factory's."""
  if call.name not in recipes:
    raise UsageError(_unknown(call.name, recipes, text))
  factory = recipes[call.name].make
  reserved = ("weight", "reweight", *(f"{role}_weight" for role in base.roles))
  parameters = keys_of(factory)
  filled: dict[str, Any] = {}
  if "copies" in parameters:
    filled["copies"] = call.copies
  if "roles" in parameters:
    filled["roles"] = {name: role.term for name, role in base.roles.items()}
  kwargs = dict(call.kwargs)
  for key in parameters.keys() & kwargs.keys():
    if parameters[key].annotation is ViewMaker:
      filled[key] = _nested(call, key, kwargs.pop(key), base, recipes, text)
  made = call_factory(
    dataclasses.replace(call, kwargs=kwargs), factory, "view", reserved, filled
  )
  # A factory that is told the copies makes them, or has them from its view.
  maker = made if filled.keys() - {"roles"} else repeat(made, call.copies)
  return maker, {k: v for k, v in kwargs.items() if k in reserved}


def _nested(
  call: Call,
  key: str,
  value: Any,
  base: Base,
  recipes: Mapping[str, Recipe],
  text: str,
) -> ViewMaker:
  """The maker of a view that is an argument of another one, in its copies."""
  inner = Call(value) if isinstance(value, str) else value
  if not isinstance(inner, Call) or inner.copies > 1:
    raise UsageError(
      f"view {call.name!r}: {key} must be one view, whose copies are those of "
      f"{call.name}, got {value}"
    )
  inner = dataclasses.replace(inner, copies=call.copies)
  maker, common = _maker(inner, base, recipes, text)
  if recipes[inner.name].reweight != "mean":
    raise UsageError(
      f"view {call.name!r}: {key} must leave the weights of its copies to "
      f"{call.name}, got {inner.name}, which must be the outer view"
    )
  if common:
    raise UsageError(
      f"view {call.name!r}: {next(iter(common))} belongs to the outer view, "
      f"got {key}={inner}"
    )
  return maker


def _unknown(name: str, recipes: Mapping[str, Recipe], text: str) -> str:
  known = [*recipes, *TERMS]
  hint = suggest(name, known) + " `augdistill methods` lists all of them."
  if name in BASES:
    hint = " It is a base and stands first."
  if name in TERMS:
    hint = " It is a term and stands beside the views."
  return f"no view or term is called {name!r} in {text!r}." + hint


def _projects(call: Call) -> bool:
  """Whether a deep term reads `Outputs.projected`."""
  return bool(call.kwargs.get("project", TERMS[call.name].projects))


def _with_term(
  views: tuple[WeightedView, ...], call: Call, name: str, text: str
) -> tuple[WeightedView, ...]:
  """The summands, with a term added to those that it is on."""
  if call.copies != 1:
    raise UsageError(f"the term {call.name!r} has no copies, got {text!r}")
  term = call_factory(
    call, TERMS[call.name].make, "term", reserved=("weight", "on")
  )
  where = f"term {call.name!r}"
  weight = read_weight(where, "weight", call.kwargs.get("weight", 1.0))
  on = call.kwargs.get("on", "clean")
  names = [view.name for view in views]
  if on not in ("all", *names):
    raise UsageError(
      f"{where}: on must be one of all, {', '.join(names)}, got "
      f"{written(on)!r}." + suggest(written(on), ["all", *names])
    )
  return tuple(
    dataclasses.replace(view, terms=(*view.terms, (name, weight, term)))
    if on in ("all", view.name)
    else view
    for view in views
  )


def _reweighting(call: Call, value: Any) -> Reweight:
  inner = Call(value) if isinstance(value, str) else value
  known = isinstance(inner, Call) and inner.name in REWEIGHTINGS
  if not known or inner.copies > 1:
    raise UsageError(
      f"view {call.name!r}: reweight must be one of "
      f"{', '.join(REWEIGHTINGS)}, got {written(value)}."
      + suggest(written(value), REWEIGHTINGS)
    )
  return call_factory(inner, REWEIGHTINGS[inner.name].make, "reweighting")
