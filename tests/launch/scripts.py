"""The scripts of launch/, run with programs on PATH that only write down."""

import contextlib
import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
# Appends its arguments to $CALLS, one call per line.
RECORD = """#!/bin/bash
(IFS=$'\\x1f'; printf '%s\\n' "${0##*/}"$'\\x1f'"$*" >>"$CALLS")
"""


class Done(NamedTuple):
  """What a script left behind."""

  code: int
  out: str
  err: str


class Programs:
  """A folder of programs that is first on PATH, and what they were told."""

  def __init__(self, folder: pathlib.Path):
    self.bin = folder / "bin"
    self.bin.mkdir()
    self.cwd = folder / "somewhere else"
    self.cwd.mkdir()
    self._calls = folder / "calls"
    self.env = {
      "PATH": f"{self.bin}:/usr/bin:/bin",
      "HOME": str(folder),
      "TMPDIR": str(folder),
      "CALLS": str(self._calls),
    }

  def add(self, name: str, body: str = "") -> pathlib.Path:
    """A program that writes down its arguments and then does `body`."""
    path = self.bin / name
    path.write_text(RECORD + body)
    path.chmod(0o755)
    return path

  def calls(self) -> list[list[str]]:
    """The programs' names and arguments, in order."""
    if not self._calls.exists():
      return []
    lines = self._calls.read_text().splitlines()
    return [line.split("\x1f") for line in lines]

  def command(self, script: str, *words) -> list[str]:
    return ["bash", str(LAUNCH / script), *map(str, words)]

  def run(self, script: str, *words, **env) -> Done:
    """Runs launch/SCRIPT."""
    done = subprocess.run(
      self.command(script, *words),
      env=self.env | env,
      cwd=self.cwd,
      capture_output=True,
      text=True,
      timeout=60,
    )
    return Done(done.returncode, done.stdout, done.stderr)

  @contextlib.contextmanager
  def start(self, script: str, *words, **env) -> Iterator[subprocess.Popen]:
    """Starts launch/SCRIPT, which does not outlive the context."""
    # A shell that has us in the background ignores SIGINT, and so would it.
    hears = (
      "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
      "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
      [sys.executable, "-c", hears, *self.command(script, *words)],
      env=self.env | env,
      cwd=self.cwd,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    with process:
      try:
        yield process
      finally:
        process.kill()


def parsed(printed: str) -> list[list[str]]:
  """What a dry run printed, as words; it must be what bash can parse."""
  checked = subprocess.run(
    ["bash", "-n"], input=printed, capture_output=True, text=True
  )
  assert checked.returncode == 0, checked.stderr
  lines = [shlex.split(line, comments=True) for line in printed.splitlines()]
  return [words for words in lines if words]


def without_programs(programs: Programs, *wanted: str) -> dict[str, str]:
  """An environment whose PATH has the named programs of the system alone."""
  folder = programs.bin.parent / "few"
  folder.mkdir()
  for name in wanted:
    place = next(
      p for p in ("/bin", "/usr/bin") if os.path.exists(f"{p}/{name}")
    )
    (folder / name).symlink_to(f"{place}/{name}")
  return {"PATH": str(folder)}
