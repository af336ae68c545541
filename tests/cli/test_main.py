"""The command line itself: what it lists, how fast, and its exit codes."""

import json
import os
import subprocess
import sys
import time

import pytest

from augdistill.cli import main as main_module
from augdistill.cli.main import COMMANDS
from augdistill.errors import Preempted, RunError, UsageError
from tests.cli.tiny import command, run

HEAVY = {"jax", "flax", "tensorflow", "seqio", "numpy", "gin", "rich"}
REPORT = """
import json, sys
from augdistill.cli.main import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_comes_at_once_and_without_heavy_imports(name):
  begin = time.monotonic()
  done = subprocess.run(
    [sys.executable, "-c", REPORT, name, "--help"],
    capture_output=True,
    text=True,
    check=True,
  )
  assert time.monotonic() - begin < 1.5
  code, modules = json.loads(done.stderr)
  assert code == 0
  assert not HEAVY.intersection(modules)
  assert f"usage: augdistill {name}" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_command_written_out(name, capsys):
  assert main_module.main([name, "--help"]) == 0
  assert f"\n  augdistill {name} " in capsys.readouterr().out


def test_without_a_command_the_commands_are_listed():
  done = run()
  assert done.code == 2
  assert all(f"\n  {name} " in done.out for name in COMMANDS)
  assert run("--help") == (0, done.out, "")


def test_the_version_is_that_of_the_package():
  assert run("--version").out.startswith("augdistill 0.")


@pytest.mark.parametrize(
  "argv, said",
  [
    (["distil"], "Did you mean 'distill'?"),
    (["finetune", "--trian=x", "--output_dir=y"], "Did you mean '--train'?"),
    (["finetune", "x.tsv", "--output_dir=y"], "does not know 'x.tsv'"),
    (["finetune", "--train=x"], "--output_dir. See augdistill finetune --help"),
    (["finetune", "--output_dir=y", "--num_steps=many"], "'many'"),
    (["distill", "--output_dir=y", "--gin.MODEL"], "--gin.NAME=VALUE"),
    (["evaluate", "--run=x", "--data=y", "--gin.A=1"], "does not know"),
    (["predict", "--run=x"], "--input"),
  ],
)
def test_a_wrong_word_is_named_in_one_line(argv, said):
  done = run(*argv)
  assert done.code == 2
  assert done.out == ""
  assert done.err.startswith("augdistill: error: ")
  assert said in done.err
  assert done.err.count("\n") == 1


@pytest.mark.parametrize(
  "error, code, said",
  [
    (UsageError("a"), 2, "augdistill: error: a\n"),
    (RunError("b"), 1, "augdistill: error: b\n"),
    (Preempted("c"), 75, "augdistill: error: c\n"),
    (SystemExit(75), 75, ""),
    (KeyboardInterrupt(), 130, "augdistill: interrupted\n"),
    (
      OSError(28, "No space left on device", "/x"),
      1,
      "augdistill: error: No space left on device (/x)\n",
    ),
    (
      FileExistsError(17, "File exists", "a.tsv"),
      1,
      "augdistill: error: File exists (a.tsv)\n",
    ),
  ],
)
def test_an_error_for_a_person_has_its_exit_code_and_no_traceback(
  monkeypatch, error, code, said
):
  def fail(argv):
    raise error

  monkeypatch.setattr(main_module, "_run", fail)
  assert run() == (code, "", said)


@pytest.mark.parametrize("bug", [KeyError("x"), FileNotFoundError(2, "x")])
def test_a_bug_keeps_its_traceback(monkeypatch, bug):
  def fail(argv):
    raise bug

  monkeypatch.setattr(main_module, "_run", fail)
  with pytest.raises(type(bug)):
    run()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_error(unbuffered):
  process = subprocess.Popen(
    command("finetune", "--help"),
    env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )
  process.stdout.close()
  assert process.stderr.read() == b""
  assert process.wait() == 0
