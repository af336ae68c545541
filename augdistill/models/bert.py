"""The BERT family: BERT, RoBERTa, DistilBERT, MiniLM, ELECTRA.

Words, positions and the text that a word stands in (the first or second of a
pair) are summed and normed; then come layers whose norms stand behind the
residuals, a dense layer on the first position, and a linear head. DistilBERT
has no vectors for texts, RoBERTa counts positions from 2, and they differ in
the function behind the dense layer.

`Inputs.embeddings` are the words alone. What is added to them is added to the
sum, too, so that an offset is one of the sum of embeddings, as AD²'s is, and
mixtures and projections are of words, as AugPro's are.

References:
  Devlin et al. 2019, arXiv:1810.04805; Liu et al. 2019, arXiv:1907.11692;
  Sanh et al. 2019, arXiv:1910.01108; Clark et al. 2020, arXiv:2003.10555.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning
from jaxtyping import Array, Bool, Float, Int

from augdistill.models.dense import Dense
from augdistill.models.embedder import TokenEmbedder
from augdistill.models.functional import as_network
from augdistill.models.t5_layers import padding_bias
from augdistill.types import Inputs, Network, Outputs

ACTIVATIONS = {
  "gelu": lambda x: nn.gelu(x, approximate=False),
  "gelu_new": nn.gelu,
  "relu": nn.relu,
  "tanh": jnp.tanh,
}
_INIT = 0.02  # standard deviation of everything that is new
_normal = nn.initializers.normal(_INIT)


@dataclasses.dataclass(frozen=True)
class BertConfig:
  """The shape of a model of the BERT family.

  Attributes:
    vocab_size: V, rows of the embedding table.
    num_outputs: C, what the head gives.
    emb_dim: D.
    mlp_dim: width of the MLP.
    num_layers: N.
    num_heads: H, which divides D.
    num_positions: rows of the table of positions.
    first_position: the row of the first position; RoBERTa's is 2.
    num_segments: texts that are told apart; 1: all are of one row, RoBERTa's;
      0: no table, DistilBERT's.
    separator_id: the token behind each text; tokens after the first one are
      of the second text.
    activation: of the MLP: "gelu", "gelu_new" (tanh form) or "relu".
    pooler: of the dense layer on the first position: "tanh" (BERT, RoBERTa),
      "relu" (DistilBERT) or "gelu" (ELECTRA).
    epsilon: of the norms.
    dropout_rate: share of activations dropped.
    dtype: of activations, "float32" or "bfloat16"; parameters are float32.
  """

  vocab_size: int
  num_outputs: int
  emb_dim: int
  mlp_dim: int
  num_layers: int
  num_heads: int
  num_positions: int = 512
  first_position: int = 0
  num_segments: int = 2
  separator_id: int = 102
  activation: str = "gelu"
  pooler: str = "tanh"
  epsilon: float = 1e-12
  dropout_rate: float = 0.1
  dtype: str = "float32"

  def __post_init__(self):
    for name in ("vocab_size", "num_outputs", "emb_dim", "mlp_dim"):
      _check_count(name, getattr(self, name))
    for name in ("num_layers", "num_heads", "num_positions"):
      _check_count(name, getattr(self, name))
    if self.emb_dim % self.num_heads:
      raise ValueError(
        f"num_heads must divide emb_dim, got {self.num_heads} and "
        f"{self.emb_dim}"
      )
    if not 0.0 <= self.dropout_rate < 1.0:
      raise ValueError(
        f"dropout_rate must be in [0, 1), got {self.dropout_rate}"
      )
    for name, choices in (
      ("activation", tuple(ACTIVATIONS)),
      ("pooler", tuple(ACTIVATIONS)),
      ("dtype", ("float32", "bfloat16")),
    ):
      value = getattr(self, name)
      if value not in choices:
        raise ValueError(
          f"{name} must be one of {', '.join(choices)}, got {value!r}"
        )

  @property
  def max_length(self) -> int:
    """The most tokens that a text may have."""
    return self.num_positions - self.first_position


def _check_count(name: str, value: int) -> None:
  if not isinstance(value, int) or value < 1:
    raise ValueError(f"{name} must be a positive int, got {value!r}")


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


def _dense(config: BertConfig, features, axes, name) -> Dense:
  return Dense(
    features, axes, _normal, jnp.dtype(config.dtype), use_bias=True, name=name
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
      y = _dense(config, width, ("embed", "joined_kv"), name)(x)
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
    out = _dense(config, width, ("joined_kv", "embed"), "out")(mixed)
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
    hidden = _dense(config, config.mlp_dim, ("embed", "mlp"), "wi")(x)
    hidden = ACTIVATIONS[config.activation](hidden)
    y = _dense(config, config.emb_dim, ("mlp", "embed"), "wo")(hidden)
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
  ):
    """Runs layers `first_layer` to the last on `x`.

    Returns:
      Hidden states (entry of each layer that ran and the last exit), attention
      probabilities and values.

    Raises:
      ValueError: if `first_layer` is not in [0, N].
    """
    if not 0 <= first_layer <= self.config.num_layers:
      raise ValueError(
        f"the layer to enter at must be in [0, {self.config.num_layers}], got "
        f"{first_layer}"
      )
    bias = padding_bias(mask)
    hidden, attention, values = [x], [], []
    for i in range(self.config.num_layers):
      layer = BertLayer(self.config, name=f"layers_{i}")
      if i < first_layer and not self.is_initializing():
        continue
      x, (probabilities, value) = layer(x, bias, deterministic=deterministic)
      hidden.append(x)
      attention.append(probabilities)
      values.append(value)
    return tuple(hidden), tuple(attention), tuple(values)


class Bert(nn.Module):
  """The whole model; see the module's docstring."""

  config: BertConfig

  def setup(self):
    config, dtype = self.config, jnp.dtype(self.config.dtype)

    def table(rows, axis):
      return TokenEmbedder(rows, config.emb_dim, dtype, _INIT, axis)

    self.token_embedder = table(config.vocab_size, "vocab")
    self.position_embedder = table(config.num_positions, "length")
    if config.num_segments:
      self.segment_embedder = table(config.num_segments, "length")
    self.embedding_norm = LayerNorm(config.epsilon, dtype)
    self.encoder = BertEncoder(config)
    self.pooler = Dense(
      *(config.emb_dim, ("embed", "embed_out"), _normal, dtype),
      use_bias=True,
    )
    # In float32, whatever the activations are.
    self.head = Dense(
      *(config.num_outputs, ("embed", "classes"), _normal), use_bias=True
    )
    self.dropout = nn.Dropout(config.dropout_rate)

  def embed(self, tokens: Int[Array, "*n L"]) -> Float[Array, "*n L D"]:
    """Word embeddings of tokens, without dropout."""
    return self.token_embedder(tokens)

  def _beside_words(self, inputs: Inputs) -> Float[Array, "n M L D"]:
    """What is added to the words: positions, and the texts of a pair.

    Raises:
      ValueError: if there are more positions than the table has.
    """
    config, length = self.config, inputs.mask.shape[-1]
    if length > config.max_length:
      raise ValueError(
        f"texts must have at most {config.max_length} tokens, got {length}"
      )
    positions = config.first_position + jnp.arange(length, dtype=jnp.int32)
    beside = self.position_embedder(positions)[None, None]  # [1, 1, L, D]
    if not config.num_segments:
      return beside
    segments = inputs.segment_ids
    if segments is None and inputs.tokens is not None:
      segments = segments_of(inputs.tokens, config.separator_id)
    if segments is None:
      segments = jnp.zeros((1, 1, length), jnp.int32)
    # RoBERTa has one row for all texts.
    segments = jnp.minimum(segments, config.num_segments - 1)
    return beside + self.segment_embedder(segments)

  def __call__(self, inputs: Inputs, *, deterministic: bool = True) -> Outputs:
    """Runs the model from wherever `inputs` enters it."""
    dtype = jnp.dtype(self.config.dtype)
    if inputs.pooled is not None:
      return Outputs(self.head(inputs.pooled), inputs.pooled)
    if inputs.hidden is not None:
      x, first_layer = inputs.hidden.astype(dtype), inputs.layer
    else:
      words = (
        self.embed(inputs.tokens)
        if inputs.embeddings is None
        else inputs.embeddings.astype(dtype)
      )
      x = self.embedding_norm(words + self._beside_words(inputs))
      x, first_layer = self.dropout(x, deterministic=deterministic), 0
    hidden, attention, values = self.encoder(
      x, inputs.mask, first_layer, deterministic=deterministic
    )
    pooled = self.pooler(hidden[-1][..., :1, :])[..., 0, :]  # [n, M, D]
    pooled = ACTIVATIONS[self.config.pooler](pooled)
    pooled = self.dropout(pooled, deterministic=deterministic)
    return Outputs(self.head(pooled), pooled, hidden, attention, values)


def segments_of(
  tokens: Int[Array, "*n L"], separator_id: int
) -> Int[Array, "*n L"]:
  """0 up to the first separator and itself, 1 after it: i32[..., L]."""
  ends = (tokens == separator_id).astype(jnp.int32)
  before = jnp.cumsum(ends, axis=-1, dtype=jnp.int32) - ends
  return jnp.minimum(before, 1)


def bert(config: BertConfig) -> Network:
  """The network of this shape as pure functions.

  Args:
    config: its shape.

  Returns:
    A Network, as of `as_network`.
  """
  segments = None
  if config.num_segments > 1:
    segments = functools.partial(segments_of, separator_id=config.separator_id)
  return as_network(Bert(config), config.num_outputs, segments)
