"""A dense layer, and the product under it."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning
from jaxtyping import Array, Float

fan_in_truncated = nn.initializers.variance_scaling(
  1.0, "fan_in", "truncated_normal"
)


class Dense(nn.Module):
  """x @ kernel, or x @ kernel + bias; kernel f32[in, out], bias f32[out].

  Attributes:
    features: out.
    axes: the logical axes of the kernel.
    kernel_init: of the kernel; a bias begins with 0.
    dtype: of activations.
    use_bias: whether there is one.
  """

  features: int
  axes: tuple[str, str]
  kernel_init: Callable = fan_in_truncated
  dtype: jnp.dtype = jnp.dtype("float32")
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, "*n I"]) -> Float[Array, "*n O"]:
    kernel = partitioning.param_with_axes(
      "kernel",
      self.kernel_init,
      (x.shape[-1], self.features),
      jnp.float32,
      axes=self.axes,
    )
    y = times_matrix(x.astype(self.dtype), kernel.astype(self.dtype))
    if not self.use_bias:
      return y
    bias = partitioning.param_with_axes(
      "bias",
      nn.initializers.zeros,
      (self.features,),
      jnp.float32,
      axes=self.axes[1:],
    )
    return y + jnp.expand_dims(bias.astype(self.dtype), range(y.ndim - 1))


def times_matrix(x: Float[Array, "*n I"], kernel) -> Float[Array, "*n O"]:
  """x @ kernel, computed as one product of two matrices.

  So is its gradient to the kernel, which XLA would otherwise contract over
  several axes, on CPUs by transposed copies: a student's backward pass took
  half as long again. Rows, the second of four axes, are merged as the
  outermost, so that they may be sharded.

  Args:
    x: f[..., I]; of a view's activations [n, M, L, I].
    kernel: f[I, O].

  Returns:
    f[..., O].
  """
  if x.ndim == 4:
    x = jnp.swapaxes(x, 0, 1)  # [M, n, L, I]
  y = x.reshape(-1, x.shape[-1]) @ kernel
  y = y.reshape(*x.shape[:-1], -1)
  return jnp.swapaxes(y, 0, 1) if x.ndim == 4 else y
