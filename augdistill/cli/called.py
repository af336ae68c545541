"""How a command was called."""

from typing import NamedTuple


class Call(NamedTuple):
  """By which words, and when.

  Attributes:
    argv: the command as it is written down, without the program's name.
    began: when, by `time.perf_counter`.
  """

  argv: list[str]
  began: float
