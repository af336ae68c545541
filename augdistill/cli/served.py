"""What a trained run needs to be used without its teacher: student.gin."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

from augdistill.cli.bindings import configurable, parsed
from augdistill.models.networks import ARCHITECTURES, ModelConfig
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


_SERVED = configurable(Served)
for _architecture in ARCHITECTURES:
  configurable(_architecture)
configurable(Task)


def load_served(path: str | os.PathLike) -> Served:
  """Reads a `student.gin`.

  Raises:
    UsageError: if it is missing or does not fit.
  """
  with parsed([os.fspath(path)]):
    return _SERVED()


def served_text(served: Served) -> str:
  """The gin text that `load_served` reads."""
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
  lines, below = [comment], []
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
