"""Random orders of rows: the only place in this room that draws."""

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
  digest = hashlib.sha256(repr(name).encode()).digest()
  bits = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
  return np.argsort(bits.random_raw(n), kind="stable")
