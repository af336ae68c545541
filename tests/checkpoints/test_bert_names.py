"""The BERT family's weights do here what they do where they come from."""

import dataclasses
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from augdistill.checkpoints.begin import Source, begin, fit
from augdistill.checkpoints.bert_names import (
  bert_shape,
  check_tied,
  from_transformers,
  to_transformers,
)
from augdistill.checkpoints.foreign import Stored
from augdistill.checkpoints.state_dict import state_dict_arrays
from augdistill.errors import UsageError
from augdistill.models.bert import bert
from augdistill.models.bert_config import BertConfig
from augdistill.models.masked_bert import masked_bert
from augdistill.types import Inputs

GOLDEN = pathlib.Path(__file__).parent / "golden"
KINDS = ("bert", "roberta", "electra", "distilbert")
MASKED = ("bert_masked", "roberta_masked", "distilbert_masked")
SEPARATOR = 3


def read(folder):
  """config.json and the arrays in a directory."""
  config = json.loads((folder / "config.json").read_text())
  return config, from_transformers(state_dict_arrays(str(folder)))


def begun(folder):
  """Network, what it took, and its parameters, of a directory."""
  config, arrays = read(folder)
  shape = bert_shape(arrays, config, "there")
  network = bert(BertConfig(num_outputs=3, separator_id=SEPARATOR, **shape))
  params = network.init(jax.random.key(0))
  source = Source("there", BertConfig, arrays, shape)
  return network, fit(params, source), begin(params, source)


def check_says(network, params, wanted):
  """The network says what is wanted, of tokens and of their embeddings."""
  mask = jnp.asarray(wanted["mask"])[None]
  tokens = jnp.asarray(wanted["tokens"], jnp.int32)[None]
  embedded = network.embed(params, tokens, mask)
  for inputs in (Inputs(mask=mask, tokens=tokens), embedded):
    got = network.forward(params, inputs)
    np.testing.assert_allclose(
      got.logits[0], wanted["logits"], atol=1e-5, rtol=1e-4
    )
    for name in ("hidden", "attention"):
      states = np.stack(getattr(got, name))[:, 0]
      real = np.asarray(mask[0])
      at = real if name == "hidden" else real[:, None, :, None]
      at = np.broadcast_to(at, states.shape[1 : at.ndim + 1])
      np.testing.assert_allclose(
        states[:, at], wanted[name][:, at], atol=1e-5, rtol=1e-4
      )


@pytest.mark.parametrize("kind", KINDS)
def test_what_transformers_said_once_is_said_here(kind):
  network, fitted, params = begun(GOLDEN / kind)
  assert not fitted.new and not fitted.left
  check_says(network, params, np.load(GOLDEN / kind / "expected.npz"))


def check_guesses(folder, wanted):
  """The masked language model there guesses what is wanted."""
  config, arrays = read(folder)
  shape = bert_shape(arrays, config, "there")
  masked = masked_bert(
    BertConfig(num_outputs=1, separator_id=SEPARATOR, **shape), mask_id=4
  )
  source = Source("there", BertConfig, arrays, shape)
  params = masked.init(jax.random.key(0))
  assert not fit(params, source).new
  check_tied(arrays, "there")
  tokens, hidden, mask = (
    jnp.asarray(wanted[name])[None] for name in ("tokens", "hidden", "mask")
  )
  tokens = tokens.astype(jnp.int32)
  every = jnp.broadcast_to(jnp.arange(tokens.shape[-1]), tokens.shape)
  # What is hidden is not read.
  tokens = jnp.where(hidden, jnp.int32(7), tokens)
  got = masked.logits(begin(params, source), tokens, hidden, mask, every)
  real = wanted["mask"]
  np.testing.assert_allclose(
    got[0][real], wanted["logits"][real], atol=1e-5, rtol=1e-4
  )


@pytest.mark.parametrize("kind", MASKED)
def test_what_transformers_guessed_once_is_guessed_here(kind):
  check_guesses(GOLDEN / kind, np.load(GOLDEN / kind / "expected.npz"))


@pytest.mark.parametrize("kind", MASKED)
def test_the_transformers_that_is_installed_guesses_the_same(kind, tmp_path):
  check_guesses(tmp_path, maker().make_masked(kind, tmp_path))


def test_outputs_with_a_table_of_their_own_are_refused():
  _, arrays = read(GOLDEN / "bert_masked")
  words = arrays["token_embedder/embedding"]
  again = "cls.predictions.decoder.weight"
  check_tied({**arrays, again: words}, "there")
  other = Stored(words.shape, words.dtype, lambda: words.read() + 1)
  with pytest.raises(UsageError, match=f"has another table, {again}"):
    check_tied({**arrays, again: other}, "there")


def maker():
  """The module that made the goldens."""
  pytest.importorskip("torch")
  pytest.importorskip("transformers")
  spec = importlib.util.spec_from_file_location(
    "make_bert", GOLDEN / "make_bert.py"
  )
  make_bert = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(make_bert)
  return make_bert


@pytest.mark.parametrize("kind", KINDS)
def test_the_transformers_that_is_installed_says_the_same(kind, tmp_path):
  expected = maker().make(kind, tmp_path)
  network, fitted, params = begun(tmp_path)
  assert not fitted.new and not fitted.left
  check_says(network, params, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_go_back_to_the_names_that_they_came_from(kind):
  config, arrays = read(GOLDEN / kind)
  shape = bert_shape(arrays, config, "there")
  ours = {name: array.read() for name, array in arrays.items()}
  back = to_transformers(ours, BertConfig(num_outputs=3, **shape))
  there = load_file(GOLDEN / kind / "model.safetensors")
  assert set(back) == set(there)
  for name, array in there.items():
    np.testing.assert_array_equal(back[name], array)


def test_the_second_text_of_a_pair_is_told_from_the_first():
  network, _, params = begun(GOLDEN / "bert")
  wanted = np.load(GOLDEN / "bert" / "expected.npz")
  mask = jnp.asarray(wanted["mask"])[None]
  tokens = jnp.asarray(wanted["tokens"], jnp.int32)[None]
  inputs = network.embed(params, tokens, mask)
  inputs = dataclasses.replace(inputs, segment_ids=None)
  got = network.forward(params, inputs).logits[0]
  single, pair = np.abs(got - wanted["logits"])[:2].max(axis=1)
  assert single < 1e-5 < 1e-3 < pair


def test_names_of_norms_may_be_the_old_ones():
  _, arrays = read(GOLDEN / "bert")
  scale = Stored((8,), np.dtype("f4"), lambda: np.zeros(8, "f4"))
  found = from_transformers(
    {
      "bert.embeddings.LayerNorm.gamma": scale,
      "bert.embeddings.LayerNorm.beta": scale,
    }
  )
  assert set(found) == {"embedding_norm/scale", "embedding_norm/bias"}
  assert set(found) < set(arrays)


@pytest.mark.parametrize(
  "change, said",
  [
    ({"model_type": "t5"}, "one of the types bert, roberta, .*, got 't5'"),
    ({"position_embedding_type": "relative_key"}, "absolute positions, got"),
  ],
)
def test_other_models_are_refused(change, said):
  config, arrays = read(GOLDEN / "bert")
  with pytest.raises(UsageError, match=said):
    bert_shape(arrays, config | change, "there")


def test_weights_without_an_encoder_are_refused():
  config, arrays = read(GOLDEN / "bert")
  bare = {k: v for k, v in arrays.items() if not k.startswith("encoder")}
  with pytest.raises(UsageError, match="must hold embeddings and an encoder"):
    bert_shape(bare, config, "there")


def test_embeddings_of_another_width_than_the_layers_are_refused():
  config, arrays = read(GOLDEN / "bert")
  wide = Stored((16, 4), np.dtype("f4"), lambda: np.zeros((16, 4), "f4"))
  narrow = dict.fromkeys(
    ("token_embedder/embedding", "position_embedder/embedding"), wide
  )
  with pytest.raises(UsageError, match="as wide as its layers, got 4 and 8"):
    bert_shape(arrays | narrow, config, "there")
