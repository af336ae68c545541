"""Asked to stop by SIGTERM, as schedulers do before they take a machine."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator

from augdistill.errors import Preempted


@contextlib.contextmanager
def exit_at_once() -> Iterator[None]:
  """A context in which SIGTERM ends the process, and says: run me again."""

  def stop(*_):
    os.write(2, b"augdistill: error: stopped; run the same command again\n")
    sys.exit(Preempted.exit_code)  # which nobody on the way handles

  with _handled_by(stop):
    yield


@contextlib.contextmanager
def watch() -> Iterator[Callable[[], bool]]:
  """A context in which SIGTERM only sets a flag.

  Yields:
    A function that tells whether the process was asked to stop.
  """
  asked = []
  with _handled_by(lambda *_: asked.append(True)):
    yield lambda: bool(asked)


@contextlib.contextmanager
def _handled_by(handler: Callable[..., None]) -> Iterator[None]:
  before = signal.signal(signal.SIGTERM, handler)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
