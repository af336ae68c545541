"""The files of an export, as Hugging Face's programs and jax read them."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from safetensors.numpy import load_file

from augdistill.checkpoints import exported, flat
from augdistill.checkpoints.exported_enct5 import write_enct5
from augdistill.checkpoints.exported_program import (
  PLATFORMS,
  read_program,
  write_program,
)
from augdistill.checkpoints.int8 import dequantise, quantise
from augdistill.checkpoints.source import open_source
from augdistill.checkpoints.t5_names import enct5_shape, to_transformers
from augdistill.data.sentence_pieces import train_vocab
from augdistill.data.texts import encode_rows
from augdistill.models.enct5 import Encoder, enct5
from augdistill.types import Task, TaskKind
from tests.checkpoints import test_standalone as tiny

KINDS = {
  TaskKind.CLASSES: ("single_label_classification", tiny.NAMES),
  TaskKind.MULTI_LABEL: ("multi_label_classification", tiny.NAMES),
  TaskKind.REGRESSION: ("regression", ("value",)),
}


@pytest.fixture(scope="module")
def vocab():
  return train_vocab(tiny.TEXTS, 60)


@pytest.fixture(scope="module", params=tiny.SHAPES)
def written(request, vocab, tmp_path_factory):
  """An export of random weights of a shape, with texts."""
  path = tmp_path_factory.mktemp("written") / request.param
  path.mkdir()
  config = tiny.shape(vocab, **tiny.SHAPES[request.param])
  weights = tiny.random_weights(config)
  write_enct5(path, config, tiny.CLASSES, vocab, tiny.LENGTH, weights)
  exported.write_texts(path, vocab, tiny.CLASSES, tiny.LENGTH)
  return path, config, weights


# --- Hugging Face ----------------------------------------------------------


def test_a_model_may_begin_with_what_was_written(written):
  path, config, weights = written
  source = open_source(str(path))
  new = {"decoder/latent", "head/kernel", "head/bias"}
  for name in set(weights) - new:
    np.testing.assert_array_equal(source.arrays[name].read(), weights[name])
  found = enct5_shape(source.arrays, "there") | source.shape
  assert all(getattr(config, name) == value for name, value in found.items())
  assert source.vocab_path == str(path / "spiece.model")


def test_every_weight_is_written_once_and_turned_as_torch_has_it(written):
  path, _, weights = written
  found = load_file(path / "model.safetensors")
  assert len(found) == len(weights)
  same = found["decoder.latent"], found["shared.weight"]
  np.testing.assert_array_equal(same[0], weights["decoder/latent"])
  np.testing.assert_array_equal(same[1], weights["token_embedder/embedding"])
  np.testing.assert_array_equal(
    found["decoder.head.weight"], weights["head/kernel"].T
  )


def test_a_scale_lies_as_its_matrix_does(vocab):
  config = tiny.shape(vocab)
  found = to_transformers(quantise(tiny.random_weights(config)))
  for name, scale in found.items():
    if name.endswith(".scale"):
      assert scale.shape == (len(found[name.removesuffix(".scale")]), 1)
  assert sum(name.endswith(".scale") for name in found) == 23


@pytest.mark.parametrize("kind", KINDS)
def test_the_configuration_says_what_outputs_mean(tmp_path, vocab, kind):
  problem, names = KINDS[kind]
  label_names = () if kind == TaskKind.REGRESSION else names
  task = Task("t", kind, label_names)
  config = tiny.shape(vocab)
  weights = tiny.random_weights(config)
  write_enct5(tmp_path, config, task, vocab, 16, weights)
  found = json.loads((tmp_path / "config.json").read_text())
  assert found["problem_type"] == problem
  assert found["id2label"] == {str(i): name for i, name in enumerate(names)}
  assert found["label2id"] == {name: i for i, name in enumerate(names)}
  # Whoever may read one of the files may read them all.
  modes = {os.stat(file).st_mode for file in tmp_path.iterdir()}
  assert len(modes) == 1


def test_transformers_loads_the_encoder_and_says_the_same(written):
  transformers = pytest.importorskip("transformers")
  torch = pytest.importorskip("torch")
  path, config, weights = written
  kind = "UMT5" if path.name == "umt5" else "T5"
  of_kind = getattr(transformers, f"{kind}EncoderModel")
  model, loaded = of_kind.from_pretrained(path, output_loading_info=True)
  unexpected = loaded.pop("unexpected_keys")
  assert not any(loaded.values()), loaded
  assert all(name.startswith("decoder.") for name in unexpected)
  assert kind == "UMT5" or not unexpected  # T5's says nothing of a decoder.
  tokens, mask = tiny.rows(config.vocab_size)
  with torch.no_grad():
    wanted = model(
      torch.tensor(tokens), attention_mask=torch.tensor(mask)
    ).last_hidden_state.numpy()
  params = flat.nested(weights)
  got, *_ = Encoder(config).apply(
    {"params": params["encoder"]},
    jnp.asarray(params["token_embedder"]["embedding"][tokens][None]),
    jnp.asarray(mask[None]),
    0,
    deterministic=True,
  )
  np.testing.assert_allclose(got[0][mask], wanted[mask], atol=1e-5, rtol=1e-4)
  of_config = transformers.AutoConfig.from_pretrained(path)
  assert isinstance(of_config, getattr(transformers, f"{kind}Config"))
  assert of_config.id2label == dict(enumerate(tiny.NAMES))


def test_transformers_reads_texts_as_the_run_does(written, vocab):
  pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  path, *_ = written
  tokenizer = transformers.T5Tokenizer.from_pretrained(path)
  texts = [*tiny.TEXTS, tiny.LONG, "  Ünïcode  CARD\t日本語 “ﬁ”, 12,345 "]
  wanted = encode_rows([(t,) for t in texts], vocab, tiny.LENGTH, 3)
  got = tokenizer(texts, truncation=True)["input_ids"]
  assert [t for row in got for t in row] == wanted.tokens.tolist()
  assert [len(row) for row in got] == wanted.lengths.tolist()
  pair = tokenizer(*tiny.TEXTS[:2])["input_ids"]
  assert (
    pair == encode_rows([tuple(tiny.TEXTS[:2])], vocab, 99, 3).tokens.tolist()
  )


def test_transformers_does_not_take_int8_for_the_numbers(tmp_path, vocab):
  transformers = pytest.importorskip("transformers")
  pytest.importorskip("torch")
  config = tiny.shape(vocab)
  stored = quantise(tiny.random_weights(config))
  write_enct5(tmp_path, config, tiny.CLASSES, vocab, 16, stored)
  with pytest.raises(OSError, match=r"model\.safetensors"):
    transformers.T5EncoderModel.from_pretrained(tmp_path)


# --- a program -------------------------------------------------------------


@pytest.mark.parametrize("in_int8", [False, True])
def test_the_program_says_what_the_network_says_for_any_shape(
  tmp_path, vocab, in_int8
):
  config = tiny.shape(vocab)
  weights = tiny.random_weights(config)
  stored = quantise(weights) if in_int8 else weights
  write_program(tmp_path, enct5(config), stored)
  program = read_program(tmp_path)
  tokens, mask = tiny.rows(vocab.size)
  wanted = tiny.said(config, dequantise(stored), tokens, mask)
  np.testing.assert_allclose(program(tokens, mask), wanted, atol=1e-5)
  one = program(tokens[1:2, :7], mask[1:2, :7])
  np.testing.assert_allclose(one, wanted[1:2], atol=1e-5)
  kinds = {array.dtype for array in np.load(tmp_path / "weights.npz").values()}
  assert (np.dtype("int8") in kinds) == in_int8


def test_the_program_is_for_cpus_gpus_and_tpus_and_small(tmp_path, vocab):
  config = tiny.shape(vocab)
  write_program(tmp_path, enct5(config), tiny.random_weights(config))
  content = (tmp_path / "model.stablehlo").read_bytes()
  program = export.deserialize(content)
  assert program.platforms == PLATFORMS == ("cpu", "cuda", "tpu")
  assert {str(a.shape) for a in program.in_avals[-2:]} == {"(b, l)"}
  assert len(content) < 200_000  # The weights are not in it.
  assert jax.tree.leaves(program.out_avals)[0].shape[1] == 3
