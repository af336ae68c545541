"""Keeps compiled programs: what was compiled once is read the next time.

The cache is JAX's own, in the folder `compiled` of `default_cache_dir`. JAX
names a program by its code, its options, its own version and the features of
the devices, CPUs too, so machines may share a home. Of several processes the
first writes. What cannot be read or written is compiled, with a warning.

Every setting here is a default: JAX's own variables go before. So
JAX_ENABLE_COMPILATION_CACHE=false turns it off, and JAX_COMPILATION_CACHE_DIR
puts it elsewhere, in a bucket, too.
"""

import os
import pathlib
import sys

from augdistill.cache_dir import default_cache_dir

_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
# The programs used last stay, up to so many bytes.
_SIZE = "JAX_COMPILATION_CACHE_MAX_SIZE", str(2**30)
# A run compiles many that take less; together they take long.
_SHORTEST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1"


def keep_programs() -> None:
  """Makes JAX keep what it compiles; before JAX is imported, or to no effect.

  Where the folder cannot be written to, nothing is kept, and nothing fails.
  """
  if "jax" in sys.modules or _DIRECTORY in os.environ:
    return
  path = pathlib.Path(default_cache_dir(), "compiled")
  try:
    # Who can write there has his programs run here.
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_torn(path)
  except (OSError, NotImplementedError):  # The latter: no locks there.
    return
  os.environ[_DIRECTORY] = str(path)
  for name, value in (_SIZE, _SHORTEST):
    os.environ.setdefault(name, value)


def _remove_torn(path: pathlib.Path) -> None:
  """Removes what a process was writing when it was killed.

  JAX would not write it again, and could not tell how old it is. It writes a
  program and then its age, and holds the lock until both are there.

  Raises:
    OSError: if the folder cannot be written to.
  """
  import filelock

  try:
    with filelock.FileLock(path / ".lockfile", timeout=0):
      for program in path.glob("*-cache"):
        age = program.with_name(program.name.removesuffix("-cache") + "-atime")
        if not age.exists():
          program.unlink()
  except filelock.Timeout:  # Somebody writes, and is alive.
    return
