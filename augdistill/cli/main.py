"""`augdistill COMMAND ...`: parses, runs, and reports errors in one line."""

import argparse
import errno
import importlib
import os
import sys
import time
import traceback
import types
from collections.abc import Sequence

from augdistill.cli import compilation, stopping, together
from augdistill.cli.called import Call
from augdistill.errors import AugdistillError, UsageError, suggest

COMMANDS = {
  "finetune": "train a model on labelled texts, for example a teacher",
  "distill": "train a small student with a teacher and augmentation",
  "pretrain": "train a masked language model on texts",
  "rewrite": "rewrite texts with a pretrained model",
  "compare": "compare methods over seeds and numbers of training rows",
  "plan": "tell what a run of distill will take, before it is paid for",
  "doctor": "look for mistakes before a run of distill",
  "evaluate": "score a trained run on a file of labelled texts",
  "predict": "label texts with a trained run",
  "export": "write a trained run for other programs",
  "methods": "list the methods there are, with papers and equations",
  "augment": "show what augmented texts look like, and count changes",
  "report": "make the page of a finished run",
  "table": "compare finished runs in a table",
}
# What goes on where it was, or begins anew, when it is run again.
_CAN_BE_STOPPED = ("finetune", "distill", "pretrain", "export")
_TAKE_STEPS = ("finetune", "distill", "pretrain", "doctor")
# What the machine or the caller's paths are to blame for, not a bug.
_NOT_OURS = (
  *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
  *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
)
EPILOG = """\
examples:
  augdistill finetune --train train.tsv --test test.tsv --output_dir teacher
  augdistill distill --train train.tsv --test test.tsv --teacher teacher \\
      --method kd+augpro_mix+augpro_fgsm --output_dir student
  augdistill predict --run student --input -

`augdistill COMMAND --help` lists a command's flags.
exit codes: 0 done, 1 failed, 2 wrong usage or data, 75 stopped: run it again
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command.

  Args:
    argv: arguments without the program's name; those of the process if None.

  Returns:
    The exit code: 0, 1 (failure), 2 (usage or data), 75 (stopped, run again).
  """
  code = _reported(list(sys.argv[1:] if argv is None else argv))
  return together.leave(code)


def _reported(argv: list[str]) -> int:
  """Runs one command, and says in a line what went wrong."""
  try:
    code = _run(argv)
    sys.stdout.flush()  # Now, and not when nobody handles its failure.
    return code
  except AugdistillError as error:
    _say(f"error: {error}")
    return error.exit_code
  except BrokenPipeError:  # The reader of our output has gone, as `head` does.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except SystemExit as stop:  # SIGTERM, before there was anything to save.
    return stop.code
  except KeyboardInterrupt:
    _say("interrupted")
    return 130
  except Exception as error:
    if isinstance(error, OSError) and error.errno in _NOT_OURS:
      where = f" ({error.filename})" if error.filename else ""
      _say(f"error: {error.strerror}{where}")
      return 1
    if not together.speaker():
      raise
    traceback.print_exc()  # And the process must end, not wait for the others.
    return 1


def _say(what: str) -> None:
  print(f"augdistill: {together.speaker()}{what}", file=sys.stderr)


def _run(argv: list[str]) -> int:
  name = argv[0] if argv else "--help"
  if name in _CAN_BE_STOPPED:
    with stopping.exit_at_once():
      return _run_command(name, argv)
  if name in ("-h", "--help"):
    print(_overview())
    return 0 if argv else 2
  if name == "--version":
    from importlib import metadata

    print(f"augdistill {metadata.version('augdistill')}")
    return 0
  if name not in COMMANDS:
    raise UsageError(
      f"no command is called {name!r}; there are {', '.join(COMMANDS)}."
      + suggest(name, COMMANDS)
    )
  return _run_command(name, argv)


def _run_command(name: str, argv: list[str]) -> int:
  if {"-h", "--help"}.intersection(argv):
    print(_parser(name).format_help(), end="")
    return 0
  args = parse(argv)
  compilation.keep_programs()
  if name in _TAKE_STEPS:
    from augdistill.training import freed_memory

    freed_memory.in_first_thread()
  together.join(args)
  with together.quiet():
    return _command(name).run(args) or 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """The flags of a command.

  Args:
    argv: the name of a command that there is, and its arguments.

  Returns:
    The flags, with `gin_bindings` and `call`.

  Raises:
    UsageError: if there is no such flag, or a value is wrong.
  """
  began = time.perf_counter()
  parser = _parser(argv[0])
  args, rest = parser.parse_known_args(argv[1:])
  args.gin_bindings = _gin_bindings(parser, rest, hasattr(args, "gin_file"))
  args.call = Call(together.without_flags(argv), began)
  return args


def _command(name: str) -> types.ModuleType:
  return importlib.import_module(f"augdistill.cli.{name}")


def _parser(name: str) -> argparse.ArgumentParser:
  command = _command(name)
  parser = _Parser(
    prog=f"augdistill {name}",
    description=f"{command.__doc__}",
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  command.add_arguments(parser)
  return parser


class _Parser(argparse.ArgumentParser):
  """Says what is wrong in one line, without the usage around it."""

  def error(self, message: str):
    raise UsageError(f"{message}. See {self.prog} --help")


def _overview() -> str:
  width = max(map(len, COMMANDS))
  lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
  return "\n".join(
    ["usage: augdistill COMMAND [--flag VALUE ...]", "", *lines, "", EPILOG]
  )


def _gin_bindings(
  parser: argparse.ArgumentParser, rest: list[str], takes_gin: bool
) -> list[str]:
  """The `--gin.NAME=VALUE` among unknown arguments; any other is an error."""
  bindings = []
  for argument in rest:
    binding = argument.removeprefix("--gin.")
    if takes_gin and binding != argument and "=" in binding:
      name, value = binding.split("=", 1)
      bindings.append(f"{name.strip()} = {value}")
      continue
    if takes_gin and binding != argument:
      raise UsageError(
        f"a binding must read --gin.NAME=VALUE, got {argument!r}"
      )
    known = [o for action in parser._actions for o in action.option_strings]
    raise UsageError(
      f"{parser.prog} does not know {argument!r}."
      + suggest(argument.split("=")[0], known)
      + f" See {parser.prog} --help."
    )
  return bindings


if __name__ == "__main__":
  sys.exit(main())
