"""The BERT family's masked language models, their output tied to their input.

    logits = LN(f(h W + b)) E^T + c

References:
  Devlin et al. 2019, BERT, arXiv:1810.04805, section 3.1 and appendix A.1.
"""

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning
from jaxtyping import Array, Bool, Float, Int

from augdistill.models.bert_config import ACTIVATIONS, BertConfig
from augdistill.models.bert_layers import (
  INIT,
  BertEncoder,
  LayerNorm,
  beside_words,
  dense,
)
from augdistill.models.embedder import TokenEmbedder
from augdistill.models.functional import as_masked
from augdistill.types import Inputs, MaskedLM


class BertMaskedHead(nn.Module):
  """LN(f(x W + b)): what is compared with the table's rows."""

  config: BertConfig

  @nn.compact
  def __call__(self, x: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
    config = self.config
    x = dense(config, config.emb_dim, ("embed", "embed_out"), "dense")(x)
    x = ACTIVATIONS[config.activation](x)
    dtype = jnp.dtype(config.dtype)
    return LayerNorm(config.epsilon, dtype, name="layer_norm")(x)


class MaskedBert(nn.Module):
  """The whole model.

  Attributes:
    config: its shape; `num_outputs` and `pooler` are not read.
    mask_id: the token that stands for hidden ones.
  """

  config: BertConfig
  mask_id: int

  def setup(self):
    config, dtype = self.config, jnp.dtype(self.config.dtype)

    def table(rows, axis):
      return TokenEmbedder(rows, config.emb_dim, dtype, INIT, axis)

    self.token_embedder = table(config.vocab_size, "vocab")
    self.position_embedder = table(config.num_positions, "length")
    if config.num_segments:
      self.segment_embedder = table(config.num_segments, "length")
    self.embedding_norm = LayerNorm(config.epsilon, dtype)
    self.encoder = BertEncoder(config)
    self.masked_head = BertMaskedHead(config)
    self.bias = partitioning.param_with_axes(
      "bias",
      nn.initializers.zeros,
      (config.vocab_size,),
      jnp.float32,
      axes=("vocab",),
    )
    self.dropout = nn.Dropout(config.dropout_rate)

  def __call__(
    self,
    tokens: Int[Array, "n M L"],
    hidden: Bool[Array, "n M L"],
    mask: Bool[Array, "n M L"],
    positions: Int[Array, "n M P"],
    *,
    deterministic: bool = True,
  ) -> Float[Array, "n M P V"]:
    """Logits of the tokens at some positions; only they cost a product."""
    seen = jnp.where(hidden, jnp.int32(self.mask_id), tokens)
    segments = self.segment_embedder if self.config.num_segments else None
    beside = beside_words(
      self.config, self.position_embedder, segments, Inputs(mask, seen)
    )
    x = self.embedding_norm(self.token_embedder(seen) + beside)
    x = self.dropout(x, deterministic=deterministic)
    passed = self.encoder(x, mask, 0, deterministic=deterministic)
    states = passed.hidden[-1]
    at = jnp.take_along_axis(states, positions[..., None], axis=-2)
    logits = self.token_embedder.attend(self.masked_head(at))
    return logits + self.bias[None, None, None]


def masked_bert(config: BertConfig, mask_id: int) -> MaskedLM:
  """The masked language model of this shape as pure functions.

  Args:
    config: its shape.
    mask_id: the token that stands for hidden ones.

  Returns:
    A MaskedLM, as of `as_masked`.
  """
  return as_masked(MaskedBert(config, mask_id))
