"""A grid of runs, each a process of its own.

So a run that fails, or that the machine kills for its memory, takes no other
with it. A grid keeps no books: what is done stands in the runs' directories.
"""

import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from augdistill import atomic
from augdistill.cli import flags
from augdistill.cli.pretrained import vocab_path
from augdistill.errors import Preempted, RunError, UsageError
from augdistill.reports.grid_results import Cell

# Seconds that a second process waits for a directory.
_PATIENCE = 5.0
# Linux asks it to stop when its parent is gone; elsewhere it ends by itself.
_CHILD = """
import contextlib, ctypes, signal, sys
with contextlib.suppress(AttributeError, OSError):
  ctypes.CDLL(None).prctl(1, signal.SIGTERM)
from augdistill.cli.main import main
sys.exit(main())
"""
# What a run of a grid has of its own.
_OWN = ("method", "seed", "train_examples", "num_steps")
# What a teacher shares with its students, as flags.
_TEACHERS = (
  *("task", "train", "validation", "test", "text_column", "label_column"),
  *("task_kind", "vocab", "max_length", "tfds_data_dir", "labeled_fraction"),
)


class Planned(NamedTuple):
  """A run of a grid.

  Attributes:
    method: its method.
    rows: how many training rows; None for all.
    seed: its seed.
    path: its directory.
    argv: its command, without the program's name.
  """

  method: str
  rows: int | None
  seed: int
  path: pathlib.Path
  argv: tuple[str, ...]

  def cell(self, error: str | None = None) -> Cell:
    """What the report says of it."""
    command = shlex.join(["augdistill", *self.argv])
    return Cell(
      self.method, self.rows, self.seed, str(self.path), error, command
    )


def plan(
  args: argparse.Namespace,
  methods: Sequence[str],
  sizes: Sequence[int | None],
  seeds: Sequence[int],
  steps: dict[str, int],
) -> list[Planned]:
  """The runs of a grid; those of a seed stand together.

  Args:
    args: the flags of `augdistill compare`.
    methods: the methods.
    sizes: numbers of training rows; None for all.
    seeds: the seeds.
    steps: method -> steps, where they are not those of the flags.
  """
  common = given_flags(args, [f for f in flags.MACROS if f not in _OWN])
  common += _given_gin(args)
  if args.teacher_dropout is False:
    common.append("--no_teacher_dropout")
  common += [f"--{name}" for name in ("force", "profile") if vars(args)[name]]
  if args.wandb:
    common.append(f"--wandb={args.wandb}")
  planned = []
  for rows in sizes:
    for seed in seeds:
      for method in methods:
        path = pathlib.Path(args.output_dir, "runs", _folder(method))
        path /= f"{'all' if rows is None else rows}_rows_seed{seed}"
        own = [f"--method={method}", f"--seed={seed}"]
        if rows is not None:
          own.append(f"--train_examples={rows}")
        num_steps = steps.get(method, args.num_steps)
        if num_steps is not None:
          own.append(f"--num_steps={num_steps}")
        argv = ("distill", *common, *own, f"--output_dir={path}")
        planned.append(Planned(method, rows, seed, path, argv))
  return planned


def teacher_command(args: argparse.Namespace) -> list[str]:
  """The command of the teacher that the grid has in common."""
  argv = ["finetune", *given_flags(args, _TEACHERS)]
  # The student reads with this vocabulary.
  if args.init and not (args.vocab or args.teacher_init):
    argv.append(f"--vocab={vocab_path(args.init)}")
  argv += [
    f"--{flag}={value}"
    for flag, value in (
      ("model", args.teacher_model),
      ("init", args.teacher_init),
      ("num_steps", args.teacher_num_steps),
    )
    if value is not None
  ]
  return [*argv, f"--output_dir={args.teacher}"]


def given_flags(args: argparse.Namespace, names: Sequence[str]) -> list[str]:
  """The flags of these names as they were given."""
  argv = []
  for name in names:
    value = getattr(args, name, None)
    if value is not None and not isinstance(value, bool):
      argv.append(f"--{name}={value}")
  return argv


def _given_gin(args: argparse.Namespace) -> list[str]:
  """gin's flags as they were given; a teacher has none of them."""
  argv = [f"--gin_file={file}" for file in args.gin_file]
  if args.gin_search_paths:
    argv.append(f"--gin_search_paths={args.gin_search_paths}")
  for binding in args.gin_bindings:
    name, _, value = binding.partition(" = ")
    argv.append(f"--gin.{name}={value}")
  return argv


def _folder(method: str) -> str:
  """A method as the name of a folder."""
  return "".join(c if c.isalnum() or c in "+=,.()*_-" else "_" for c in method)


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
  """The directory is this process's and its children's alone.

  The lock goes with the last of them, however it ends. A child that has lost
  its parent saves and stops, so it is waited for.

  Raises:
    UsageError: if another process has it, or one cannot write there, such as
      in a bucket.
  """
  atomic.check_local(directory)
  path = pathlib.Path(directory, ".lock")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
  except OSError as error:
    raise UsageError(
      f"cannot write to {directory}: {error.strerror}. Choose another "
      "--output_dir"
    ) from error
  with file:
    os.set_inheritable(file.fileno(), True)
    until = time.monotonic() + _PATIENCE
    while not _try_lock(file):
      if time.monotonic() > until:
        raise UsageError(
          f"another augdistill compare is at work in {directory}; wait for it, "
          "or choose another --output_dir"
        )
      time.sleep(0.2)
    yield


def _try_lock(file: Any) -> bool:
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    return False
  return True


def run_alone(argv: Sequence[str], log: pathlib.Path) -> str | None:
  """Runs a command in a process of its own.

  Args:
    argv: without the program's name.
    log: where its output goes.

  Returns:
    None; or why it failed, in a line.

  Raises:
    Preempted: if it was asked to stop, or this process was.
  """
  log.parent.mkdir(parents=True, exist_ok=True)
  with log.open("w", encoding="utf-8") as file, _process(argv, file) as child:
    code = child.wait()
  if code in (75, 128 + signal.SIGINT, -signal.SIGINT, -signal.SIGTERM):
    raise Preempted("stopped; the same command goes on with the grid")
  return None if code == 0 else _reason(code, log)


@contextlib.contextmanager
def _process(argv: Sequence[str], output: Any) -> Iterator[subprocess.Popen]:
  """A child that is asked to stop where this process is."""
  child = subprocess.Popen(
    [sys.executable, "-c", _CHILD, *argv],
    stdout=output,
    stderr=subprocess.STDOUT,
    env=os.environ | {"TERM": "dumb"},
    close_fds=False,  # It holds the lock, too.
  )
  before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
  try:
    yield child
  except BaseException:
    child.terminate()
    child.wait()
    raise
  finally:
    signal.signal(signal.SIGTERM, before)


def _reason(code: int, log: pathlib.Path) -> str:
  """The last line that a failed command printed."""
  lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
  last = next((line.strip() for line in reversed(lines) if line.strip()), "")
  last = last.removeprefix("augdistill: error: ")
  if code == -signal.SIGKILL:
    return "killed, as the system does when memory runs out"
  return last or f"exit code {code}"


def examined(argv: Sequence[str], log: pathlib.Path) -> list[dict[str, Any]]:
  """What `augdistill doctor` finds about a run, in a process of its own.

  Args:
    argv: the run's command.
    log: where its output goes.

  Raises:
    RunError: if it failed.
  """
  failed = run_alone(["doctor", *argv[1:], "--json"], log)
  try:
    text = log.read_text(encoding="utf-8")
    return json.loads(text[text.index("[\n") :])
  except ValueError:
    raise RunError(failed or f"{log} holds no findings") from None
