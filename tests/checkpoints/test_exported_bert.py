"""Exports of the BERT family, as transformers loads and reads them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from augdistill.checkpoints import exported, flat
from augdistill.checkpoints.exported_bert import read_bert, write_bert
from augdistill.data.subwords import read_tokenizer, read_word_pieces
from augdistill.data.texts import encode_rows
from augdistill.models.bert_config import BertConfig
from augdistill.models.networks import network
from augdistill.types import Inputs, Task, TaskKind

TEXTS = [
  ("My card has not arrived", "the exchange rate was wrong"),
  ("Zoë paid 12.50 € at the café", "a card"),
  ("unarrived cards", "my, my?"),
]
PIECES = (
  *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "my", "card", "##s"),
  *("has", "not", "arrived", "un", "##arrived", "the", "rate", ",", "?", "a"),
)
NAMES = ("cash", "app", "card")
LENGTH = 40
# What tells the architectures apart.
KINDS = {
  "bert": {"pooler": "tanh", "num_segments": 2},
  "roberta": {"pooler": "tanh", "num_segments": 1, "first_position": 2},
  "electra": {"pooler": "gelu", "num_segments": 2},
  "distilbert": {"pooler": "relu", "num_segments": 0},
}
TASKS = {
  kind: Task("t", kind, () if kind == TaskKind.REGRESSION else NAMES)
  for kind in TaskKind
}


def byte_pairs():
  """A tokenizer like RoBERTa's."""
  tokenizer = tokenizers.Tokenizer(models.BPE(unk_token=None))
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=300,
    special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator([t for pair in TEXTS for t in pair], trainer)
  tokenizer.post_processor = processors.RobertaProcessing(
    ("</s>", 2), ("<s>", 0), add_prefix_space=False
  )
  return read_tokenizer(tokenizer.to_str().encode(), "tokenizer.json")


def make(folder, kind, task):
  """An export of random weights, and what its network says of rows."""
  vocab = (
    byte_pairs()
    if kind == "roberta"
    else read_word_pieces("\n".join(PIECES).encode(), folder / "vocab.txt")
  )
  config = BertConfig(
    vocab_size=vocab.size,
    num_outputs=task.num_outputs,
    emb_dim=16,
    mlp_dim=24,
    num_layers=2,
    num_heads=2,
    num_positions=LENGTH + KINDS[kind].get("first_position", 0),
    separator_id=vocab.frame.end_id,
    **KINDS[kind],
  )
  model = network(config)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype("f4") * 0.3,
    jax.eval_shape(model.init, jax.random.key(0)),
  )
  weights = dict(flat.named_leaves(params))
  exported.write_texts(folder, vocab, task, LENGTH)
  write_bert(folder, config, task, vocab, LENGTH, weights)
  return vocab, weights, config


@pytest.fixture(params=KINDS)
def kind(request):
  return request.param


def rows_of(texts, vocab):
  """Tokens and mask of texts, as a run reads them."""
  rows = encode_rows(texts, vocab, LENGTH, 3)
  mask = np.arange(LENGTH) < rows.lengths[:, None]
  tokens = np.zeros(mask.shape, np.int32)
  tokens[mask] = rows.tokens
  return tokens, mask


SINGLE, PAIR = [(text,) for text, _ in TEXTS], TEXTS


@pytest.mark.parametrize("of", TaskKind)
def test_transformers_says_of_an_export_what_the_run_says(tmp_path, kind, of):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  task = TASKS[of]
  vocab, *_ = make(tmp_path, kind, task)
  model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
    tmp_path, output_loading_info=True
  )
  assert not any(info.values()), info
  assert model.config.model_type == kind
  assert model.config.num_labels == task.num_outputs
  assert (
    model.config.problem_type
    == {
      TaskKind.CLASSES: "single_label_classification",
      TaskKind.MULTI_LABEL: "multi_label_classification",
      TaskKind.REGRESSION: "regression",
    }[of]
  )
  if of != TaskKind.REGRESSION:
    assert model.config.id2label == dict(enumerate(NAMES))
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
  logits = read_bert(tmp_path)
  for texts in (SINGLE, PAIR):
    given = tokenizer(
      *map(list, zip(*texts, strict=True)), padding=True, return_tensors="pt"
    )
    tokens, mask = rows_of(texts, vocab)
    with torch.no_grad():
      said = model.eval()(**given).logits.numpy()
    np.testing.assert_allclose(said, logits(tokens, mask), atol=1e-4)


def test_transformers_reads_texts_as_the_run_does(tmp_path, kind):
  pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  vocab, *_ = make(tmp_path, kind, TASKS[TaskKind.CLASSES])
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert tokenizer.model_max_length == LENGTH
  long = " ".join(["card my rate"] * 40)
  for texts in (SINGLE, PAIR, [(long,)], [("",)], [("a", "")]):
    rows = encode_rows(texts, vocab, LENGTH, 3)
    got = tokenizer(*map(list, zip(*texts, strict=True)), truncation=True)
    assert [t for row in got["input_ids"] for t in row] == rows.tokens.tolist()
    assert [len(row) for row in got["input_ids"]] == rows.lengths.tolist()


def test_an_export_says_here_what_its_network_says(tmp_path, kind):
  # Their vocabularies do not fill the rows of the table, which are rounded up.
  vocab, weights, config = make(tmp_path, kind, TASKS[TaskKind.CLASSES])
  assert vocab.num_pieces < vocab.size
  tokens, mask = rows_of(PAIR, vocab)
  inputs = Inputs(
    mask=jnp.asarray(mask)[None], tokens=jnp.asarray(tokens)[None]
  )
  wanted = network(config).forward(flat.nested(weights), inputs).logits[0]
  np.testing.assert_allclose(
    read_bert(tmp_path)(tokens, mask), wanted, atol=1e-5
  )
  said = json.loads((tmp_path / "config.json").read_text())
  assert said["model_type"] == kind
