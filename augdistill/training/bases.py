"""What a method begins with: fine-tuning, or distillation from a teacher."""

import dataclasses
import functools
from collections.abc import Mapping

from augdistill.augment.grammar import Call, call_factory
from augdistill.augment.methods import BASES
from augdistill.errors import UsageError, suggest
from augdistill.losses import kinds
from augdistill.training.weights import weight_schedule
from augdistill.types import LossTerm, Schedule, TaskKind

Terms = tuple[tuple[str, Schedule, LossTerm], ...]


@dataclasses.dataclass(frozen=True)
class Base:
  """What a base stands for.

  Attributes:
    roles: the terms that a view may be compared by.
    terms: those of the clean summand.
    has_teacher: whether it compares with a teacher.
    clean: whether the method trains on the clean batch.
  """

  roles: Mapping[str, kinds.Role]
  terms: Terms
  has_teacher: bool
  clean: bool


def base_of(call: Call, text: str, kind: TaskKind) -> Base:
  """What a method's first item stands for.

  Args:
    call: the item.
    text: the whole method, for errors.
    kind: of the task, which decides what "label" and "distance" are.

  Raises:
    UsageError: if it is no base, or has a wrong parameter.
  """
  if call.name not in BASES:
    raise UsageError(
      f"a method must begin with {' or '.join(BASES)}, got {call.name!r} in "
      f"{text!r}." + suggest(call.name, BASES)
    )
  if call.copies != 1:
    raise UsageError(f"the base {call.name!r} has no copies, got {text!r}")
  factory = functools.partial(BASE_FACTORIES[call.name], kind)
  return call_factory(call, factory, "base")


def _fine_tuning(
  kind: TaskKind, weight: float | Call = 1.0, clean: bool = True
) -> Base:
  roles = {
    name: role
    for name, role in kinds.roles_of(kind).items()
    if not role.needs_teacher
  }
  return Base(roles, (_term(roles, "label", weight),), False, clean)


def _distillation(
  kind: TaskKind,
  temperature: float = 1.0,
  label_weight: float | Call = 1.0,
  teacher_weight: float | Call = 1.0,
  distance: str | None = None,
  clean: bool = True,
) -> Base:
  roles = kinds.roles_of(kind, distance, temperature)
  terms = (
    _term(roles, "label", label_weight),
    _term(roles, "teacher", teacher_weight),
  )
  return Base(roles, terms, True, clean)


BASE_FACTORIES = {"ft": _fine_tuning, "kd": _distillation}


def _term(
  roles: Mapping[str, kinds.Role], role: str, weight: float | Call
) -> tuple[str, Schedule, LossTerm]:
  return roles[role].reported, weight_schedule(weight), roles[role].term
