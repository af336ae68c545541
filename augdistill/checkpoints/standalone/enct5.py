"""EncT5 in NumPy: T5's encoder, one decoder layer that reads it, and a head.

This file is written into an export, beside the weights that it reads. It needs
NumPy and safetensors, and nothing else:

  model = EncT5(DIRECTORY)
  logits = model.logits(tokens, mask)

`texts.py`, beside it, makes tokens of texts and says what logits mean.

References:
  Liu et al. 2021, EncT5, arXiv:2110.08426.
"""

import json
import os

import numpy as np
from safetensors.numpy import load_file

FLOAT32, INT8 = "model.safetensors", "model.int8.safetensors"
_MASKED = np.float32(-1e10)


class EncT5:
  """The model in a directory, in float32.

  Args:
    directory: of the export.

  Raises:
    FileNotFoundError: if it holds no weights or no configuration.
    safetensors.SafetensorError: if the weights are damaged.
  """

  def __init__(self, directory: str | os.PathLike):
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
      self.config = json.load(file)
    self.weights = _weights(directory)

  def logits(self, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What the model says.

    Args:
      tokens: int[B, L] ids, each text with its end of the sentence.
      mask: bool[B, L], False at padding, whose ids do not matter.

    Returns:
      f32[B, C]: logits, or values of a regression.

    Raises:
      ValueError: if the two are not of one shape [B, L], an id is not in the
        vocabulary, or a row is padding alone.
    """
    tokens, mask = np.asarray(tokens), np.asarray(mask, bool)
    if tokens.ndim != 2 or tokens.shape != mask.shape:
      raise ValueError(
        "tokens and mask must be of one shape [B, L], got "
        f"{list(tokens.shape)} and {list(mask.shape)}"
      )
    table = self.weights["shared.weight"]  # [V, D]
    tokens = np.where(mask, tokens, 0)
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < len(table):
      raise ValueError(
        f"ids must be from 0 to {len(table) - 1}, got {tokens.min()} to "
        f"{tokens.max()}"
      )
    if not mask.any(axis=1).all():
      raise ValueError("each row must have a token that is no padding")
    bias = np.where(mask, np.float32(0), _MASKED)[:, None, None, :]
    encoded = self._encode(table[tokens], bias)  # [B, L, D]
    pooled = self._decode(encoded, bias)  # [B, D]
    return self._linear(pooled, "decoder.head") + self._of("decoder.head.bias")

  def _encode(self, x: np.ndarray, padding: np.ndarray) -> np.ndarray:
    bias = padding
    for i in range(self.config["num_layers"]):
      block = f"encoder.block.{i}"
      own = f"{block}.layer.0.SelfAttention.relative_attention_bias.weight"
      if own in self.weights:  # The first layer's is that of those without.
        bias = self._positions(own, x.shape[1]) + padding  # [B, H, L, L]
      normed = self._norm(x, f"{block}.layer.0.layer_norm")
      name = f"{block}.layer.0.SelfAttention"
      x = x + self._attend(name, normed, normed, bias)
      x = x + self._mlp(f"{block}.layer.1", x)
    return self._norm(x, "encoder.final_layer_norm")

  def _decode(self, encoded: np.ndarray, padding: np.ndarray) -> np.ndarray:
    latent = self._of("decoder.latent")  # [1, D]
    x = np.broadcast_to(latent, (len(encoded), *latent.shape))  # [B, 1, D]
    block = "decoder.block.0.layer"
    normed = self._norm(x, f"{block}.1.layer_norm")
    x = x + self._attend(f"{block}.1.EncDecAttention", normed, encoded, padding)
    x = x + self._mlp(f"{block}.2", x)
    return self._norm(x, "decoder.final_layer_norm")[:, 0]

  def _attend(self, name, queries, keys, bias) -> np.ndarray:
    """Attention without 1/sqrt(d): queries [B, Q, D], keys [B, K, D]."""

    def heads(x, part):  # [B, H, L, d]
      y = self._linear(x, f"{name}.{part}")
      shape = (*y.shape[:2], self.config["num_heads"], self.config["d_kv"])
      return y.reshape(shape).swapaxes(1, 2)

    q, k, v = heads(queries, "q"), heads(keys, "k"), heads(keys, "v")
    logits = q @ k.swapaxes(2, 3) + bias  # [B, H, Q, K]
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    mixed = (p / p.sum(axis=-1, keepdims=True)) @ v  # [B, H, Q, d]
    mixed = mixed.swapaxes(1, 2).reshape(*queries.shape[:2], -1)
    return self._linear(mixed, f"{name}.o")

  def _mlp(self, name: str, x: np.ndarray) -> np.ndarray:
    normed = self._norm(x, f"{name}.layer_norm")
    dense, kind = f"{name}.DenseReluDense", self.config["feed_forward_proj"]
    if kind == "relu":
      hidden = np.maximum(self._linear(normed, f"{dense}.wi"), 0)
    else:
      gate = _GATES[kind](self._linear(normed, f"{dense}.wi_0"))
      hidden = gate * self._linear(normed, f"{dense}.wi_1")
    return self._linear(hidden, f"{dense}.wo")

  def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
    mean_square = np.mean(np.square(x), axis=-1, keepdims=True)
    epsilon = np.float32(self.config["layer_norm_epsilon"])
    return x / np.sqrt(mean_square + epsilon) * self._of(f"{name}.weight")

  def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
    return x @ self._of(f"{name}.weight").T

  def _of(self, name: str) -> np.ndarray:
    return self.weights[name]

  def _positions(self, name: str, length: int) -> np.ndarray:
    """The bias of relative positions, f32[1, H, L, L]."""
    position = np.arange(length)
    bucket = relative_position_bucket(
      position[None, :] - position[:, None],
      self.config["relative_attention_num_buckets"],
      self.config["relative_attention_max_distance"],
    )
    return self._of(name)[bucket].transpose(2, 0, 1)[None]


def relative_position_bucket(
  relative_position: np.ndarray, num_buckets: int, max_distance: int
) -> np.ndarray:
  """T5's bucket of each position of a key minus that of its query.

  Args:
    relative_position: int[Q, K].
    num_buckets: of both directions together.
    max_distance: from here on there is one bucket.

  Returns:
    int[Q, K] in [0, num_buckets).
  """
  half = num_buckets // 2
  exact = half // 2
  distance = np.abs(relative_position)
  # In float64 no distance but one on an edge is as near to it as 1e-9, so
  # that an edge falls where exact numbers would have it.
  ratio = np.log(np.maximum(distance, 1) / exact) / np.log(max_distance / exact)
  far = exact + (ratio * (half - exact) + 1e-9).astype(np.int64)
  bucket = np.where(distance < exact, distance, np.minimum(far, half - 1))
  return bucket + np.where(relative_position > 0, half, 0)


def _gelu(x: np.ndarray) -> np.ndarray:
  """GELU in its tanh form, as of T5 1.1."""
  root = np.float32(np.sqrt(2 / np.pi))
  cubed = x + np.float32(0.044715) * x * x * x
  return np.float32(0.5) * x * (1 + np.tanh(root * cubed))


def _silu(x: np.ndarray) -> np.ndarray:
  return x * np.float32(0.5) * (1 + np.tanh(x * np.float32(0.5)))


_GATES = {"gated-gelu": _gelu, "gated-silu": _silu}


def _weights(directory: str | os.PathLike) -> dict[str, np.ndarray]:
  """Name -> f32; an int8 matrix is its values times the scale of each row."""
  path = os.path.join(directory, FLOAT32)
  if not os.path.exists(path):
    path = os.path.join(directory, INT8)
  stored = load_file(path)
  weights = {}
  for name, array in stored.items():
    if not name.endswith(".scale"):
      scale = stored.get(f"{name}.scale")
      weights[name] = array if scale is None else array * scale
  return weights
