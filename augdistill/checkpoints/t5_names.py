"""T5's weights under the names of this package's EncT5, and the way back.

EncT5 takes the embeddings, the encoder, and of the decoder's first layer the
cross-attention, the MLP, their norms, and the final norm; the rest of the
decoder is left over, and the latent query and the head are new. On the way
back these have names of their own, `decoder.latent` and `decoder.head`.
"""

import re
from collections.abc import Mapping

import numpy as np

from augdistill.checkpoints.foreign import Arrays, Stored, matrix_shape
from augdistill.errors import UsageError

_ENCODER = {
  "layer.0.SelfAttention.q": "attention/query/kernel",
  "layer.0.SelfAttention.k": "attention/key/kernel",
  "layer.0.SelfAttention.v": "attention/value/kernel",
  "layer.0.SelfAttention.o": "attention/out/kernel",
  "layer.0.SelfAttention.relative_attention_bias": "relpos_bias/rel_embedding",
  "layer.0.layer_norm": "pre_attention_layer_norm/scale",
  "layer.1.layer_norm": "pre_mlp_layer_norm/scale",
  "layer.1.DenseReluDense.wi": "mlp/wi/kernel",
  "layer.1.DenseReluDense.wi_0": "mlp/wi_0/kernel",
  "layer.1.DenseReluDense.wi_1": "mlp/wi_1/kernel",
  "layer.1.DenseReluDense.wo": "mlp/wo/kernel",
}
_DECODER = {
  "layer.1.EncDecAttention.q": "encoder_decoder_attention/query/kernel",
  "layer.1.EncDecAttention.k": "encoder_decoder_attention/key/kernel",
  "layer.1.EncDecAttention.v": "encoder_decoder_attention/value/kernel",
  "layer.1.EncDecAttention.o": "encoder_decoder_attention/out/kernel",
  "layer.1.layer_norm": "pre_cross_attention_layer_norm/scale",
  "layer.2.layer_norm": "pre_mlp_layer_norm/scale",
  "layer.2.DenseReluDense.wi": "mlp/wi/kernel",
  "layer.2.DenseReluDense.wi_0": "mlp/wi_0/kernel",
  "layer.2.DenseReluDense.wi_1": "mlp/wi_1/kernel",
  "layer.2.DenseReluDense.wo": "mlp/wo/kernel",
}
_TOP = {
  "shared.weight": "token_embedder/embedding",
  "encoder.embed_tokens.weight": "token_embedder/embedding",
  "encoder.final_layer_norm.weight": "encoder/encoder_norm/scale",
  "decoder.final_layer_norm.weight": "decoder/decoder_norm/scale",
}
_SHARED_BIAS = "encoder/relpos_bias/rel_embedding"
_NEW = {
  "decoder/latent": "decoder.latent",
  "head/kernel": "decoder.head.weight",
  "head/bias": "decoder.head.bias",
}
_MOST_LAYERS = 1000  # of a stack; more are a shape that is damaged
# Matrices that lie as they do in torch.
_UPRIGHT = ("token_embedder/embedding", "decoder/latent")


def from_transformers(arrays: Arrays) -> dict[str, Stored]:
  """The weights of a T5 of Hugging Face, by T5X's names, in its layout.

  Args:
    arrays: as of `state_dict.state_dict_arrays`.

  Returns:
    T5X's name -> array; what EncT5 has no place for keeps its own name.
  """
  biases = sum(
    name.startswith("encoder.") and "relative_attention_bias" in name
    for name in arrays
  )
  found: dict[str, Stored] = {}
  for name, array in arrays.items():
    place = _TOP.get(name) or _in_a_layer(name)
    if place is None:
      found.setdefault(name, array)
      continue
    # One bias alone is the whole stack's.
    if place.endswith("rel_embedding") and biases == 1:
      place = _SHARED_BIAS
    matrix = len(array.shape) == 2 and place != "token_embedder/embedding"
    found[place] = transposed(array) if matrix else array
  return found


def _in_a_layer(name: str) -> str | None:
  found = re.fullmatch(r"(encoder|decoder)\.block\.(\d+)\.(.+)\.weight", name)
  if not found:
    return None
  stack, layer, rest = found.groups()
  place = (_ENCODER if stack == "encoder" else _DECODER).get(rest)
  return place and f"{stack}/layers_{layer}/{place}"


def to_transformers(
  weights: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """The weights of an EncT5 by Hugging Face's names, in torch's layout.

  Args:
    weights: T5X's name -> array, or the scale of one, `NAME.scale`, as of
      `int8.quantise`.

  Returns:
    Their name -> array, such as `encoder.block.0.layer.0.layer_norm.weight`;
    matrices but the embedding and the latent query are transposed.
  """
  found = {}
  for name, array in weights.items():
    place, dot, scale = name.partition(".")
    turned = array.ndim == 2 and place not in _UPRIGHT
    found[f"{_their_name(place)}{dot}{scale}"] = np.ascontiguousarray(
      array.T if turned else array
    )
  return found


def _their_name(place: str) -> str:
  tops = {ours: theirs for theirs, ours in reversed(_TOP.items())} | _NEW
  if place in tops:
    return tops[place]
  if place == _SHARED_BIAS:
    place = "encoder/layers_0/relpos_bias/rel_embedding"
  stack, layer, rest = place.split("/", 2)
  table = _ENCODER if stack == "encoder" else _DECODER
  (theirs,) = (name for name, ours in table.items() if ours == rest)
  return f"{stack}.block.{layer.removeprefix('layers_')}.{theirs}.weight"


def from_t5x(arrays: Arrays) -> dict[str, Stored]:
  """The weights of a T5 of T5X, with scanned layers apart.

  Args:
    arrays: as of `t5x_checkpoint.t5x_arrays`.

  Returns:
    T5X's name without scanning -> array.

  Raises:
    UsageError: if an array of scanned layers has no such shape.
  """
  found: dict[str, Stored] = {}
  for name, array in arrays.items():
    scanned = re.fullmatch(r"(encoder|decoder)/(?:encoder|decoder)/(.+)", name)
    if not scanned:
      found[name] = array
      continue
    stack, rest = scanned.groups()
    if not 2 <= len(array.shape) <= 4 or array.shape[1] > _MOST_LAYERS:
      raise UsageError(
        f"{name} must be a stack of at most {_MOST_LAYERS} layers on its "
        f"second axis, got {array}"
      )
    for layer in range(array.shape[1]):
      found[f"{stack}/layers_{layer}/{rest}"] = _layer(array, layer, rest)
  return found


def _layer(array: Stored, layer: int, rest: str) -> Stored:
  """One layer of a stack on axis 1, its heads joined as unscanned ones are."""
  shape = array.shape[:1] + array.shape[2:]
  if len(shape) == 3:  # [D, H, d], or [H, d, D] of the output.
    joined = "out/" in rest
    shape = (
      (shape[0] * shape[1], shape[2])
      if joined
      else (shape[0], shape[1] * shape[2])
    )
  return Stored(
    shape, array.dtype, lambda: array.read()[:, layer].reshape(shape)
  )


def num_layers(arrays: Arrays) -> int:
  """How many layers of an encoder have an array, by this package's names."""
  found = (re.match(r"encoder/(layers_[^/]+)/", name) for name in arrays)
  return len({layer[1] for layer in found if layer})


def transposed(array: Stored) -> Stored:
  """[out, in] of torch as [in, out] of flax."""
  return Stored(
    array.shape[::-1],
    array.dtype,
    lambda: np.ascontiguousarray(array.read().T),
  )


def enct5_shape(arrays: Arrays, where: str) -> dict[str, int | str]:
  """The shape of the EncT5 that these weights fit.

  Args:
    arrays: by T5X's names, as of the functions above.
    where: what messages call the place.

  Returns:
    Fields of `EncT5Config`, by name. What shapes do not tell, such as silu
    for gelu, is T5 1.1's.

  Raises:
    UsageError: if they are not a T5's.
  """
  layer, bias = "encoder/layers_0", _SHARED_BIAS
  own_bias = f"{layer}/relpos_bias/rel_embedding"
  gated = f"{layer}/mlp/wi_0/kernel" in arrays
  kind = "shared" if bias in arrays else "per_layer"
  wide = "wi_0" if gated else "wi"
  shapes = [
    matrix_shape(
      arrays, name, f"{where} must hold a T5, with embeddings and an encoder"
    )
    for name in (
      *("token_embedder/embedding", f"{layer}/attention/query/kernel"),
      *(f"{layer}/mlp/{wide}/kernel", bias if bias in arrays else own_bias),
    )
  ]
  (vocab_size, emb_dim), (_, joined), (_, mlp_dim), (heads, buckets) = shapes
  return {
    "vocab_size": vocab_size,
    "emb_dim": emb_dim,
    "mlp_dim": mlp_dim,
    "num_layers": num_layers(arrays),
    "num_heads": heads,
    "head_dim": joined // heads,
    "feed_forward": "gated-gelu" if gated else "relu",
    "relative_bias": kind,
    "relative_buckets": buckets,
  }
