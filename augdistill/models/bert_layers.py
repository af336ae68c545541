"""The layers of the BERT family; their norms stand behind the residuals.

References:
  Devlin et al. 2019, arXiv:1810.04805, section 3; Vaswani et al. 2017,
  arXiv:1706.03762, section 3.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning
from jaxtyping import Array, Bool, Float, Int

from augdistill.models.bert_config import ACTIVATIONS, BertConfig
from augdistill.models.dense import Dense
from augdistill.models.embedder import TokenEmbedder
from augdistill.models.stack import Passed, pass_through
from augdistill.models.t5_layers import padding_bias
from augdistill.types import Inputs

INIT = 0.02  # standard deviation of everything that is new
normal = nn.initializers.normal(INIT)


class LayerNorm(nn.Module):
  """(x - mean) / sqrt(variance + epsilon) * scale + bias, in float32."""

  epsilon: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
    def vector(name, init):
      its = partitioning.param_with_axes(
        name, init, (x.shape[-1],), jnp.float32, axes=("embed",)
      )
      return jnp.expand_dims(its, range(x.ndim - 1))

    scale = vector("scale", nn.initializers.ones)
    bias = vector("bias", nn.initializers.zeros)
    x = x.astype(jnp.float32)
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    normed = x * jax.lax.rsqrt(variance + self.epsilon)
    return (normed * scale + bias).astype(self.dtype)


def dense(
  config: BertConfig, features: int, axes: tuple[str, str], name: str
) -> Dense:
  """A dense layer with a bias, new as BERT's are."""
  return Dense(
    features, axes, normal, jnp.dtype(config.dtype), use_bias=True, name=name
  )


class SelfAttention(nn.Module):
  """softmax(q k^T / sqrt(d) + bias) v, each with a bias of its own."""

  config: BertConfig

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n M L D"],
    bias: Float[Array, "n M 1 1 L"],
    *,
    deterministic: bool,
  ):
    """The output, the probabilities (without dropout) and the values."""
    config = self.config
    width, heads = config.emb_dim, config.num_heads

    def project(name):
      y = dense(config, width, ("embed", "joined_kv"), name)(x)
      return y.reshape(*y.shape[:-1], heads, width // heads)

    query = project("query") / math.sqrt(width // heads)  # [n, M, L, H, d]
    key, value = project("key"), project("value")
    logits = jnp.einsum("nmqhd,nmkhd->nmhqk", query, key)
    probabilities = nn.softmax(logits.astype(jnp.float32) + bias, axis=-1)
    dropped = nn.Dropout(config.dropout_rate)(
      probabilities.astype(x.dtype), deterministic=deterministic
    )
    mixed = jnp.einsum("nmhqk,nmkhd->nmqhd", dropped, value)
    mixed = mixed.reshape(x.shape)
    out = dense(config, width, ("joined_kv", "embed"), "out")(mixed)
    return out, (probabilities, value)


class BertLayer(nn.Module):
  """Self-attention and an MLP, each with a residual and a norm behind it."""

  config: BertConfig

  @nn.compact
  def __call__(self, x, bias, *, deterministic: bool):
    config, dtype = self.config, jnp.dtype(self.config.dtype)

    def added(x, y, name):
      y = nn.Dropout(config.dropout_rate)(y, deterministic=deterministic)
      return LayerNorm(config.epsilon, dtype, name=name)(x + y)

    attended, inside = SelfAttention(config, name="attention")(
      x, bias, deterministic=deterministic
    )
    x = added(x, attended, "attention_layer_norm")
    hidden = dense(config, config.mlp_dim, ("embed", "mlp"), "wi")(x)
    hidden = ACTIVATIONS[config.activation](hidden)
    y = dense(config, config.emb_dim, ("mlp", "embed"), "wo")(hidden)
    return added(x, y, "mlp_layer_norm"), inside


class BertEncoder(nn.Module):
  """The stack of layers; may be entered at any of them."""

  config: BertConfig

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n M L D"],
    mask: Bool[Array, "n M L"],
    first_layer: int,
    *,
    deterministic: bool,
  ) -> Passed:
    """Runs layers `first_layer` to the last on `x`, as of `pass_through`."""
    layers = [
      BertLayer(self.config, name=f"layers_{i}")
      for i in range(self.config.num_layers)
    ]
    return pass_through(
      *(layers, x, padding_bias(mask), first_layer),
      initializing=self.is_initializing(),
      deterministic=deterministic,
      remat=self.config.remat,
    )


def beside_words(
  config: BertConfig,
  positions: TokenEmbedder,
  segments: TokenEmbedder | None,
  inputs: Inputs,
) -> Float[Array, "n M L D"]:
  """What is added to the words: positions, and the texts of a pair.

  Args:
    config: the shape.
    positions: embeds positions.
    segments: embeds the texts of a pair; None where these are not told apart.
    inputs: tokens, or embeddings.

  Returns:
    f[n, M, L, D], or one that broadcasts to it.

  Raises:
    ValueError: if there are more positions than the table has.
  """
  length = inputs.mask.shape[-1]
  if length > config.max_length:
    raise ValueError(
      f"texts must have at most {config.max_length} tokens, got {length}"
    )
  numbers = config.first_position + jnp.arange(length, dtype=jnp.int32)
  beside = positions(numbers)[None, None]  # [1, 1, L, D]
  if segments is None:
    return beside
  ids = inputs.segment_ids
  if ids is None and inputs.tokens is not None:
    ids = segments_of(inputs.tokens, config.separator_id)
  if ids is None:
    ids = jnp.zeros((1, 1, length), jnp.int32)
  # RoBERTa has one row for all texts.
  return beside + segments(jnp.minimum(ids, config.num_segments - 1))


def segments_of(
  tokens: Int[Array, "*n L"], separator_id: int
) -> Int[Array, "*n L"]:
  """0 up to the first separator and itself, 1 after it: i32[..., L]."""
  ends = (tokens == separator_id).astype(jnp.int32)
  before = jnp.cumsum(ends, axis=-1, dtype=jnp.int32) - ends
  return jnp.minimum(before, 1)
