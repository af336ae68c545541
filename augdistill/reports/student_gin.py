"""student.gin: what a trained model needs to be used without its teacher."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from augdistill.models.networks import ModelConfig
from augdistill.types import Task, TaskKind


@dataclasses.dataclass(frozen=True)
class Served:
  """How a trained model is used.

  Attributes:
    model: the network's shape.
    task: what its outputs mean.
    max_length: tokens kept of a text.
  """

  model: ModelConfig
  task: Task
  max_length: int


def served_text(served: Served) -> str:
  """The gin text that `augdistill.cli.served` reads."""
  return gin_text(
    "# What this model needs to be used without its teacher.",
    served,
    ("model", "task"),
  )


def gin_text(comment: str, what: Any, parts: Sequence[str]) -> str:
  """The gin text that makes a dataclass.

  Args:
    comment: its first line.
    what: the dataclass.
    parts: its attributes that are dataclasses; the others are written out.
  """
  modules = {type(getattr(what, part)).__module__ for part in parts}
  others = sorted(m for m in modules if not m.startswith("augdistill."))
  lines, below = [comment, *(f"import {name}" for name in others)], []
  for field in dataclasses.fields(what):
    value = getattr(what, field.name)
    if field.name in parts:
      below += _bindings(value)
      lines.append(
        f"{type(what).__name__}.{field.name} = @{type(value).__name__}()"
      )
    else:
      lines.append(f"{type(what).__name__}.{field.name} = {value!r}")
  return "\n".join([*lines, *below]) + "\n"


def _bindings(thing: Any) -> Iterator[str]:
  for field in dataclasses.fields(thing):
    value = getattr(thing, field.name)
    value = str(value) if isinstance(value, TaskKind) else value
    yield f"{type(thing).__name__}.{field.name} = {value!r}"
