"""Which program wrote a directory is told by its files."""

import json
import os
import pathlib
import shutil

import huggingface_hub
import jax
import numpy as np
import pytest
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from augdistill.checkpoints.begin import begin, fit
from augdistill.checkpoints.source import open_source
from augdistill.errors import UsageError
from augdistill.models.enct5 import EncT5Config, enct5
from augdistill.models.masked_bert import masked_bert

GOLDEN = pathlib.Path(__file__).parent / "golden"
T5 = {
  "model_type": "t5",
  "feed_forward_proj": "gated-gelu",
  "relative_attention_max_distance": 12,
}


@pytest.fixture
def saved(tmp_path):
  """(kind, config) -> a directory as transformers saves one."""

  def save(kind="t5_1_1", config=T5):
    folder = tmp_path / kind
    shutil.copytree(GOLDEN / kind, folder)
    (folder / "config.json").write_text(json.dumps(config))
    return folder

  return save


def first_params(source):
  config = EncT5Config(num_outputs=3, **source.shape)
  params = enct5(config).init(jax.random.key(0))
  return fit(params, source), begin(params, source)


def test_a_directory_of_transformers_gives_shape_weights_and_vocabulary(saved):
  folder = saved()
  source = open_source(str(folder))
  assert source.shape["relative_max_distance"] == 12
  assert source.shape["feed_forward"] == "gated-gelu"
  assert source.vocab_path is None
  fitted, params = first_params(source)
  assert set(fitted.new) == {"decoder/latent", "head/kernel", "head/bias"}
  table = source.arrays["token_embedder/embedding"].read()
  np.testing.assert_array_equal(params["token_embedder"]["embedding"], table)
  (folder / "spiece.model").touch()
  assert open_source(str(folder)).vocab_path == str(folder / "spiece.model")


@pytest.mark.parametrize(
  "kind, config, said",
  [
    ("t5_1_0", {"model_type": "t5", "feed_forward_proj": "relu"}, "relu"),
    ("t5_1_0", {"model_type": "t5"}, "relu"),  # transformers' default
    ("umt5", T5 | {"model_type": "umt5"}, "gated-gelu"),
    ("t5_1_1", T5 | {"feed_forward_proj": "gated-silu"}, "gated-silu"),
  ],
)
def test_what_shapes_do_not_tell_is_read_in_its_configuration(
  saved, kind, config, said
):
  source = open_source(str(saved(kind, config)))
  assert source.shape["feed_forward"] == said
  first_params(source)


@pytest.mark.parametrize(
  "config, said",
  [
    (
      T5 | {"model_type": "gpt2"},
      "one of the types t5, mt5, .*, distilbert, got 'gpt2'",
    ),
    ({}, "got None"),
    (T5 | {"layer_norm_epsilon": 1e-5}, "layer_norm_epsilon of 1e-06"),
  ],
)
def test_what_is_no_such_model_is_refused(saved, config, said):
  with pytest.raises(UsageError, match=said):
    open_source(str(saved(config=config)))


def test_a_configuration_that_is_no_json_is_refused(saved):
  folder = saved()
  for text in ("{", "3", "[1, 2]"):
    (folder / "config.json").write_text(text)
    with pytest.raises(UsageError, match="must be the JSON"):
      open_source(str(folder))


def test_places_of_nothing_are_refused(tmp_path):
  with pytest.raises(UsageError, match="must exist, got nowhere"):
    open_source("nowhere")
  with pytest.raises(UsageError, match="holds none of them"):
    open_source(str(tmp_path))


# --- the hub, by its own client, which keeps what it has downloaded ----------

COMMIT = "a" * 40


@pytest.fixture
def kept(tmp_path, monkeypatch):
  """Where the client keeps google/tiny; it asks no network."""
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
  folder = tmp_path / "hub" / "models--google--tiny"
  (folder / "refs").mkdir(parents=True)
  (folder / "refs" / "main").write_text(COMMIT)
  return folder / "snapshots" / COMMIT


def test_a_repository_of_the_hub_is_read(saved, kept):
  shutil.copytree(saved(), kept)
  source = open_source("hf://google/tiny/")
  assert source.where == "hf://google/tiny/"
  assert "token_embedder/embedding" in source.arrays


def test_nothing_is_asked_for_but_one_kind_of_weights_and_no_code(
  saved, monkeypatch
):
  folder, asked = saved(), []

  def snapshot_download(name, allow_patterns):
    asked.append((name, *allow_patterns))
    return str(folder)

  monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
  open_source("hf://google/tiny")
  wanted = ("*.json", "*.model", "vocab.txt", "*.safetensors")
  assert asked == [("google/tiny", *wanted)]
  # Other weights where there are no safe ones.
  asked.clear()
  os.rename(folder / "model.safetensors", folder / "pytorch_model.bin")
  with pytest.raises(UsageError, match=r"pytorch_model\.bin"):
    open_source("hf://google/tiny")
  assert [patterns[-1] for patterns in asked] == [
    "*.safetensors",
    "pytorch_model*.bin",
  ]


@pytest.mark.parametrize("name", ["google/other", "no-such/thing/at/all", ""])
def test_what_the_hub_does_not_give_is_told_with_a_remedy(kept, name):
  with pytest.raises(UsageError, match="Without one, give a directory") as told:
    open_source(f"hf://{name}")
  assert "cannot get " in str(told.value)


# --- a config.json that another program, or a disk, has spoilt ---------------

FIELDS = (
  *("model_type", "position_embedding_type", "num_attention_heads", "n_heads"),
  *("hidden_act", "activation", "layer_norm_eps", "pad_token_id", "id2label"),
  *("problem_type", "feed_forward_proj", "relative_attention_max_distance"),
  *("layer_norm_epsilon", "vocab_size", "num_hidden_layers", "hidden_size"),
)
ABSURD = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(-(10**30), 10**30),
  st.floats(),
  st.sampled_from(["", "x", "7", "gelu", "t5", "bert", "roberta"]),
  st.lists(st.integers(), max_size=2),
  st.dictionaries(st.sampled_from("012"), st.none() | st.text(max_size=2)),
)


@settings(max_examples=150, deadline=None)
@given(
  st.sampled_from(["bert", "roberta", "electra", "distilbert", "t5_1_1"]),
  st.dictionaries(st.sampled_from(FIELDS), ABSURD, min_size=1, max_size=3),
)
def test_an_absurd_configuration_is_an_error_of_use_or_a_model(
  tmp_path_factory, kind, absurd
):
  folder = tmp_path_factory.getbasetemp() / f"absurd_{kind}"
  if not folder.exists():
    shutil.copytree(GOLDEN / kind, folder)
    config = folder / "config.json"
    whole = json.loads(config.read_text()) if config.exists() else T5
    (folder / "whole.json").write_text(json.dumps(whole))
  whole = json.loads((folder / "whole.json").read_text())
  (folder / "config.json").write_text(json.dumps(whole | absurd))
  try:
    source = open_source(str(folder))
    shape = source.config(num_outputs=3)
    hash(shape)  # As of which a network is kept.
  except UsageError as error:
    assert len(str(error).splitlines()) == 1
    assert str(folder) in str(error)


@pytest.mark.parametrize("rows", [(), (99,), (16, 2)])
def test_a_bias_of_another_size_than_the_words_is_told(tmp_path, rows):
  folder = tmp_path / "masked"
  shutil.copytree(GOLDEN / "bert_masked", folder)
  weights = load_file(folder / "model.safetensors")
  name = "cls.predictions.bias"
  save_file(
    weights | {name: np.zeros(rows, "f4")}, folder / "model.safetensors"
  )
  source = open_source(str(folder))
  shape = source.config(num_outputs=1)
  params = masked_bert(shape, mask_id=4).init(jax.random.key(0))
  with pytest.raises(UsageError, match=r"of the same size .*: bias is \["):
    fit(params, source)
