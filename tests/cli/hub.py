"""Tiny models with random weights under the names of Hugging Face's hub.

Each has the kind and the kind of vocabulary of the model whose name it has, a
few layers, and widths of a few numbers.
"""

import json
import pathlib
import shutil

import jax
import numpy as np
from safetensors.numpy import save_file

from augdistill.checkpoints import bert_names, t5_names
from augdistill.checkpoints.flat import named_leaves
from augdistill.data.vocabulary import load_vocab
from augdistill.models.bert_config import BertConfig
from augdistill.models.enct5 import EncT5Config
from augdistill.models.networks import network
from tests.cli.tiny import LABELS, examples
from tests.data.test_subwords import roberta_like

WORDS = sorted({word for text, _ in examples(60) for word in text.split()})
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##s", *WORDS)
# What is said of a kind: its own fields of BertConfig.
KINDS = {
  "bert": {"num_positions": 512},
  "distilbert": {"num_positions": 512, "num_segments": 0, "pooler": "relu"},
  "roberta": {"num_positions": 514, "first_position": 2, "num_segments": 1},
}
# Name -> kind, number of layers, heads, width. They differ where those of the
# true models differ; a teacher has at least its student's layers.
MODELS = {
  "google-bert/bert-base-uncased": ("bert", 4, 2, 8),
  "google-bert/bert-large-uncased": ("bert", 5, 4, 16),
  "distilbert/distilbert-base-uncased": ("distilbert", 4, 2, 8),
  "microsoft/MiniLM-L12-H384-uncased": ("bert", 4, 2, 4),
  "FacebookAI/roberta-large": ("roberta", 2, 4, 16),
  "google/t5-v1_1-small": ("t5", 1, 2, 8),
  "google/t5-v1_1-large": ("t5", 2, 4, 16),
}


def write_model(
  name: str, folder: pathlib.Path, spiece: pathlib.Path, classes: bool = False
) -> pathlib.Path:
  """Writes the model called `name`, as transformers saves one.

  Args:
    name: a key of `MODELS`.
    folder: where to; it is made.
    spiece: the SentencePiece model of a T5.
    classes: whether its head, for the classes of `tiny`, is there, too.

  Returns:
    The folder.
  """
  kind, num_layers, num_heads, width = MODELS[name]
  folder.mkdir(parents=True)
  if kind == "t5":
    shutil.copy(spiece, folder / "spiece.model")
  elif kind == "roberta":
    roberta_like().save(str(folder / "tokenizer.json"))
  else:
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
  vocab = load_vocab(folder)
  shape = {
    # T5's table has rows without a piece.
    "vocab_size": vocab.size if kind == "t5" else vocab.num_pieces,
    "num_outputs": len(LABELS),
    "emb_dim": width,
    "mlp_dim": 12,
    "num_layers": num_layers,
    "num_heads": num_heads,
  }
  if kind == "t5":
    model = EncT5Config(**shape, head_dim=4)
    weights = t5_names.to_transformers(drawn(model))
    said = {"feed_forward_proj": "gated-gelu"}
  else:
    model = BertConfig(**shape, **KINDS[kind])
    weights = bert_names.to_transformers(drawn(model), model)
    names = {str(i): label for i, label in enumerate(LABELS)}
    said = {"num_attention_heads": num_heads, "id2label": names}
  if not classes:
    heads = ("classifier", "pre_classifier", "decoder.head", "decoder.latent")
    weights = {n: w for n, w in weights.items() if not n.startswith(heads)}
  save_file(weights, folder / "model.safetensors")
  config = {"model_type": kind, **said}
  (folder / "config.json").write_text(json.dumps(config))
  return folder


def drawn(model: BertConfig | EncT5Config) -> dict[str, np.ndarray]:
  """Name -> random numbers, of the shape of a model's parameters."""
  shapes = jax.eval_shape(network(model).init, jax.random.key(0))
  rng = np.random.default_rng(0)
  return {
    name: rng.normal(0, 0.3, leaf.shape).astype("f4")
    for name, leaf in named_leaves(shapes)
  }
