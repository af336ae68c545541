"""Freed memory stays; each question in a process of its own, for good."""

import os
import subprocess
import sys

import pytest

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


def count(**environment):
  """Faults before, whether memory is kept, and faults after."""
  clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
  ran = subprocess.run(
    [sys.executable, "-c", COUNT],
    env=clean | environment,
    capture_output=True,
    text=True,
    check=True,
  )
  return map(int, ran.stdout.split())


@pytest.mark.skipif(
  sys.platform != "linux" or "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"),
  reason="other C libraries have no such setting",
)
def test_what_is_freed_is_there_for_the_next_one():
  before, kept, after = count()
  assert kept
  assert after < before / 10


def test_who_has_set_the_library_otherwise_is_left_alone():
  _, kept, _ = count(MALLOC_ARENA_MAX="2")
  assert not kept
