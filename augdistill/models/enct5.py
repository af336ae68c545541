"""EncT5: T5's encoder, one decoder layer that reads it, and a linear head.

The decoder layer has no self-attention: one learned latent query attends to
the encoded text, and the head reads what it found.

References:
  Liu et al. 2021, EncT5, arXiv:2110.08426; used by Wang et al. 2023, AugPro,
  arXiv:2210.11768, section 5.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning
from jaxtyping import Array, Bool, Float, Int

from augdistill.models import t5_layers
from augdistill.models.dense import Dense
from augdistill.models.embedder import TokenEmbedder
from augdistill.models.functional import as_network
from augdistill.models.latent_attention import LatentAttention
from augdistill.models.stack import pass_through
from augdistill.types import Inputs, Network, Outputs


@dataclasses.dataclass(frozen=True)
class EncT5Config:
  """The shape of an EncT5.

  Attributes:
    vocab_size: V, rows of the embedding table.
    num_outputs: C, what the head gives.
    emb_dim: D.
    mlp_dim: width of the gated MLP.
    num_layers: N, layers of the encoder.
    num_heads: H.
    head_dim: width of one head.
    dropout_rate: share of activations dropped wherever T5 drops them.
    dtype: of activations, "float32" or "bfloat16"; parameters are float32.
    feed_forward: of the MLPs: "gated-gelu" (T5 1.1, mT5), "relu" (T5 1.0) or
      "gated-silu".
    relative_bias: whether the layers of the encoder have one bias of relative
      positions together, "shared", or each its own, "per_layer" (umT5, and
      T5X's scanned layers).
    relative_buckets: of relative positions.
    relative_max_distance: from here on, all distances share a bucket.
    embedding_init: standard deviation of new word embeddings and of the
      latent query. T5's is 1; small models that are trained from scratch
      learn better from less, since what they learn then weighs more.
    remat: whether the backward pass computes the inside of each layer again,
      and does not keep it: less memory, a third more time, the same numbers.
  """

  vocab_size: int
  num_outputs: int
  emb_dim: int
  mlp_dim: int
  num_layers: int
  num_heads: int
  head_dim: int
  dropout_rate: float = 0.1
  dtype: str = "float32"
  embedding_init: float = 1.0
  feed_forward: str = "gated-gelu"
  relative_bias: str = "shared"
  relative_buckets: int = 32
  relative_max_distance: int = 128
  remat: bool = False

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.type is int and (not isinstance(value, int) or value < 1):
        raise ValueError(f"{field.name} must be a positive int, got {value!r}")
    if not 0.0 <= self.dropout_rate < 1.0:
      raise ValueError(
        f"dropout_rate must be in [0, 1), got {self.dropout_rate}"
      )
    exact = self.relative_buckets // 4  # As of `relative_position_bucket`.
    if not 0 < exact < self.relative_max_distance:
      raise ValueError(
        "relative_buckets must be at least 4, and relative_max_distance more "
        f"than a quarter of them, got {self.relative_buckets} and "
        f"{self.relative_max_distance}"
      )
    if not self.embedding_init > 0:
      raise ValueError(
        f"embedding_init must be positive, got {self.embedding_init}"
      )
    for name, choices in (
      ("dtype", ("float32", "bfloat16")),
      ("feed_forward", t5_layers.FEED_FORWARDS),
      ("relative_bias", ("shared", "per_layer")),
    ):
      value = getattr(self, name)
      if value not in choices:
        raise ValueError(
          f"{name} must be {' or '.join(choices)}, got {value!r}"
        )

  @property
  def max_length(self) -> None:
    """The most tokens that a text may have: any number."""
    return None


def _relative_bias(
  config: EncT5Config, length: t5_layers.Length
) -> Float[Array, "1 1 H L L"]:
  """The bias whose parameter lies in the module that calls this."""
  bias = t5_layers.RelativePositionBias(
    config.num_heads,
    config.relative_buckets,
    config.relative_max_distance,
    name="relpos_bias",
  )
  return bias(length)[None, None]


def _mlp(config: EncT5Config) -> t5_layers.Mlp:
  """The MLP of the layer that calls this."""
  return t5_layers.Mlp(
    config.mlp_dim,
    config.feed_forward,
    config.dropout_rate,
    jnp.dtype(config.dtype),
    name="mlp",
  )


class EncoderLayer(nn.Module):
  """Self-attention and gated MLP, each behind a norm, with a residual."""

  config: EncT5Config

  @nn.compact
  def __call__(self, x, bias, *, deterministic: bool):
    config, dtype = self.config, jnp.dtype(self.config.dtype)
    dropout = t5_layers.broadcast_dropout(config.dropout_rate)
    if config.relative_bias == "per_layer":
      bias = _relative_bias(config, x.shape[-2]) + bias
    normed = t5_layers.RMSNorm(dtype, name="pre_attention_layer_norm")(x)
    attended, inside = t5_layers.Attention(
      config.num_heads,
      config.head_dim,
      config.dropout_rate,
      dtype,
      name="attention",
    )(normed, normed, bias, deterministic=deterministic)
    x = x + dropout(attended, deterministic=deterministic)
    normed = t5_layers.RMSNorm(dtype, name="pre_mlp_layer_norm")(x)
    y = _mlp(config)(normed, deterministic=deterministic)
    dropout = t5_layers.broadcast_dropout(config.dropout_rate)
    return x + dropout(y, deterministic=deterministic), inside


class Encoder(nn.Module):
  """The stack of encoder layers; may be entered at any of them."""

  config: EncT5Config

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n M L D"],
    mask: Bool[Array, "n M L"],
    first_layer: int,
    *,
    deterministic: bool,
  ):
    """Runs layers `first_layer` to the last on `x`.

    Returns:
      encoded f[n, M, L, D] (normed), hidden states (entry of each layer that
      ran and the last exit, before the final norm), attention probabilities
      and values.

    Raises:
      ValueError: if `first_layer` is not in [0, N].
    """
    config = self.config
    bias = t5_layers.padding_bias(mask)  # [n, M, 1, 1, L]
    if config.relative_bias == "shared":
      # [n, M, H, L, L], by addition of two arrays of the same rank.
      bias = _relative_bias(config, x.shape[-2]) + bias
    layers = [
      EncoderLayer(config, name=f"layers_{i}") for i in range(config.num_layers)
    ]
    passed = pass_through(
      *(layers, x, bias, first_layer),
      initializing=self.is_initializing(),
      deterministic=deterministic,
      remat=config.remat,
    )
    norm = t5_layers.RMSNorm(jnp.dtype(config.dtype), name="encoder_norm")
    dropout = t5_layers.broadcast_dropout(config.dropout_rate)
    encoded = dropout(norm(passed.hidden[-1]), deterministic=deterministic)
    return encoded, *passed


class LatentDecoderLayer(nn.Module):
  """Cross-attention of the latent queries to the text, and a gated MLP."""

  config: EncT5Config

  @nn.compact
  def __call__(self, x, encoded, mask, *, deterministic: bool):
    config, dtype = self.config, jnp.dtype(self.config.dtype)
    norm = t5_layers.RMSNorm(dtype, name="pre_cross_attention_layer_norm")
    attended = LatentAttention(
      config.num_heads,
      config.head_dim,
      config.dropout_rate,
      dtype,
      name="encoder_decoder_attention",
    )(
      norm(x),
      encoded,
      t5_layers.padding_bias(mask),
      deterministic=deterministic,
    )
    dropout = t5_layers.broadcast_dropout(config.dropout_rate)
    x = x + dropout(attended, deterministic=deterministic)
    normed = t5_layers.RMSNorm(dtype, name="pre_mlp_layer_norm")(x)
    y = _mlp(config)(normed, deterministic=deterministic)
    dropout = t5_layers.broadcast_dropout(config.dropout_rate)
    return x + dropout(y, deterministic=deterministic)


class LatentDecoder(nn.Module):
  """One latent query, one layer, a final norm: f[n, M, D]."""

  config: EncT5Config

  @nn.compact
  def __call__(self, encoded, mask, *, deterministic: bool):
    config, dtype = self.config, jnp.dtype(self.config.dtype)
    latent = partitioning.param_with_axes(
      "latent",
      nn.initializers.normal(config.embedding_init),
      (1, config.emb_dim),
      jnp.float32,
      axes=("length", "embed"),
    )
    shape = (*encoded.shape[:-2], 1, config.emb_dim)
    x = jnp.broadcast_to(latent.astype(dtype)[None, None], shape)
    x = LatentDecoderLayer(config, name="layers_0")(
      x, encoded, mask, deterministic=deterministic
    )
    norm = t5_layers.RMSNorm(dtype, name="decoder_norm")
    dropout = t5_layers.broadcast_dropout(config.dropout_rate)
    return dropout(norm(x), deterministic=deterministic)[..., 0, :]


class EncT5(nn.Module):
  """The whole model; see the module's docstring."""

  config: EncT5Config

  def setup(self):
    config = self.config
    self.token_embedder = TokenEmbedder(
      config.vocab_size,
      config.emb_dim,
      jnp.dtype(config.dtype),
      config.embedding_init,
    )
    self.encoder = Encoder(config)
    self.decoder = LatentDecoder(config)
    # In float32, whatever the activations are.
    self.head = Dense(config.num_outputs, ("embed", "classes"), use_bias=True)
    self.dropout = t5_layers.broadcast_dropout(config.dropout_rate)

  def embed(self, tokens: Int[Array, "*n L"]) -> Float[Array, "*n L D"]:
    """Word embeddings of tokens, without dropout."""
    return self.token_embedder(tokens)

  def __call__(self, inputs: Inputs, *, deterministic: bool = True) -> Outputs:
    """Runs the model from wherever `inputs` enters it."""
    dtype = jnp.dtype(self.config.dtype)
    if inputs.pooled is not None:
      return Outputs(self.head(inputs.pooled), inputs.pooled)
    if inputs.hidden is not None:
      x, first_layer = inputs.hidden.astype(dtype), inputs.layer
    else:
      x = (
        self.embed(inputs.tokens)
        if inputs.embeddings is None
        else inputs.embeddings.astype(dtype)
      )
      x, first_layer = self.dropout(x, deterministic=deterministic), 0
    encoded, hidden, attention, values = self.encoder(
      x, inputs.mask, first_layer, deterministic=deterministic
    )
    pooled = self.decoder(encoded, inputs.mask, deterministic=deterministic)
    return Outputs(self.head(pooled), pooled, hidden, attention, values)


def enct5(config: EncT5Config) -> Network:
  """The network of this shape as pure functions.

  Args:
    config: its shape.

  Returns:
    A Network, as of `as_network`.
  """
  return as_network(EncT5(config), config.num_outputs)
