"""What is compiled once is read the next time, and never in the way."""

import os
import subprocess
import sys

import pytest

from augdistill.cli import compilation
from tests.cli.tiny import run

HITS = """
from augdistill.cli.compilation import keep_programs
keep_programs()
import jax
hits = []
jax.monitoring.register_event_listener(
  lambda event, **_: hits.append(event) if "cache_hits" in event else None
)
jax.jit(lambda x: x * 2 + 1)(1.0)
print(len(hits))
"""
JAX = "JAX_COMPILATION_CACHE_DIR"
SETTINGS = (
  *(JAX, "JAX_COMPILATION_CACHE_MAX_SIZE"),
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


@pytest.fixture
def programs(tmp_path, monkeypatch):
  """The folder of programs, as if nothing had imported JAX or set it up."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  for name in SETTINGS:
    monkeypatch.setenv(name, "")  # Or what is set meanwhile would stay.
    monkeypatch.delenv(name)
  monkeypatch.delitem(sys.modules, "jax")
  return tmp_path / "augdistill" / "compiled"


def hits():
  """How many programs a new process need not compile."""
  env = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
  return int(subprocess.check_output([sys.executable, "-c", HITS], env=env))


def test_what_one_process_compiles_the_next_one_reads(programs, monkeypatch):
  assert hits() == 0
  assert hits() > 0
  monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
  assert hits() == 0


def test_every_command_keeps_its_programs(monkeypatch):
  kept = []
  monkeypatch.setattr(compilation, "keep_programs", lambda: kept.append(1))
  run("evaluate", "--run=missing", "--data=missing")
  assert kept


def test_the_folder_is_bounded_and_the_settings_are_defaults(
  programs, monkeypatch
):
  monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
  compilation.keep_programs()
  assert os.environ[JAX] == str(programs)
  assert programs.stat().st_mode & 0o777 == 0o700
  assert int(os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"]) == 2**30
  assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "7"


def test_a_folder_of_ones_own_is_left_alone(programs, monkeypatch):
  monkeypatch.setenv(JAX, "gs://bucket/programs")
  compilation.keep_programs()
  assert os.environ[JAX] == "gs://bucket/programs"
  assert not programs.exists()


def test_where_it_cannot_be_written_nothing_is_kept(
  programs, tmp_path, monkeypatch
):
  programs.parent.write_text("a file")
  compilation.keep_programs()
  assert JAX not in os.environ
  programs.parent.unlink()
  programs.mkdir(parents=True)
  (programs / ".lockfile").mkdir()  # As forbidden as in a folder of root's.
  compilation.keep_programs()
  assert JAX not in os.environ


def test_a_torn_program_is_removed_and_a_whole_one_is_not(programs):
  programs.mkdir(parents=True)
  for name in ("torn-cache", "whole-cache", "whole-atime"):
    (programs / name).write_text("x")
  compilation.keep_programs()
  assert {path.name for path in programs.glob("*e")} == {
    *("whole-cache", "whole-atime", ".lockfile")
  }
