"""What SIGTERM does, from a command's first moment on."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from augdistill.cli import together
from augdistill.errors import Preempted

_AGAIN_SECONDS = 0.1


@contextlib.contextmanager
def exit_at_once() -> Iterator[None]:
  """A context in which SIGTERM ends the process, and says: run me again."""
  said = []

  def stop(*_):
    if not said:
      said.append(True)
      os.write(2, b"augdistill: error: stopped; run the same command again\n")
    sys.exit(Preempted.exit_code)  # which nobody on the way handles

  with _repeated_where_swallowed(), handled_by(stop):
    try:
      yield
    except Exception as error:
      if not said:
        raise
      # A library that was being loaded makes an ImportError of the exit.
      raise SystemExit(Preempted.exit_code) from error


@contextlib.contextmanager
def handled_by(handler: Callable[..., None]) -> Iterator[None]:
  """A context in which SIGTERM calls this.

  Of several processes JAX hears it, from when they have joined, and tells the
  others.
  """
  if together.are_several():
    yield
    return
  before = signal.signal(signal.SIGTERM, handler)
  try:
    yield
  finally:
    if not together.are_several():
      signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _repeated_where_swallowed() -> Iterator[None]:
  """A context in which SIGTERM comes again if its exit got nowhere.

  A handler runs wherever the interpreter happens to be, and what it raises in
  a callback of the garbage collector, of which JAX has one, goes no further.
  """
  before = sys.unraisablehook

  def hook(unraisable):
    if not isinstance(unraisable.exc_value, SystemExit):
      before(unraisable)
      return
    threading.Timer(
      _AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGTERM)
    ).start()

  sys.unraisablehook = hook
  try:
    yield
  finally:
    sys.unraisablehook = before
