"""A model of the BERT family as files of Hugging Face.

  model.safetensors  config.json  tokenizer.json  tokenizer_config.json

`transformers.AutoModelForSequenceClassification` and `AutoTokenizer` load
them, and so does this package, which is how they are read again here.
"""

import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from augdistill.checkpoints import bert_names, exported
from augdistill.checkpoints.begin import begin
from augdistill.checkpoints.int8 import SCALE
from augdistill.checkpoints.source import open_source
from augdistill.data.subwords import SubwordVocab
from augdistill.data.vocabulary import PAD_ID
from augdistill.errors import UsageError
from augdistill.models.bert_config import BertConfig
from augdistill.models.networks import network
from augdistill.types import Inputs, Task

_CLASS = {
  "bert": "BertForSequenceClassification",
  "roberta": "RobertaForSequenceClassification",
  "electra": "ElectraForSequenceClassification",
  "distilbert": "DistilBertForSequenceClassification",
}


def write_bert(
  directory: pathlib.Path,
  config: BertConfig,
  task: Task,
  vocab: SubwordVocab,
  max_length: int,
  weights: Mapping[str, np.ndarray],
) -> None:
  """Writes the model, its configuration and its vocabulary.

  Args:
    directory: where to.
    config: its shape.
    task: what its outputs mean.
    vocab: what tokens mean.
    max_length: tokens kept of a text.
    weights: name -> f32 array.

  Raises:
    UsageError: if the weights are in int8, which transformers would take for
      the numbers themselves, or the vocabulary is of SentencePiece.
  """
  if any(name.endswith(SCALE) for name in weights):
    raise UsageError(
      "--weights int8 of a model of the BERT family must be of --format "
      "stablehlo; transformers does not read it"
    )
  if not isinstance(vocab, SubwordVocab):
    raise UsageError(
      "--format hf of a model of the BERT family must be of one that reads "
      "with a tokenizer.json or vocab.txt; --format stablehlo takes any"
    )
  table = "token_embedder/embedding"
  rows = vocab.num_pieces  # The rows that only round the table up stay here.
  weights = {**weights, table: weights[table][:rows]}
  shape = directory / "config.json"
  exported.write_json(shape, bert_config(config, task, rows))
  file = directory / "model.safetensors"
  save_file(
    bert_names.to_transformers(weights, config), file, metadata={"format": "pt"}
  )
  # safetensors makes files that nobody but their owner may read.
  shutil.copymode(shape, file)
  names = ["input_ids", "attention_mask"]
  # Without its name there, the second text of a pair passes for the first.
  names += ["token_type_ids"] if config.num_segments > 1 else []
  exported.write_json(
    directory / "tokenizer_config.json",
    {
      "tokenizer_class": "PreTrainedTokenizerFast",
      "model_max_length": max_length,
      "model_input_names": names,
      **_special_tokens(vocab),
    },
  )


def read_bert(directory: str | os.PathLike) -> exported.Logits:
  """What was written, as it is read to begin with."""
  source = open_source(os.fspath(directory))
  config = BertConfig(
    **source.shape,
    num_outputs=source.arrays["head/kernel"].shape[-1],
    separator_id=exported.end_id(directory),
  )
  model = network(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  params = jax.device_put(begin(shapes, source))

  @jax.jit
  def logits(params, tokens, mask):
    inputs = Inputs(mask=mask[None], tokens=tokens[None])
    return model.forward(params, inputs, key=None).logits[0]

  return lambda tokens, mask: np.asarray(
    logits(params, jnp.asarray(tokens), jnp.asarray(mask))
  )


def bert_config(config: BertConfig, task: Task, rows: int) -> dict[str, Any]:
  """The config.json of a classifier of the BERT family.

  Args:
    config: the shape.
    task: what the outputs mean.
    rows: of the table of words.

  Returns:
    What the configuration of its class in transformers takes.
  """
  kind = bert_names.kind_of(config)
  labelled = {
    "architectures": [_CLASS[kind]],
    "model_type": kind,
    "vocab_size": rows,
    "max_position_embeddings": config.num_positions,
    "pad_token_id": max(config.first_position - 1, PAD_ID),
    **exported.labels_of(task),
  }
  if kind == "distilbert":
    return labelled | {
      "dim": config.emb_dim,
      "hidden_dim": config.mlp_dim,
      "n_layers": config.num_layers,
      "n_heads": config.num_heads,
      "activation": config.activation,
      "dropout": config.dropout_rate,
      "attention_dropout": config.dropout_rate,
      "seq_classif_dropout": config.dropout_rate,
    }
  labelled |= {"embedding_size": config.emb_dim} if kind == "electra" else {}
  return labelled | {
    "hidden_size": config.emb_dim,
    "intermediate_size": config.mlp_dim,
    "num_hidden_layers": config.num_layers,
    "num_attention_heads": config.num_heads,
    "hidden_act": config.activation,
    "hidden_dropout_prob": config.dropout_rate,
    "attention_probs_dropout_prob": config.dropout_rate,
    "type_vocab_size": config.num_segments,
    "layer_norm_eps": config.epsilon,
  }


def _special_tokens(vocab: SubwordVocab) -> dict[str, str]:
  """The special tokens by the names that transformers has for them."""
  frame = vocab.frame
  ids = {
    "pad_token": PAD_ID,
    "sep_token": frame.end_id,
    "cls_token": frame.before[0] if frame.before else None,
    "unk_token": vocab.unk_id if vocab.unk_id >= 0 else None,
    "mask_token": vocab.mask_id,
  }
  return {
    name: vocab.pieces([i])[0] for name, i in ids.items() if i is not None
  }
