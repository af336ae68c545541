"""Asked to stop by SIGTERM, as schedulers do before they take a machine."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator

from augdistill.cli import maintenance
from augdistill.errors import Preempted
from augdistill.training import processes


@contextlib.contextmanager
def exit_at_once() -> Iterator[None]:
  """A context in which SIGTERM ends the process, and says: run me again."""

  def stop(*_):
    os.write(2, b"augdistill: error: stopped; run the same command again\n")
    sys.exit(Preempted.exit_code)  # which nobody on the way handles

  with _handled_by(stop):
    yield


@contextlib.contextmanager
def watch() -> Iterator[Callable[[int], bool]]:
  """A context in which SIGTERM, or a TPU's notice, only sets a flag.

  Yields:
    Steps done -> whether to stop after them, since the process was asked to,
    or any process of the run.
  """
  asked = []
  with contextlib.ExitStack() as stack:
    if processes.are_on_tpu():
      stack.enter_context(maintenance.passed_on())
    if processes.are_several():
      yield processes.all_stop_after
      return
    stack.enter_context(_handled_by(lambda *_: asked.append(True)))
    yield lambda step: bool(asked)


@contextlib.contextmanager
def _handled_by(handler: Callable[..., None]) -> Iterator[None]:
  if processes.are_several():  # JAX hears it, and tells the others.
    yield
    return
  before = signal.signal(signal.SIGTERM, handler)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
