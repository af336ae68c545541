"""The type of numbers that a frozen model is kept and run in."""

from typing import Any

import jax
import jax.numpy as jnp


def cast_matrices(params: Any, dtype: str) -> Any:
  """Parameters with their matrices in another type, such as "bfloat16".

  Scales and biases stay as they are: they are small, and norms are computed in
  float32.

  Args:
    params: arrays, or shapes of arrays; None stays None.
    dtype: of the matrices.

  Returns:
    A tree like it.
  """
  dtype = jnp.dtype(dtype)

  def cast(leaf):
    if leaf.ndim < 2:
      return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
      return jax.ShapeDtypeStruct(leaf.shape, dtype)
    return leaf.astype(dtype)

  return jax.tree.map(cast, params)
