"""What is written into exports says what this package says, and stands alone.

The loader in NumPy is compared with the network in jax, and the reader of
texts with the data set's.
"""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.checkpoints import exported, flat
from augdistill.checkpoints.exported_enct5 import read_enct5, write_enct5
from augdistill.checkpoints.int8 import dequantise, quantise
from augdistill.checkpoints.standalone import enct5 as standalone
from augdistill.checkpoints.standalone.texts import Texts
from augdistill.data.sentence_pieces import SentencePieceVocab, train_vocab
from augdistill.data.texts import encode_rows
from augdistill.evaluation.predictions import prediction_rows
from augdistill.models.enct5 import EncT5Config, enct5
from augdistill.models.t5_layers import relative_position_bucket
from augdistill.types import Inputs, Task, TaskKind

WORDS = (
  *("my", "card", "has", "not", "arrived", "and", "the", "cash"),
  *("machine", "is", "out", "of", "order"),
)
TEXTS = [" ".join(WORDS[i : i + 3]) for i in range(11)]
NAMES = ("a", "b", "c")
CLASSES = Task("t", TaskKind.CLASSES, NAMES)
MULTI_LABEL = Task("t", TaskKind.MULTI_LABEL, NAMES)
REGRESSION = Task("t", TaskKind.REGRESSION)
LENGTH = 20  # More than relative positions are told apart.

SHAPES = {
  "t5_1_1": {},
  "t5_1_0": {"feed_forward": "relu"},
  "silu": {"feed_forward": "gated-silu"},
  "umt5": {"relative_bias": "per_layer"},
}


@pytest.fixture(scope="module")
def vocab():
  return train_vocab(TEXTS, 60)


def shape(vocab, **more):
  return EncT5Config(
    vocab_size=vocab.size,
    num_outputs=3,
    emb_dim=16,
    mlp_dim=24,
    num_layers=2,
    num_heads=2,
    head_dim=6,
    relative_buckets=8,
    relative_max_distance=12,
    **more,
  )


def random_weights(config):
  params = enct5(config).init(jax.random.key(0))
  rng = np.random.default_rng(1)
  return {  # None at what it begins with: norms at 1, a bias at 0.
    name: np.asarray(leaf) + rng.normal(size=leaf.shape).astype("f4") * 0.1
    for name, leaf in flat.named_leaves(params)
  }


def rows(vocab_size):
  rng = np.random.default_rng(0)
  mask = np.arange(LENGTH) < np.array([[LENGTH], [7], [1]])
  return rng.integers(0, vocab_size, (3, LENGTH)).astype(np.int32), mask


def said(config, weights, tokens, mask):
  inputs = Inputs(
    mask=jnp.asarray(mask[None]), tokens=jnp.asarray(tokens[None])
  )
  forward = jax.jit(enct5(config).forward)
  return np.asarray(forward(flat.nested(weights), inputs).logits[0])


# --- the model -------------------------------------------------------------


@pytest.mark.parametrize("kind", SHAPES)
def test_the_loader_says_what_the_network_says(tmp_path, vocab, kind):
  config = shape(vocab, **SHAPES[kind])
  weights = random_weights(config)
  write_enct5(tmp_path, config, CLASSES, vocab, LENGTH, weights)
  tokens, mask = rows(vocab.size)
  got = read_enct5(tmp_path)(tokens, mask)
  assert got.dtype == np.float32
  wanted = said(config, weights, tokens, mask)
  np.testing.assert_allclose(got, wanted, atol=2e-5)
  assert np.ptp(wanted, axis=0).min() > 1e-2  # The rows are not all one.


def test_the_loader_multiplies_int8_by_its_scales(tmp_path, vocab):
  config = shape(vocab)
  weights = random_weights(config)
  stored = quantise(weights)
  write_enct5(tmp_path, config, CLASSES, vocab, LENGTH, stored)
  tokens, mask = rows(vocab.size)
  got = read_enct5(tmp_path)(tokens, mask)
  wanted = said(config, dequantise(stored), tokens, mask)
  np.testing.assert_allclose(got, wanted, atol=2e-5)
  assert np.abs(got - said(config, weights, tokens, mask)).max() > 1e-3
  # Under this name transformers would take int8 for the numbers themselves.
  assert not (tmp_path / "model.safetensors").exists()
  assert (tmp_path / "model.int8.safetensors").exists()


@pytest.fixture(scope="module")
def model(vocab, tmp_path_factory):
  path = tmp_path_factory.mktemp("model")
  config = shape(vocab)
  write_enct5(path, config, CLASSES, vocab, LENGTH, random_weights(config))
  return standalone.EncT5(path)


def test_what_stands_at_padding_does_not_matter(model, vocab):
  tokens, mask = rows(vocab.size)
  other = np.where(mask, tokens, 10**6)
  np.testing.assert_array_equal(
    model.logits(tokens, mask), model.logits(other, mask)
  )


def test_padding_does_not_matter(model, vocab):
  tokens, mask = rows(vocab.size)
  short = model.logits(tokens[1:2, :7], mask[1:2, :7])
  np.testing.assert_allclose(model.logits(tokens, mask)[1:2], short, atol=1e-5)


@pytest.mark.parametrize(
  "tokens, mask, message",
  [
    (np.zeros(4, int), np.ones(4, bool), r"one shape \[B, L\], got \[4\]"),
    (np.zeros((1, 4), int), np.ones((1, 5), bool), "one shape"),
    (np.full((1, 2), 999), np.ones((1, 2), bool), "ids must be from 0 to"),
    (np.full((1, 2), -1), np.ones((1, 2), bool), "ids must be from 0 to"),
    (np.ones((1, 2), int), np.zeros((1, 2), bool), "no padding"),
  ],
)
def test_arrays_that_cannot_be_right_are_refused(model, tokens, mask, message):
  with pytest.raises(ValueError, match=message):
    model.logits(tokens, mask)


@pytest.mark.parametrize(
  "buckets, furthest", [(32, 128), (8, 12), (18, 128), (20, 160)]
)
def test_positions_fall_into_the_networks_buckets(buckets, furthest):
  positions = np.arange(-600, 601, dtype=np.int32)[None]
  np.testing.assert_array_equal(
    standalone.relative_position_bucket(positions, buckets, furthest),
    relative_position_bucket(jnp.asarray(positions), buckets, furthest),
  )


# --- texts -----------------------------------------------------------------


def reader(tmp_path, vocab, task, max_length=16):
  exported.write_texts(tmp_path, vocab, task, max_length)
  return Texts(tmp_path)


def as_pair(task):
  return Task(task.name, task.kind, task.label_names, pair=True)


LONG = " ".join(3 * WORDS)


@pytest.mark.parametrize(
  "texts",
  [
    [(t,) for t in (*TEXTS, LONG, "Ünïcode  CARD\t日本語 ﬁ")],
    [
      *((a, b) for a in TEXTS[:3] for b in TEXTS[3:6]),
      *((LONG, "cash"), ("cash", LONG), (LONG, LONG), (LONG, LONG + " card")),
    ],
  ],
)
@pytest.mark.parametrize("max_length", [8, 15, 16, 24, 128])
def test_texts_are_read_as_a_data_sets_rows_are(
  tmp_path, vocab, texts, max_length
):
  pair = len(texts[0]) == 2
  task = as_pair(CLASSES) if pair else CLASSES
  read = reader(tmp_path, vocab, task, max_length)
  tokens, mask = read.batch(texts if pair else [t for (t,) in texts])
  wanted = encode_rows(texts, vocab, max_length, 3)
  assert (tokens.dtype, mask.dtype) == (np.int32, bool)
  np.testing.assert_array_equal(mask.sum(axis=1), wanted.lengths)
  np.testing.assert_array_equal(tokens[mask], wanted.tokens)
  assert not tokens[~mask].any()
  assert (np.diff(mask.astype(int), axis=1) <= 0).all()  # Padding is behind.


def test_batches_have_few_lengths(tmp_path, vocab):
  read = reader(tmp_path, vocab, CLASSES, 100)
  words = [" ".join(["card"] * n) for n in range(1, 200)]
  lengths = {read.batch([text])[0].shape[1] for text in words}
  assert lengths == {16, 24, 32, 48, 64, 96, 100}


def test_sentinels_of_t5s_own_vocabulary_are_read_as_they_were(tmp_path, vocab):
  with_sentinels = SentencePieceVocab(vocab.model_bytes, extra_ids=3)
  read = reader(tmp_path, with_sentinels, CLASSES)
  text = "my <extra_id_1> card"
  assert read.tokens(text)[:-1] == with_sentinels.encode([text])[0]
  assert max(read.tokens(text)) >= vocab.num_pieces  # There is one in it.
  # transformers adds its own to the file as it was.
  assert (tmp_path / "spiece.model").read_bytes() == vocab.model_bytes


@pytest.mark.parametrize(
  "texts, message",
  [
    ([("a", "b")], "single texts"),
    ([" "], "not empty"),
    ([("card", "")], "pairs|not empty"),
    ([7], "str|iterable"),
    ([], "at least one"),
    ("card", "a list"),
  ],
)
def test_texts_that_the_model_does_not_read_are_refused(
  tmp_path, vocab, texts, message
):
  pair = texts == [("card", "")]
  read = reader(tmp_path, vocab, as_pair(CLASSES) if pair else CLASSES)
  with pytest.raises((ValueError, TypeError), match=message):
    read.batch(texts)


def test_a_single_text_is_no_pair(tmp_path, vocab):
  with pytest.raises(ValueError, match="pairs of texts, got 'card'"):
    reader(tmp_path, vocab, as_pair(CLASSES)).batch(["card"])


@pytest.mark.parametrize("task", [CLASSES, MULTI_LABEL, REGRESSION])
def test_answers_are_those_of_predict(tmp_path, vocab, task):
  logits = np.random.default_rng(0).normal(size=(5, task.num_outputs)) * 3
  logits = logits.astype(np.float32)
  examples = encode_rows([(t,) for t in TEXTS[:5]], vocab, 16, logits.shape[1])
  wanted = [
    {k: row[k] for k in ("prediction", "probabilities") if k in row}
    for row in prediction_rows(task, examples, logits)
  ]
  assert reader(tmp_path, vocab, task).answers(logits) == wanted


def test_logits_of_another_model_are_refused(tmp_path, vocab):
  with pytest.raises(ValueError, match=r"shape \[B, 3\], got \[1, 2\]"):
    reader(tmp_path, vocab, CLASSES).answers(np.zeros((1, 2)))


# --- alone -----------------------------------------------------------------

ALONE = """
import json, sys
had = set(sys.modules)  # Some systems begin with modules of their own.
from enct5 import EncT5
from texts import Texts
model, texts = EncT5("."), Texts(".")
model.logits(*texts.batch(["my card"]))
print(json.dumps(sorted({name.split(".")[0] for name in {*sys.modules} - had})))
"""


def test_both_files_need_numpy_safetensors_and_sentencepiece_alone(
  tmp_path, vocab
):
  config = shape(vocab)
  write_enct5(tmp_path, config, CLASSES, vocab, 16, random_weights(config))
  exported.write_texts(tmp_path, vocab, CLASSES, 16)
  done = subprocess.run(
    [sys.executable, "-B", "-c", ALONE],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  loaded = set(json.loads(done.stdout)) - sys.stdlib_module_names
  foreign = {name for name in loaded if not name.startswith(("_", "."))}
  ours = {"enct5", "texts"}
  assert foreign - ours <= {
    *("numpy", "safetensors", "sentencepiece", "tokenizers"),
  }
  assert ours <= foreign


def test_what_is_written_is_the_tested_file_itself(tmp_path):
  for module in (standalone, sys.modules[Texts.__module__]):
    source = pathlib.Path(module.__file__)
    exported.write_standalone(tmp_path, source.name)
    assert (tmp_path / source.name).read_bytes() == source.read_bytes()
