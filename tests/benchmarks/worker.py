"""A process that works on request, so that two of them can take turns.

Two frameworks in one process would share neither threads nor memory well. In
processes of their own, each on all of the cores, one waits while the other
works.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]


class Worker:
  """A process that runs `python -m MODULE FOLDER CORES`, which calls `serve`.

  CORES are those of this process.

  Attributes:
    module: what it runs.
  """

  def __init__(self, module: str, folder: str):
    self.module = module
    cores = json.dumps(sorted(os.sched_getaffinity(0)))
    self._process = subprocess.Popen(
      [sys.executable, "-m", module, folder, cores],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      cwd=ROOT,
      text=True,
    )

  def ask(self, request: str, **arguments: Any) -> Any:
    """What the worker's function of this name returns.

    Raises:
      RuntimeError: if it ended instead; it has said why.
    """
    line = json.dumps([request, arguments])
    try:
      print(line, file=self._process.stdin, flush=True)
      answer = self._process.stdout.readline()
    except BrokenPipeError:
      answer = ""
    if not answer:
      raise RuntimeError(f"{self.module} ended at the request {line}")
    return json.loads(answer)

  def end(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.communicate()


@contextlib.contextmanager
def workers(folder: str, *modules: str) -> Iterator[list[Worker]]:
  """Workers on one folder, which end with the block."""
  with contextlib.ExitStack() as stack:
    started = []
    for module in modules:
      started.append(Worker(module, folder))
      stack.callback(started[-1].end)
    yield started


def stay(cores: str) -> int:
  """Keeps this process on the cores that it was given; how many they are.

  To be called behind all imports: that of torch lets a process out of the
  cores that it was bound to, and then it runs more threads than the other.
  """
  os.sched_setaffinity(0, json.loads(cores))
  return len(os.sched_getaffinity(0))


def serve(answers: Mapping[str, Callable[..., Any]]) -> None:
  """Answers the requests of a `Worker` until there are no more.

  Args:
    answers: request -> a function that returns what JSON can say.
  """
  for line in sys.stdin:
    request, arguments = json.loads(line)
    with contextlib.redirect_stdout(sys.stderr):
      answer = answers[request](**arguments)
    print(json.dumps(answer), flush=True)
