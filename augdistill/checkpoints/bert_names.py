"""The BERT family's weights under the names of this package's `Bert`.

BERT, RoBERTa, ELECTRA and DistilBERT differ in the names, and in what lies
between the first position and the classes: a pooler and a classifier, or a
classifier of two layers.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from augdistill.checkpoints.config_json import Config, field
from augdistill.checkpoints.foreign import Arrays, Stored, matrix_shape
from augdistill.checkpoints.t5_names import num_layers, transposed
from augdistill.errors import UsageError, listing
from augdistill.models.bert_config import BertConfig

# model_type -> the prefix of the encoder's names, the pooler's activation.
TYPES = {
  "bert": ("bert", "tanh"),
  "roberta": ("roberta", "tanh"),
  "electra": ("electra", "gelu"),
  "distilbert": ("distilbert", "relu"),
}
_LAYER = {
  "attention.self.query": "attention/query",
  "attention.self.key": "attention/key",
  "attention.self.value": "attention/value",
  "attention.output.dense": "attention/out",
  "attention.output.LayerNorm": "attention_layer_norm",
  "intermediate.dense": "wi",
  "output.dense": "wo",
  "output.LayerNorm": "mlp_layer_norm",
  # DistilBERT's
  "attention.q_lin": "attention/query",
  "attention.k_lin": "attention/key",
  "attention.v_lin": "attention/value",
  "attention.out_lin": "attention/out",
  "sa_layer_norm": "attention_layer_norm",
  "ffn.lin1": "wi",
  "ffn.lin2": "wo",
  "output_layer_norm": "mlp_layer_norm",
}
_TOP = {
  "embeddings.word_embeddings": "token_embedder",
  "embeddings.position_embeddings": "position_embedder",
  "embeddings.token_type_embeddings": "segment_embedder",
  "embeddings.LayerNorm": "embedding_norm",
  "pooler.dense": "pooler",
  # Of a model with classes.
  "classifier": "head",
  "classifier.dense": "pooler",
  "classifier.out_proj": "head",
  "pre_classifier": "pooler",
  # Of a masked language model; its table of outputs is that of the words.
  "cls.predictions": "",
  "cls.predictions.transform.dense": "masked_head/dense",
  "cls.predictions.transform.LayerNorm": "masked_head/layer_norm",
  "lm_head": "",
  "lm_head.dense": "masked_head/dense",
  "lm_head.layer_norm": "masked_head/layer_norm",
  "vocab_projector": "",
  "vocab_transform": "masked_head/dense",
  "vocab_layer_norm": "masked_head/layer_norm",
}
# Where that table lies if a file has it twice.
OUTPUT_TABLES = (
  "cls.predictions.decoder.weight",
  "lm_head.decoder.weight",
  "vocab_projector.weight",
)
# Of a model with classes, by kind: where ours lie, outside of the encoder too.
_HEADS = {
  "bert": {"pooler": "pooler.dense", "head": "classifier"},
  "roberta": {"pooler": "classifier.dense", "head": "classifier.out_proj"},
  "electra": {"pooler": "classifier.dense", "head": "classifier.out_proj"},
  "distilbert": {"pooler": "pre_classifier", "head": "classifier"},
}
_OUTSIDE = ("classifier", "pre_classifier")
# What torch calls a norm's arrays, once and now.
_NORM = {"weight": "scale", "gamma": "scale", "bias": "bias", "beta": "bias"}
# 0, 1, 2, ..., which once were kept with the weights.
_COUNTED = ("position_ids", "token_type_ids")
_EMBEDDERS = ("token_embedder", "position_embedder", "segment_embedder")


def from_transformers(arrays: Arrays) -> dict[str, Stored]:
  """The weights of a model of the BERT family, by this package's names.

  Args:
    arrays: as of `state_dict.state_dict_arrays`.

  Returns:
    Name -> array; what `Bert` has no place for keeps its own name.
  """
  found: dict[str, Stored] = {}
  for name, array in arrays.items():
    if name.endswith(_COUNTED):
      continue
    module, _, leaf = name.rpartition(".")
    for prefix, _ in TYPES.values():
      module = module.removeprefix(f"{prefix}.")
    place = _place(module)
    if place is None or name in OUTPUT_TABLES:
      found.setdefault(name, array)
    elif not place:
      found[leaf] = array
    elif place in _EMBEDDERS:
      found[f"{place}/embedding"] = array
    elif place.endswith("norm"):
      found[f"{place}/{_NORM.get(leaf, leaf)}"] = array
    elif leaf == "weight":
      found[f"{place}/kernel"] = transposed(array)
    else:
      found[f"{place}/{leaf}"] = array
  return found


def _place(module: str) -> str | None:
  layer = re.fullmatch(r"(?:encoder|transformer)\.layer\.(\d+)\.(.+)", module)
  if not layer:
    return _TOP.get(module)
  number, rest = layer.groups()
  return (rest in _LAYER and f"encoder/layers_{number}/{_LAYER[rest]}") or None


def bert_shape(
  arrays: Arrays, config: Config, where: str
) -> dict[str, int | float | str]:
  """The shape of the `Bert` that these weights fit.

  Args:
    arrays: by this package's names, as of the function above.
    config: `config.json`, for what shapes do not tell.
    where: what messages call the place.

  Returns:
    Fields of `BertConfig`, by name.

  Raises:
    UsageError: if they are not of the family, or of a kind that `Bert` is not.
  """
  kind = field(config, where, str, None, "model_type")
  if kind not in TYPES:
    raise UsageError(
      f"{where} must hold a model of one of the types {listing(TYPES)}, got "
      f"{kind!r}"
    )
  relative = field(config, where, str, "absolute", "position_embedding_type")
  if relative != "absolute":
    raise UsageError(f"{where} must have absolute positions, got {relative!r}")
  shapes = [
    matrix_shape(arrays, name, f"{where} must hold embeddings and an encoder")
    for name in (
      *("token_embedder/embedding", "position_embedder/embedding"),
      "encoder/layers_0/wi/kernel",
    )
  ]
  (vocab_size, emb_dim), (num_positions, width), (wide, mlp_dim) = shapes

  def given(of_type: type, default: Any, *names: str) -> Any:
    return field(config, where, of_type, default, *names)

  heads = given(int, None, "num_attention_heads", "n_heads")
  if heads is None:
    raise UsageError(
      f"{where} must have a config.json with num_attention_heads"
    )
  if not emb_dim == width == wide:
    raise UsageError(
      f"{where} must have embeddings as wide as its layers, got {emb_dim} and "
      f"{wide}"
    )
  segments = arrays.get("segment_embedder/embedding")
  return {
    "vocab_size": vocab_size,
    "emb_dim": emb_dim,
    "mlp_dim": mlp_dim,
    "num_layers": num_layers(arrays),
    "num_heads": heads,
    "num_positions": num_positions,
    # RoBERTa's positions follow on the padding's id.
    "first_position": given(int, 1, "pad_token_id") + 1
    if kind == "roberta"
    else 0,
    "num_segments": segments.shape[0] if segments and segments.shape else 0,
    "activation": given(str, "gelu", "hidden_act", "activation"),
    "pooler": TYPES[kind][1],
    "epsilon": given(float, 1e-12, "layer_norm_eps"),
  }


def check_tied(arrays: Arrays, where: str) -> None:
  """A masked language model's outputs must be of the table of its words.

  Args:
    arrays: as of `from_transformers`.
    where: what messages call the place.

  Raises:
    UsageError: if they have a table of their own.
  """
  words = arrays["token_embedder/embedding"]
  for name in OUTPUT_TABLES:
    if name not in arrays:
      continue
    its, own = arrays[name].shape, words.shape
    same = its[1:] == own[1:] and its[:1] <= own[:1]
    if not (
      same and np.array_equal(arrays[name].read(), words.read()[: its[0]])
    ):
      raise UsageError(
        f"{where} must compare its outputs with the embeddings of words, and "
        f"has another table, {name}"
      )


def kind_of(config: BertConfig) -> str:
  """The model_type of transformers that has this shape."""
  if config.first_position:
    return "roberta"
  return next(k for k, (_, pooler) in TYPES.items() if pooler == config.pooler)


def to_transformers(
  weights: Mapping[str, np.ndarray], config: BertConfig
) -> dict[str, np.ndarray]:
  """A classifier's weights by the names of transformers.

  Args:
    weights: name -> array, all those of `Bert`.
    config: its shape.

  Returns:
    The state dict of `AutoModelForSequenceClassification`; the inverse of
    `from_transformers`.
  """
  kind = kind_of(config)
  prefix, distil = TYPES[kind][0], kind == "distilbert"
  layers = "transformer" if distil else "encoder"
  # Later names win, so DistilBERT's own stand first where another is wanted.
  pairs = list(_LAYER.items())
  inside = {ours: its for its, ours in (pairs if distil else reversed(pairs))}
  top = {
    ours: its for its, ours in _TOP.items() if its.startswith("embeddings")
  }
  top |= _HEADS[kind]
  found = {}
  for name, array in weights.items():
    place, _, leaf = name.rpartition("/")
    if match := re.fullmatch(r"encoder/layers_(\d+)/(.+)", place):
      number, rest = match.groups()
      module = f"{prefix}.{layers}.layer.{number}.{inside[rest]}"
    else:
      module = top[place]
      if not module.startswith(_OUTSIDE):
        module = f"{prefix}.{module}"
    if leaf == "kernel":
      found[f"{module}.weight"] = np.ascontiguousarray(array.T)
    else:
      leaf = {"scale": "weight", "embedding": "weight"}.get(leaf, leaf)
      found[f"{module}.{leaf}"] = array
  return found
