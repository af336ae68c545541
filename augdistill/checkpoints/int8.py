"""Matrices in int8, a scale for each of their channels.

  w  ~  q s,   q = round(w / s) in [-127, 127],   s = max |w| / 127

over the channel: the weights of one output of a dense layer, or the embedding
of one word. So no weight moves by more than half of its scale. What is no
matrix of this kind (norms, biases, the bias of relative positions, the latent
query) stays in float32.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

# Behind the name of an int8 array: its scale.
SCALE = ".scale"
# By the last part of a matrix' name: the axis within one channel.
_WITHIN = {"kernel": 0, "embedding": 1}


def quantise(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Weights with their matrices in int8.

  Args:
    weights: name, such as `encoder/layers_0/mlp/wi_0/kernel` -> f32 array. A
      kernel is [in, out], an embedding [V, D].

  Returns:
    The same names, matrices in int8, and `NAME.scale` for each of these: f32,
    [1, out] or [V, 1].
  """
  stored = {}
  for name, array in weights.items():
    axis = _WITHIN.get(name.rpartition("/")[2])
    if axis is None:
      stored[name] = array
      continue
    scale = np.abs(array).max(axis=axis, keepdims=True) / 127
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    stored[name] = np.clip(np.rint(array / scale), -127, 127).astype(np.int8)
    stored[name + SCALE] = scale
  return stored


def dequantise(stored: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `quantise`, up to what rounding lost.

  Args:
    stored: what `quantise` returned, or weights in float32.

  Returns:
    name -> f32 array, without the scales.
  """
  return {
    name: array * stored[name + SCALE] if name + SCALE in stored else array
    for name, array in stored.items()
    if not name.endswith(SCALE)
  }
