"""Asked to stop: SIGTERM is noticed, and the loop ends at the next step."""

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def watch() -> Iterator[Callable[[], bool]]:
  """A context in which SIGTERM only sets a flag.

  Yields:
    A function that tells whether the process was asked to stop.
  """
  asked = []
  before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
  try:
    yield lambda: bool(asked)
  finally:
    signal.signal(signal.SIGTERM, before)
