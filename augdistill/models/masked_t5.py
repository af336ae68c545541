"""EncT5's encoder as a masked language model, its output tied to its input.

The parameters `token_embedder` and `encoder` are those of EncT5, so that what
was pretrained here can begin a model there.

T5's vocabulary has no mask token, and one that is trained on a few texts has
no row to spare. So a hidden token has a vector of its own beside the table: no
id is used up, no text can hold it, nothing can produce it, and the table keeps
its shape.

References:
  Devlin et al. 2019, BERT, arXiv:1810.04805, section 3.1.
"""

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning
from jaxtyping import Array, Bool, Float, Int

from augdistill.models import t5_layers
from augdistill.models.dense import Dense
from augdistill.models.embedder import TokenEmbedder
from augdistill.models.enct5 import Encoder, EncT5Config
from augdistill.models.functional import as_masked
from augdistill.types import MaskedLM


class MaskedHead(nn.Module):
  """norm(gelu(x W)) / (s sqrt(D)): what is compared with the table's rows.

  Those begin with standard deviation s, so that logits begin with 1.
  """

  dtype: jnp.dtype
  embedding_init: float

  @nn.compact
  def __call__(self, x: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
    width = x.shape[-1]
    x = nn.gelu(
      Dense(width, ("embed", "embed_out"), dtype=self.dtype, name="dense")(x)
    )
    normed = t5_layers.RMSNorm(self.dtype, name="layer_norm")(x)
    scale = width**-0.5 / self.embedding_init
    return normed * jnp.asarray(scale, normed.dtype)


class MaskedT5(nn.Module):
  """The whole model; see the module's docstring."""

  config: EncT5Config

  def setup(self):
    config, dtype = self.config, jnp.dtype(self.config.dtype)
    self.token_embedder = TokenEmbedder(
      config.vocab_size, config.emb_dim, dtype, config.embedding_init
    )
    self.hidden_embedding = partitioning.param_with_axes(
      "hidden_embedding",
      nn.initializers.normal(config.embedding_init),
      (config.emb_dim,),
      jnp.float32,
      axes=("embed",),
    )
    self.encoder = Encoder(config)
    self.masked_head = MaskedHead(dtype, config.embedding_init)
    self.bias = partitioning.param_with_axes(
      "bias",
      nn.initializers.zeros,
      (config.vocab_size,),
      jnp.float32,
      axes=("vocab",),
    )
    self.dropout = t5_layers.broadcast_dropout(config.dropout_rate)

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
    words = self.token_embedder(tokens)  # [n, M, L, D]
    unseen = self.hidden_embedding.astype(words.dtype)[None, None, None]
    x = jnp.where(hidden[..., None], unseen, words)
    x = self.dropout(x, deterministic=deterministic)
    encoded, *_ = self.encoder(x, mask, 0, deterministic=deterministic)
    at = jnp.take_along_axis(encoded, positions[..., None], axis=-2)
    states = self.masked_head(at)  # [n, M, P, D]
    return self.token_embedder.attend(states) + self.bias[None, None, None]


def masked_t5(config: EncT5Config) -> MaskedLM:
  """The masked language model of this shape as pure functions.

  Args:
    config: its shape; `num_outputs` is not read.

  Returns:
    A MaskedLM, as of `as_masked`.
  """
  return as_masked(MaskedT5(config))
