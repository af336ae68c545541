"""EncT5 in PyTorch, of transformers' own T5 layers and its fast attention."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import T5Config
from transformers.models.t5.modeling_t5 import (
  T5LayerCrossAttention,
  T5LayerFF,
  T5LayerNorm,
  T5Stack,
)


class EncT5(nn.Module):
  """T5's encoder, one layer of its decoder that a latent query enters, a head.

  Its parameters have the names of `augdistill.checkpoints.t5_names`.
  """

  def __init__(self, shape: Mapping[str, int | float]):
    super().__init__()
    config = T5Config(
      vocab_size=shape["vocab_size"],
      d_model=shape["emb_dim"],
      d_ff=shape["mlp_dim"],
      d_kv=shape["head_dim"],
      num_heads=shape["num_heads"],
      num_layers=shape["num_layers"],
      dropout_rate=shape["dropout_rate"],
      feed_forward_proj="gated-gelu",
      use_cache=False,
      is_encoder_decoder=False,
      attn_implementation="sdpa",
    )
    self.encoder = T5Stack(config)
    self.decoder = LatentDecoder(config, shape["num_outputs"])

  def embed(self, tokens: Tensor) -> Tensor:
    """Word embeddings, f32[B, L, D], of tokens i64[B, L]."""
    return self.encoder.embed_tokens(tokens)

  def forward(self, words: Tensor, mask: Tensor) -> Tensor:
    """Logits f32[B, C] of word embeddings f32[B, L, D], mask bool[B, L]."""
    encoded = self.encoder(inputs_embeds=words, attention_mask=mask)
    return self.decoder(encoded.last_hidden_state, mask)


class LatentDecoder(nn.Module):
  """One latent query, cross-attention and MLP, a norm, and the head."""

  def __init__(self, config: T5Config, num_outputs: int):
    super().__init__()
    layers = {"1": T5LayerCrossAttention(config), "2": T5LayerFF(config)}
    layer = nn.ModuleDict({"layer": nn.ModuleDict(layers)})
    self.block = nn.ModuleList([layer])
    self.final_layer_norm = T5LayerNorm(config.d_model)
    self.dropout = nn.Dropout(config.dropout_rate)
    self.latent = nn.Parameter(torch.empty(1, config.d_model))
    self.head = nn.Linear(config.d_model, num_outputs)

  def forward(self, encoded: Tensor, mask: Tensor) -> Tensor:
    """Logits f32[B, C] of what was encoded, f32[B, L, D]."""
    layer = self.block[0]["layer"]
    x = self.latent.expand(len(encoded), 1, -1)  # [B, 1, D]
    x = layer["1"](x, encoded, attention_mask=mask[:, None, None])[0]
    x = self.dropout(self.final_layer_norm(layer["2"](x)))
    return self.head(x[:, 0])
