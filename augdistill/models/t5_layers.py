"""The layers of T5, with T5X's parameter names, shapes and logical axes.

Every parameter is made by `flax.linen.partitioning.param_with_axes`, so that
T5X's partitioner takes these modules as they are. Activations may have any
number of leading axes (`...`): a view's copies and rows stay two axes, and
rows, which may be sharded, are merged with others only as the outermost.

References:
  Raffel et al. 2020, arXiv:1910.10683; Shazeer 2020, arXiv:2002.05202 (the
  gated MLP); parameter layout: github.com/google-research/t5x.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning
from jaxtyping import Array, Bool, Float, Int

from augdistill.models.dense import Dense

MASKED_LOGIT = -1e10
# L: an int; or an expression, where a program is exported for any length.
Length = Any

fan_in_normal = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def relative_position_bucket(
  relative_position: Int[Array, "Q K"],
  num_buckets: int = 32,
  max_distance: int = 128,
) -> Int[Array, "Q K"]:
  """Bucket of each relative position, bidirectional.

  Half of the buckets are for keys behind the query, half for keys before it;
  in each half the first half is exact and the rest grows logarithmically up
  to `max_distance`.

  Args:
    relative_position: i32[Q, K], key position minus query position.
    num_buckets: how many buckets there are, even.
    max_distance: from here on, all distances share the last bucket.

  Returns:
    i32[Q, K] in [0, num_buckets).
  """
  half = num_buckets // 2
  exact = half // 2
  distance = jnp.abs(relative_position)
  # In float32 log(x) / log(y) lands on either side of an integer; T5 adds eps.
  ratio = distance.astype(jnp.float32) / exact + jnp.finfo(jnp.float32).eps
  growth = jnp.log(ratio) / math.log(max_distance / exact) * (half - exact)
  far = exact + growth.astype(jnp.int32)
  bucket = jnp.where(distance < exact, distance, jnp.minimum(far, half - 1))
  return bucket + jnp.where(relative_position > 0, half, 0)


class RelativePositionBias(nn.Module):
  """One learned bias per head and bucket."""

  num_heads: int
  num_buckets: int = 32
  max_distance: int = 128

  @nn.compact
  def __call__(self, length: Length) -> Float[Array, "H L L"]:
    table = partitioning.param_with_axes(
      "rel_embedding",
      nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
      (self.num_heads, self.num_buckets),
      jnp.float32,
      axes=("heads", "relpos_buckets"),
    )
    position = jnp.arange(length, dtype=jnp.int32)
    bucket = relative_position_bucket(
      position[None, :] - position[:, None], self.num_buckets, self.max_distance
    )
    return jnp.take(table, bucket, axis=1).astype(jnp.float32)  # [H, L, L]


class RMSNorm(nn.Module):
  """x / rms(x) * scale, computed in float32; no mean, no bias."""

  dtype: jnp.dtype = jnp.dtype("float32")
  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
    scale = partitioning.param_with_axes(
      "scale",
      nn.initializers.ones,
      (x.shape[-1],),
      jnp.float32,
      axes=("embed",),
    )
    x = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    normed = x * jax.lax.rsqrt(mean_square + self.epsilon)
    scale = jnp.expand_dims(scale, range(x.ndim - 1))
    return (normed * scale).astype(self.dtype)


def broadcast_dropout(rate: float) -> nn.Dropout:
  """Dropout whose mask is shared by all positions, as T5 draws it."""
  return nn.Dropout(rate=rate, broadcast_dims=(-2,))


class Attention(nn.Module):
  """Multi-head attention as T5 has it: no bias, no 1/sqrt(head_dim).

  T5 puts the factor 1/sqrt(head_dim) into the initial query kernel instead.
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
  ) -> tuple[
    Float[Array, "*n Q D"],
    tuple[Float[Array, "*n H Q K"], Float[Array, "*n K H d"]],
  ]:
    """Attends from queries to keys.

    Args:
      queries: f[..., Q, D], normed.
      keys: f[..., K, D].
      bias: f32, same rank as the logits [..., H, Q, K] and broadcastable to
        them: relative positions plus mask.
      deterministic: no dropout.

    Returns:
      The output f[..., Q, D]; and, for who wants to look inside, the
      probabilities f[..., H, Q, K] (without dropout) and the values
      f[..., K, H, head_dim].
    """
    joined = self.num_heads * self.head_dim

    def project(name, x, init):
      y = Dense(joined, ("embed", "joined_kv"), init, self.dtype, name=name)(x)
      return y.reshape(*y.shape[:-1], self.num_heads, self.head_dim)

    def query_init(*args):
      return fan_in_normal(*args) / math.sqrt(self.head_dim)

    query = project("query", queries, query_init)  # [..., Q, H, K]
    key = project("key", keys, fan_in_normal)
    value = project("value", keys, fan_in_normal)
    logits = jnp.einsum("...qhd,...khd->...hqk", query, key)
    probabilities = nn.softmax(logits.astype(jnp.float32) + bias, axis=-1)
    dropped = broadcast_dropout(self.dropout_rate)(
      probabilities.astype(self.dtype), deterministic=deterministic
    )
    mixed = jnp.einsum("...hqk,...khd->...qhd", dropped, value)
    mixed = mixed.reshape(*mixed.shape[:-2], joined)
    out = Dense(
      queries.shape[-1],
      ("joined_kv", "embed"),
      fan_in_normal,
      self.dtype,
      name="out",
    )(mixed)
    return out, (probabilities, value)


# How the MLP's hidden layer is made, by transformers' names.
FEED_FORWARDS = ("gated-gelu", "gated-silu", "relu")


class Mlp(nn.Module):
  """(f(x wi_0) * (x wi_1)) wo, or relu(x wi) wo, T5 1.0's.

  f is gelu in its tanh form, as of T5 1.1, or silu.
  """

  mlp_dim: int
  feed_forward: str = "gated-gelu"
  dropout_rate: float = 0.0
  dtype: jnp.dtype = jnp.dtype("float32")

  @nn.compact
  def __call__(
    self, x: Float[Array, "*n L D"], *, deterministic: bool
  ) -> Float[Array, "*n L D"]:
    def wide(name):
      return Dense(self.mlp_dim, ("embed", "mlp"), dtype=self.dtype, name=name)(
        x
      )

    if self.feed_forward == "relu":
      hidden = nn.relu(wide("wi"))
    else:
      f = nn.gelu if self.feed_forward == "gated-gelu" else nn.silu
      hidden = f(wide("wi_0")) * wide("wi_1")
    hidden = broadcast_dropout(self.dropout_rate)(
      hidden, deterministic=deterministic
    )
    return Dense(x.shape[-1], ("mlp", "embed"), dtype=self.dtype, name="wo")(
      hidden
    )


def padding_bias(mask: Bool[Array, "*n K"]) -> Float[Array, "*n 1 1 K"]:
  """0 where a key is real, -1e10 where it is padding: f32[..., 1, 1, K]."""
  bias = jnp.where(mask, 0.0, MASKED_LOGIT).astype(jnp.float32)
  return bias[..., None, None, :]
