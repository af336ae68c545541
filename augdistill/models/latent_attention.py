"""Attention of a few queries to many keys, which projects neither of them.

T5's attention multiplies every position by the matrices of keys and values.
Where a single latent query reads a text, that is the cost of the layer. The
products associate: q (x W_k)^T = (q W_k^T) x^T, and p (x W_v) = (p x) W_v. So
here the query goes through both matrices, and the text through none: 2 D
multiplications for a position and head in place of 2 (D + 1) d.
"""

import math

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning
from jaxtyping import Array, Float

from augdistill.models.dense import Dense
from augdistill.models.t5_layers import broadcast_dropout, fan_in_normal


class Kernel(nn.Module):
  """The parameter of a `Dense` of the same name, f32[in, out], by itself.

  Attributes:
    shape: in, out.
    axes: its logical axes.
  """

  shape: tuple[int, int]
  axes: tuple[str, str]

  @nn.compact
  def __call__(self) -> Float[Array, "I O"]:
    kernel = partitioning.param_with_axes(
      "kernel", fan_in_normal, self.shape, jnp.float32, axes=self.axes
    )
    return jnp.asarray(kernel)  # Given parameters may be NumPy's.


class LatentAttention(nn.Module):
  """`t5_layers.Attention`, the same function of the same parameters.

  To be taken where there are fewer queries than a head is wide.

  Attributes:
    num_heads: H.
    head_dim: d.
    dropout_rate: of the probabilities.
    dtype: of activations.
  """

  num_heads: int
  head_dim: int
  dropout_rate: float = 0.0
  dtype: jnp.dtype = jnp.dtype("float32")

  @nn.compact
  def __call__(
    self,
    queries: Float[Array, "*n Q D"],
    keys: Float[Array, "*n K D"],
    bias: Float[Array, "*m h q K"],
    *,
    deterministic: bool,
  ) -> Float[Array, "*n Q D"]:
    """Attends from queries to keys.

    Args:
      queries: f[..., Q, D], normed.
      keys: f[..., K, D].
      bias: f32, same rank as the logits [..., H, Q, K] and broadcastable to
        them.
      deterministic: no dropout.

    Returns:
      f[..., Q, D].
    """
    heads, width = self.num_heads, keys.shape[-1]
    joined = heads * self.head_dim

    def by_head(name):
      kernel = Kernel((width, joined), ("embed", "joined_kv"), name=name)()
      return kernel.astype(self.dtype).reshape(width, heads, self.head_dim)

    def query_init(*args):
      return fan_in_normal(*args) / math.sqrt(self.head_dim)

    query = Dense(
      *(joined, ("embed", "joined_kv"), query_init, self.dtype), name="query"
    )(queries)
    query = query.reshape(*query.shape[:-1], heads, self.head_dim)
    sought = jnp.einsum("...qhd,Dhd->...hqD", query, by_head("key"))
    logits = jnp.einsum("...hqD,...kD->...hqk", sought, keys)
    probabilities = nn.softmax(logits.astype(jnp.float32) + bias, axis=-1)
    dropped = broadcast_dropout(self.dropout_rate)(
      probabilities.astype(self.dtype), deterministic=deterministic
    )
    found = jnp.einsum("...hqk,...kD->...hqD", dropped, keys)
    mixed = jnp.einsum("...hqD,Dhd->...qhd", found, by_head("value"))
    return Dense(
      *(queries.shape[-1], ("joined_kv", "embed"), fan_in_normal, self.dtype),
      name="out",
    )(mixed.reshape(*mixed.shape[:-2], joined))
