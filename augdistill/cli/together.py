"""A command that several processes run together, one per host of a pod."""

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence

from augdistill.errors import Preempted, RunError, UsageError

# What an error of JAX says when it is another process that is to blame.
_OF_OTHERS = (
  *("Gloo", "NCCL", "UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED"),
  *("coordination service", "heartbeat"),
)


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


@contextlib.contextmanager
def joined(args: argparse.Namespace) -> Iterator[None]:
  """A context in which this process is one of several, if flags say so.

  Raises:
    UsageError: if who the others are is not known.
    RunError: if they do not answer.
    Preempted: if one of them is lost.
  """
  given = [
    getattr(args, name, None)
    for name in ("coordinator", "num_processes", "process_id")
  ]
  if not getattr(args, "distributed", False) and given == [None] * 3:
    yield
    return
  import jax

  from augdistill.training import processes

  _join(*given)
  with contextlib.ExitStack() as stack:
    stack.callback(_leave)
    try:
      with contextlib.ExitStack() as quiet:
        if not processes.is_first():
          nowhere = quiet.enter_context(open(os.devnull, "w"))
          quiet.enter_context(contextlib.redirect_stdout(nowhere))
          quiet.enter_context(contextlib.redirect_stderr(nowhere))
        yield
    except jax.errors.JaxRuntimeError as error:
      if not any(word in str(error) for word in _OF_OTHERS):
        raise
      raise Preempted(
        f"another process was lost ({str(error).splitlines()[0]}); run the "
        "same command again on all hosts to go on from the last checkpoint"
      ) from error


def _join(
  coordinator: str | None, count: int | None, index: int | None
) -> None:
  from augdistill.training import processes

  try:
    processes.join(coordinator, count, index)
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


def _leave() -> None:
  from augdistill.training import processes

  # After a failure the others may be gone; that is what was said then.
  with contextlib.suppress(RuntimeError):
    processes.leave()
