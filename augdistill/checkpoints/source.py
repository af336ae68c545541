"""Weights of other programs that a model may begin with, told by their files.

A directory of Hugging Face's transformers, or on its hub; a checkpoint of T5X.
"""

import os
import reprlib

from augdistill.checkpoints import bert_names, t5_names
from augdistill.checkpoints.begin import Source
from augdistill.checkpoints.config_json import Config, field, read_json
from augdistill.checkpoints.folder import BUCKET
from augdistill.checkpoints.foreign import with_rows
from augdistill.checkpoints.labelled import task_of
from augdistill.checkpoints.state_dict import state_dict_arrays
from augdistill.checkpoints.t5x_checkpoint import is_t5x, t5x_arrays
from augdistill.data.vocabulary import find_vocab, table_rows
from augdistill.errors import UsageError, listing
from augdistill.models.bert_config import BertConfig
from augdistill.models.enct5 import EncT5Config

HUB = "hf://"
_REMOTE = (HUB, BUCKET)
_T5 = ("t5", "mt5", "umt5")
# What is needed of a repository on the hub: no code, no other frameworks.
_WANTED = ("*.json", "*.model", "vocab.txt")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "flax_model.msgpack")
# Of its weights, EncT5 knows one epsilon.
_EPSILON = 1e-6


def is_remote(path: str) -> bool:
  """Whether a path is no place on this machine's disks."""
  return path.startswith(_REMOTE)


def open_source(path: str) -> Source:
  """Weights that another program wrote; no array is read yet.

  Args:
    path: a directory, hf://ORGANISATION/NAME, or gs://BUCKET/DIRECTORY.

  Returns:
    The weights by this package's names.

  Raises:
    UsageError: if there is no such place, or nothing in it that can be read.
  """
  folder = _downloaded(path) if path.startswith(HUB) else path
  if not is_remote(folder) and not os.path.isdir(folder):
    raise UsageError(f"a run's or a model's directory must exist, got {path}")
  if not is_remote(folder) and os.path.exists(_config_file(folder)):
    return _of_transformers(folder, path)
  if is_t5x(folder):
    arrays = t5_names.from_t5x(t5x_arrays(folder))
    shape = t5_names.enct5_shape(arrays, path)
    return Source(path, EncT5Config, arrays, shape)
  raise UsageError(
    f"{path} must hold a run of augdistill, a model of transformers "
    "(config.json) or a checkpoint of T5X (its directory checkpoint_N), and "
    "holds none of them"
  )


def _config_file(folder: str) -> str:
  return os.path.join(folder, "config.json")


def _of_transformers(folder: str, path: str) -> Source:
  config = read_json(
    _config_file(folder), "the JSON that save_pretrained writes"
  )
  kind = config.get("model_type")
  known = [*_T5, *bert_names.TYPES]
  if kind not in known:
    raise UsageError(
      f"{path} must hold a model of one of the types {listing(known)}, got "
      f"{reprlib.repr(kind)}"
    )
  if kind not in _T5:
    return _bert(folder, path, config)
  epsilon = field(config, path, float, _EPSILON, "layer_norm_epsilon")
  if epsilon != _EPSILON:
    raise UsageError(
      f"{path} must have a layer_norm_epsilon of {_EPSILON}, got {epsilon}"
    )
  arrays = t5_names.from_transformers(state_dict_arrays(folder))
  shape = t5_names.enct5_shape(arrays, path) | {
    "feed_forward": field(config, path, str, "relu", "feed_forward_proj"),
    "relative_max_distance": field(
      config, path, int, 128, "relative_attention_max_distance"
    ),
  }
  return Source(path, EncT5Config, arrays, shape, find_vocab(folder))


def _bert(folder: str, path: str, config: Config) -> Source:
  """A model of the BERT family; its table gets the rows that ours have."""
  arrays = bert_names.from_transformers(state_dict_arrays(folder))
  shape = bert_names.bert_shape(arrays, config, path)
  own = shape["vocab_size"]
  shape["vocab_size"] = table_rows(own)
  for name in {"token_embedder/embedding", "bias"} & set(arrays):
    if arrays[name].shape[:1] == (own,):
      arrays[name] = with_rows(arrays[name], shape["vocab_size"])
  task = task_of(arrays, config, path)
  return Source(path, BertConfig, arrays, shape, find_vocab(folder), task)


def _downloaded(path: str) -> str:
  """The directory of a repository on the hub, or of what was kept of it."""
  import huggingface_hub

  name = path.removeprefix(HUB).strip("/")
  folder = ""
  try:
    # The first kind of weights that there is, since each holds them all.
    for weights in _WEIGHTS:
      folder = huggingface_hub.snapshot_download(
        name, allow_patterns=[*_WANTED, weights]
      )
      if any(f.endswith(weights.split(".")[-1]) for f in os.listdir(folder)):
        break
  except Exception as error:  # The hub's, the network's and its cache's own.
    reason = next(iter(str(error).strip().splitlines()), repr(error))
    raise UsageError(
      f"cannot get {name} from the hub of Hugging Face: {reason}. Is there a "
      "network? Without one, give a directory that save_pretrained wrote"
    ) from error
  return folder
