"""Asked to stop by SIGTERM, as schedulers do before they take a machine."""

import contextlib
from collections.abc import Callable, Iterator

from augdistill.cli import maintenance, stopping
from augdistill.training import processes


@contextlib.contextmanager
def watch(start: int = 0) -> Iterator[Callable[[int], bool]]:
  """A context in which SIGTERM, or a TPU's notice, only sets a flag.

  Args:
    start: steps done before.

  Yields:
    Steps done -> whether to stop after them, since the process was asked to,
    or any process of the run.
  """
  asked = []
  with contextlib.ExitStack() as stack:
    if processes.are_on_tpu():
      stack.enter_context(maintenance.passed_on())
    if processes.are_several():
      at_once = processes.all_stop_before(start)
      yield lambda step: processes.all_stop_after(step) or at_once
      return
    stack.enter_context(stopping.handled_by(lambda *_: asked.append(True)))
    yield lambda step: bool(asked)
