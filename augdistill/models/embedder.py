"""Embeddings: rows of a table."""

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning
from jaxtyping import Array, Float, Int


class TokenEmbedder(nn.Module):
  """A table of embeddings, f32[V, D], of words for one; rows are not scaled.

  Attributes:
    vocab_size: V.
    emb_dim: D.
    dtype: of what is read.
    init_scale: standard deviation of new rows.
    rows_axis: logical axis of the rows.
  """

  vocab_size: int
  emb_dim: int
  dtype: jnp.dtype
  init_scale: float
  rows_axis: str = "vocab"

  def setup(self):
    self.embedding = partitioning.param_with_axes(
      "embedding",
      nn.initializers.normal(self.init_scale),
      (self.vocab_size, self.emb_dim),
      jnp.float32,
      axes=(self.rows_axis, "embed"),
    )

  def __call__(self, tokens: Int[Array, "*n L"]) -> Float[Array, "*n L D"]:
    return jnp.take(self.embedding.astype(self.dtype), tokens, axis=0)

  def attend(self, x: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
    """x @ table^T, in float32."""
    return jnp.einsum(
      "...d,vd->...v",
      x.astype(self.dtype),
      self.embedding.astype(self.dtype),
      preferred_element_type=jnp.float32,
    )
