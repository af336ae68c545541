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

import functools

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from augdistill.models.bert_config import ACTIVATIONS, BertConfig
from augdistill.models.bert_layers import (
  INIT,
  BertEncoder,
  LayerNorm,
  beside_words,
  normal,
  segments_of,
)
from augdistill.models.dense import Dense
from augdistill.models.embedder import TokenEmbedder
from augdistill.models.functional import as_network
from augdistill.types import Inputs, Network, Outputs


class Bert(nn.Module):
  """The whole model; see the module's docstring."""

  config: BertConfig

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
    self.pooler = Dense(
      *(config.emb_dim, ("embed", "embed_out"), normal, dtype),
      use_bias=True,
    )
    # In float32, whatever the activations are.
    self.head = Dense(
      *(config.num_outputs, ("embed", "classes"), normal), use_bias=True
    )
    self.dropout = nn.Dropout(config.dropout_rate)

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
      words = (
        self.embed(inputs.tokens)
        if inputs.embeddings is None
        else inputs.embeddings.astype(dtype)
      )
      segments = self.segment_embedder if self.config.num_segments else None
      beside = beside_words(
        self.config, self.position_embedder, segments, inputs
      )
      x = self.embedding_norm(words + beside)
      x, first_layer = self.dropout(x, deterministic=deterministic), 0
    hidden, attention, values = self.encoder(
      x, inputs.mask, first_layer, deterministic=deterministic
    )
    pooled = self.pooler(hidden[-1][..., :1, :])[..., 0, :]  # [n, M, D]
    pooled = ACTIVATIONS[self.config.pooler](pooled)
    pooled = self.dropout(pooled, deterministic=deterministic)
    return Outputs(self.head(pooled), pooled, hidden, attention, values)


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
