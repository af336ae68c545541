"""An EncT5 as files of Hugging Face, and a loader that needs NumPy alone.

  model.safetensors (model.int8.safetensors)  config.json
  tokenizer_config.json  enct5.py

`transformers.T5EncoderModel` loads the encoder; the decoder's layer and the
head, which it has no place for, are read by enct5.py. Weights in int8 have a
file of another name: transformers would take int8 for the numbers themselves,
and say nothing.
"""

import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from augdistill.checkpoints import exported, t5_names
from augdistill.checkpoints.int8 import SCALE
from augdistill.data.sentence_pieces import SentencePieceVocab
from augdistill.data.vocabulary import PAD_ID, Vocab
from augdistill.models.enct5 import EncT5Config
from augdistill.types import Task

FLOAT32, INT8 = "model.safetensors", "model.int8.safetensors"


def write_enct5(
  directory: pathlib.Path,
  config: EncT5Config,
  task: Task,
  vocab: Vocab,
  max_length: int,
  weights: Mapping[str, np.ndarray],
) -> None:
  """Writes the model, its configuration and its loader.

  Args:
    directory: where to.
    config: its shape.
    task: what its outputs mean.
    vocab: what tokens mean.
    max_length: tokens kept of a text.
    weights: name -> array, in float32 or as of `int8.quantise`.
  """
  in_int8 = any(name.endswith(SCALE) for name in weights)
  file, shape = directory / (INT8 if in_int8 else FLOAT32), "config.json"
  exported.write_json(directory / shape, t5_config(config, task, vocab))
  save_file(
    t5_names.to_transformers(weights),
    file,
    metadata={"format": "pt"},  # Without, transformers does not read it.
  )
  # safetensors makes files that nobody but their owner may read.
  shutil.copymode(directory / shape, file)
  if isinstance(vocab, SentencePieceVocab):
    exported.write_json(
      directory / "tokenizer_config.json",
      tokenizer_config(vocab, max_length),
    )
  exported.write_standalone(directory, "enct5.py")


def tokenizer_config(
  vocab: SentencePieceVocab, max_length: int
) -> dict[str, Any]:
  """What makes `transformers.T5Tokenizer` of spiece.model."""
  ids = {"eos": vocab.frame.end_id, "pad": PAD_ID, "unk": vocab.unk_id}
  return {
    "tokenizer_class": "T5Tokenizer",
    "model_max_length": max_length,
    "extra_ids": vocab.extra_ids,
    **{f"{name}_token": vocab.pieces([i])[0] for name, i in ids.items()},
  }


def read_enct5(directory: str | os.PathLike) -> exported.Logits:
  """What was written, by the loader that lies in it."""
  model = exported.standalone_class(directory, "enct5.py", "EncT5")
  return model(directory).logits


def t5_config(config: EncT5Config, task: Task, vocab: Vocab) -> dict[str, Any]:
  """The config.json of a T5 with one layer of a decoder, or of a umT5.

  Args:
    config: the shape.
    task: what the outputs mean.
    vocab: what tokens mean.

  Returns:
    What `transformers.T5Config` takes.
  """
  own_bias = config.relative_bias == "per_layer"
  return {
    "architectures": ["UMT5EncoderModel" if own_bias else "T5EncoderModel"],
    "model_type": "umt5" if own_bias else "t5",
    "vocab_size": config.vocab_size,
    "d_model": config.emb_dim,
    "d_kv": config.head_dim,
    "d_ff": config.mlp_dim,
    "num_layers": config.num_layers,
    "num_decoder_layers": 1,
    "num_heads": config.num_heads,
    "relative_attention_num_buckets": config.relative_buckets,
    "relative_attention_max_distance": config.relative_max_distance,
    "feed_forward_proj": config.feed_forward,
    "layer_norm_epsilon": 1e-6,
    "dropout_rate": config.dropout_rate,
    "is_encoder_decoder": True,
    "tie_word_embeddings": False,
    "pad_token_id": PAD_ID,
    "eos_token_id": vocab.frame.end_id,
    "decoder_start_token_id": PAD_ID,
    "torch_dtype": "float32",
    **exported.labels_of(task),
  }
