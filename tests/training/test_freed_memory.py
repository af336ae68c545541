"""Freed memory stays; each question in a process of its own, for good."""

import os
import subprocess
import sys
import types

import jax
import pytest

from augdistill.training import freed_memory

# Of 4 kB each, wherever the system would give larger ones: PR_SET_THP_DISABLE.
SMALL_PAGES = """
import ctypes, sys
if sys.platform == "linux":
  ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)
"""

# Pages that come anew when large arrays are made and freed, before and after.
COUNT = """
import resource
import numpy as np
from augdistill.training import freed_memory

def step():
  arrays = [np.ones(3 * 2**20) for _ in range(4)]

def faults():
  step(), step()
  begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  for _ in range(20):
    step()
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin

before = faults()
print(before, int(freed_memory.keep()), faults())
"""

# Pages that come anew in a program with a product of 80 MB, at every turn.
COUNT_OF_PROGRAM = """
import resource
import jax
import jax.numpy as jnp
from augdistill.training import freed_memory

if "first" in sys.argv:
  freed_memory.in_first_thread()
program = jax.jit(lambda x: jnp.sum(jnp.sin(x @ x.T)))
x = jnp.ones((4500, 4))
program(x).block_until_ready()
freed_memory.keep()

def faults(turns):
  begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  for _ in range(turns):
    program(x).block_until_ready()
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin

faults(20)  # A few turns begin before the last one's piece is free.
print(faults(20) // 20)
"""


def run(code, *arguments, **environment):
  """The numbers that some code prints, in a process of its own."""
  clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
  ran = subprocess.run(
    [sys.executable, "-c", SMALL_PAGES + code, *arguments],
    env=clean | environment,
    capture_output=True,
    text=True,
    check=True,
  )
  return list(map(int, ran.stdout.split()))


def count(**environment):
  """Faults before, whether memory is kept, and faults after."""
  return run(COUNT, **environment)


glibc_only = pytest.mark.skipif(
  sys.platform != "linux" or "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"),
  reason="other C libraries have no such setting",
)


@glibc_only
def test_what_is_freed_is_there_for_the_next_one():
  before, kept, after = count()
  assert kept
  assert after < before / 10


@glibc_only
def test_a_program_in_the_first_thread_keeps_large_pieces_too():
  (elsewhere,), (there,) = run(COUNT_OF_PROGRAM), run(COUNT_OF_PROGRAM, "first")
  assert there < elsewhere / 10


def test_who_has_set_the_library_otherwise_is_left_alone():
  _, kept, _ = count(MALLOC_ARENA_MAX="2")
  assert not kept


def asked_of(monkeypatch, largest, backend="cpu"):
  """What is set in a C library with such a limit, and whether that keeps."""
  asked = []

  def mallopt(what, value):
    asked.append((what, value))
    return int(what != -3 or value <= largest)

  library = types.SimpleNamespace(mallopt=mallopt)
  monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda name: library)
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  for name in [n for n in os.environ if n.startswith("MALLOC_")]:
    monkeypatch.delenv(name)
  return asked, freed_memory.keep()


def test_where_no_threshold_is_that_large_the_documented_limit_is_set(
  monkeypatch,
):
  asked, kept = asked_of(monkeypatch, 2**25)
  assert kept
  assert asked == [(-3, 2**30), (-3, 2**25), (-1, 2**31 - 1)]
  _, kept = asked_of(monkeypatch, 2**24)
  assert not kept


def test_accelerators_and_other_libraries_are_left_alone(monkeypatch):
  asked, kept = asked_of(monkeypatch, 2**30, "gpu")
  assert not kept
  assert not asked
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  monkeypatch.setattr(
    freed_memory.ctypes, "CDLL", lambda name: types.SimpleNamespace()
  )
  assert not freed_memory.keep()
