"""A command that several processes run together, one per host of a pod."""

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence

from augdistill.errors import Preempted, RunError, UsageError

# What an error of JAX says when it is another process that is to blame.
_OF_OTHERS = (
  *("Gloo", "NCCL", "UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED"),
  *("coordination service", "heartbeat"),
)
# How JAX begins what it says. Its errors are ValueErrors where the thread that
# asks for something computes it.
_STATUS = re.compile(r"[A-Z_]+: ")
_LAST_WORDS_SECONDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags that say which process of how many this one is."""
  group = parser.add_argument_group(
    "processes",
    "the same command on every host of a pod, with one --output_dir that all\n"
    "of them see; the first process alone prints and writes",
  )
  group.add_argument(
    "--distributed",
    action="store_true",
    help="join the others; who they are is found from the environment of a "
    "TPU pod or of SLURM, or given by",
  )
  group.add_argument(
    "--coordinator", metavar="HOST:PORT", help="where the first process is"
  )
  group.add_argument(
    "--num_processes", type=int, metavar="N", help="how many there are"
  )
  group.add_argument(
    "--process_id", type=int, metavar="I", help="which this one is, from 0"
  )


def without_flags(argv: Sequence[str]) -> list[str]:
  """A command as it is written down: it can be run by any number of hosts."""
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  add_arguments(parser)
  return parser.parse_known_args(argv)[1]


def join(args: argparse.Namespace) -> None:
  """Makes this process one of several, if the flags of its command say so.

  Raises:
    UsageError: if who the others are is not known.
    RunError: if they do not answer.
  """
  given = [
    getattr(args, name, None)
    for name in ("coordinator", "num_processes", "process_id")
  ]
  if not getattr(args, "distributed", False) and given == [None] * 3:
    return
  from augdistill.training import processes

  try:
    processes.join(*given)
  except (ValueError, TypeError) as error:
    raise UsageError(
      "which processes run together must be told by --coordinator HOST:PORT, "
      "--num_processes N and --process_id I where there is neither a TPU pod "
      f"nor SLURM: {error}"
    ) from error
  except RuntimeError as error:
    raise RunError(
      f"the processes must find each other within 5 minutes, but: {error}"
    ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """A context in which the first process alone prints.

  Raises:
    Preempted: if another process of the run is lost.
  """
  if not are_several():
    yield
    return
  from augdistill.training import processes

  try:
    with contextlib.ExitStack() as stack:
      if not processes.is_first():
        nowhere = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
      yield
  except Exception as error:
    lost = _loss_in(error)
    if lost is None:
      raise
    raise Preempted(
      f"another process was lost ({str(lost).splitlines()[0]}); run the same "
      "command again on all hosts, to go on from the last checkpoint"
    ) from error


def _loss_in(error: BaseException | None) -> BaseException | None:
  """What JAX said of another process, if that is where an error began.

  Whatever waits for the others may notice first: a step, or a save, which then
  fails with an error of its own.
  """
  import jax

  while error is not None:
    said = str(error)
    is_of_jax = isinstance(error, jax.errors.JaxRuntimeError) or (
      isinstance(error, ValueError) and _STATUS.match(said)
    )
    if is_of_jax and any(word in said for word in _OF_OTHERS):
      return error
    error = error.__cause__ or error.__context__
  return None


def leave(code: int) -> int:
  """Ends what `join` began.

  Args:
    code: the exit code of this process; unless it is 0, the process ends here:
      to say goodbye would be to wait for others that may be gone.

  Returns:
    The same.
  """
  if not are_several():
    return code
  from augdistill.training import processes

  if code == 0:
    processes.leave()
    return code
  sys.stdout.flush()
  sys.stderr.flush()
  if processes.is_first():
    # With it goes the service that all of them are connected to, and they end
    # at once: those that fail alike shall have said why.
    time.sleep(_LAST_WORDS_SECONDS)
  os._exit(code)


def speaker() -> str:
  """Who says what an error message says: "process 3: ", or nothing."""
  if not are_several():
    return ""
  import jax

  return f"process {jax.process_index()}: "


def are_several() -> bool:
  """Whether this process has joined others."""
  # Without JAX, which most commands have no need of, there is one.
  if "jax" not in sys.modules:
    return False
  from augdistill.training import processes

  return processes.are_several()
