"""Memory that a step frees stays for the next one, where CPUs compute.

XLA takes memory for its temporaries at every step and frees it at the end, some
60 MB in the quickstart's. glibc gives large pieces back to the system, which
clears each page before it hands it out again: an eighth of the processors' time
there. Kept, they are there. What is kept is what the last step needed, and it
can be had for all else the process does.

Two calls belong together: `in_first_thread` before JAX makes its devices, and
`keep` after the first step. For glibc gives each thread a heap of its own,
which holds pieces of up to 64 MB; larger ones are given back whatever is set,
but to the first thread, whose heap has no end.
"""

import ctypes
import os

import jax

# As in glibc's malloc.h; see mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
# Bytes from which on a piece is given back all the same: as many as a library
# takes. The second is the documented limit, which not all of them keep.
_LARGE = 2**30, 2**25


def in_first_thread() -> None:
  """Makes CPUs compute in the thread that asks for it, if devices are not made.

  Which ought to be the process's first one. By default JAX has threads for
  that, and the next step is prepared meanwhile: a millisecond, won back where
  temporaries are not tiny. Other devices are not concerned.
  """
  jax.config.update("jax_cpu_enable_async_dispatch", False)


def keep() -> bool:
  """Makes the C library keep what is freed from now on, if CPUs compute.

  Best after the first step: compiling frees much that no step needs. The
  library's own variables, MALLOC_TRIM_THRESHOLD_ and its like, go before.

  Returns:
    Whether it does; False on accelerators, and where the library is not glibc.
  """
  if jax.default_backend() != "cpu":
    return False
  if any(name.startswith("MALLOC_") for name in os.environ):
    return False
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is None:
    return False
  is_set = any(mallopt(_MMAP_THRESHOLD, size) for size in _LARGE)
  return is_set and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
