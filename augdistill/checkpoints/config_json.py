"""JSON that transformers wrote, and fields of it, checked as they are read."""

import json
import reprlib
from collections.abc import Mapping
from typing import Any

from augdistill.errors import UsageError

Config = Mapping[str, Any]
_SPELLED = {int: "a whole number", float: "a number", str: "a text"}
_SPELLED |= {dict: "an object"}


def read_json(file: str, what: str) -> dict[str, Any]:
  """The object in a file of JSON.

  Args:
    file: its path.
    what: what it must be, for messages.

  Raises:
    UsageError: if there is no file, or no such object in it.
  """
  try:
    with open(file, encoding="utf-8") as opened:
      content = json.load(opened)
    if not isinstance(content, dict):
      raise ValueError(f"it holds {reprlib.repr(content)}")
    return content
  # Brackets in brackets may be deeper than Python reads.
  except (OSError, ValueError, RecursionError) as error:
    raise UsageError(f"{file} must be {what}, but: {error}") from error


def field(
  config: Config, where: str, kind: type, default: Any, *names: str
) -> Any:
  """A field of config.json.

  Args:
    config: the file's content.
    where: what messages call the model's place.
    kind: int, float (whole numbers are some, too), str or dict.
    default: what counts where there is none, or null.
    *names: what the field is called; the first that is there counts.

  Raises:
    UsageError: if it is of another kind.
  """
  for name in names:
    value = config.get(name)
    if value is None:
      continue
    try:
      if kind is float and type(value) is int:
        value = float(value)
      if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError
    except (TypeError, OverflowError):
      raise UsageError(
        f"{where} must have a config.json whose {name} is {_SPELLED[kind]}, "
        f"got {reprlib.repr(value)}"
      ) from None
    return value
  return default
