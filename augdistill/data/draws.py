"""Random orders and choices: the only place in this room that draws."""

import hashlib

import numpy as np


def permutation(n: int, *name: object) -> np.ndarray:
  """A random order of n things, a function of a name alone.

  It sorts the raw bits of a counter-based generator (Philox), which are the
  same on every machine and in every version of NumPy.

  Args:
    n: how many things.
    *name: what the order is for: strings and numbers; any other name gives
      an independent order.

  Returns:
    i64[n], each of 0 ... n - 1 once.
  """
  return np.argsort(_raw_bits(n, name), kind="stable")


def choices(n: int, count: int, *name: object) -> np.ndarray:
  """n independent choices of one of so many things, a function of a name alone.

  Args:
    n: how many choices.
    count: how many things there are.
    *name: as of `permutation`.

  Returns:
    i64[n], each below `count`.
  """
  return (_raw_bits(n, name) % np.uint64(count)).astype(np.int64)


def _raw_bits(n: int, name: tuple[object, ...]) -> np.ndarray:
  digest = hashlib.sha256(repr(name).encode()).digest()
  bits = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
  return bits.random_raw(n)
