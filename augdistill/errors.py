"""The errors that a person meets: one line, an exit code, no traceback.

A message says what must hold, what was got, where (file, line, column,
value), and what to do about it. The command line prints it and exits with
`exit_code`; every other exception is a bug of ours and keeps its traceback.
"""

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class AugdistillError(Exception):
  """An error meant for a person; raise one of its subclasses."""

  exit_code = 1


class UsageError(AugdistillError):
  """The command or the data is wrong: a person can mend it. Exit code 2."""

  exit_code = 2


class RunError(AugdistillError):
  """The run failed, for example its loss became NaN. Exit code 1."""

  exit_code = 1


class Preempted(AugdistillError):
  """The run was stopped from outside; run it again to go on. Exit code 75."""

  exit_code = 75


@contextlib.contextmanager
def said_of(what: str) -> Iterator[None]:
  """What is wrong with the command, in this block, is said to be of `what`.

  Args:
    what: the place, such as "view 'mixup'".

  Yields:
    None.

  Raises:
    UsageError: the block's own, its message behind the place.
  """
  try:
    yield
  except UsageError as error:
    raise UsageError(f"{what}: {error}") from error


def suggest(name: str, known: Iterable[str]) -> str:
  """The end of an error message: the known name that was probably meant.

  Letters' case does not count as a difference.

  Args:
    name: what was got.
    known: the names that exist.

  Returns:
    " Did you mean 'x'?", or "" where nothing known is near.

  Example:
    >>> suggest("augpro_mx", ["kd", "augpro_mix"])
    " Did you mean 'augpro_mix'?"
  """
  by_lower = {str(k).lower(): str(k) for k in known}
  near = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
  return f" Did you mean '{by_lower[near[0]]}'?" if near else ""


def listing(names: Iterable[str], limit: int = 8) -> str:
  """Names for an error message: "a, b, c", cut after `limit` of them.

  Args:
    names: what to list, in the order given.
    limit: how many are written out.

  Returns:
    The names joined by commas; "(none)" where there are none.

  Example:
    >>> listing("abcd", limit=2)
    'a, b, ... (4 in all)'
  """
  names = [str(n) for n in names]
  if len(names) <= limit:
    return ", ".join(names) or "(none)"
  return f"{', '.join(names[:limit])}, ... ({len(names)} in all)"
