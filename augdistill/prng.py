"""The only place that derives random keys.

One run key; `at_step`; then a stream per purpose, by name; then, where a draw
belongs to an example, the example's id and copy. So every draw is a function
of (seed, step, name, example), whatever the sharding, the microbatch or the
number of restarts, and no key is ever stored.
"""

import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from augdistill.errors import UsageError


def run_key(seed: int) -> Key[Array, ""]:
  """The key of a run, from its seed.

  Args:
    seed: in [0, 2^32); JAX would cut off the rest and repeat another seed.

  Raises:
    UsageError: if it is outside.
  """
  if not 0 <= seed < 2**32:
    raise UsageError(f"the seed must be in [0, 2^32), got {seed}")
  return jax.random.key(seed)


def at_step(key: Key[Array, ""], step: int | Int[Array, ""]) -> Key[Array, ""]:
  """The key of step `step` of the run with key `key`."""
  return jax.random.fold_in(key, step)


def stream(key: Key[Array, ""], name: str) -> Key[Array, ""]:
  """The key of the purpose called `name`: crc32, the same in every process."""
  return jax.random.fold_in(key, jnp.uint32(zlib.crc32(name.encode())))


def per_example(
  key: Key[Array, ""], example_id: Int[Array, "B"], copy: int = 0
) -> Key[Array, "B"]:
  """One key per row, a function of the example's id and the copy's number.

  Args:
    key: the key of a purpose.
    example_id: i32[B].
    copy: the number of the copy that is being made of each example.

  Returns:
    Keys [B].
  """
  key = jax.random.fold_in(key, copy)
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(example_id)


def per_text(
  key: Key[Array, ""],
  tokens: Int[Array, "B L"],
  mask: Bool[Array, "B L"],
  copy: int | Int[Array, ""] = 0,
) -> Key[Array, "B"]:
  """One key per row, a function of its tokens and the copy's number alone.

  So equal texts have equal keys, whatever their place, padding or data set.

  Args:
    key: the key of a purpose.
    tokens: i32[B, L].
    mask: bool[B, L] True at real tokens.
    copy: the number of the copy that is being made of each text.

  Returns:
    Keys [B].
  """

  def add(keys, column):
    token, real = column
    return jnp.where(real, jax.vmap(jax.random.fold_in)(keys, token), keys), ()

  keys = jnp.broadcast_to(jax.random.fold_in(key, copy), tokens.shape[:1])
  return jax.lax.scan(add, keys, (tokens.T, mask.T))[0]
