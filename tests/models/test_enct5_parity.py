"""EncT5 against the float64 reference, and against T5X itself."""

import gzip
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.models.enct5 import Encoder, EncT5Config, enct5
from tests.reference import t5_encoder as reference

CLOSE = {"rtol": 2e-4, "atol": 2e-5}


def with_heads(params, config):
  """The reference's layout: kernels [D, H, K], and [H, K, D] on the way out."""
  heads = (config.num_heads, config.head_dim)

  def reshape(path, leaf):
    names = [p.key for p in path]
    if not any("attention" in n for n in names) or names[-1] != "kernel":
      return leaf
    if names[-2] == "out":
      return leaf.reshape(*heads, -1)
    return leaf.reshape(-1, *heads)

  return jax.tree_util.tree_map_with_path(reshape, params)


@pytest.fixture(scope="module")
def outputs(run, text):
  tokens, mask = text
  return run(mask=mask, tokens=tokens)


@pytest.fixture(scope="module")
def expected(params, config, text):
  """The reference's outputs, one dict per copy."""
  layout = with_heads(params, config)
  return [
    reference.enct5(tokens, mask, layout, config.num_layers)
    for tokens, mask in zip(*text, strict=True)
  ]


def test_logits_and_pooled_states_are_those_of_the_reference(outputs, expected):
  for copy, want in enumerate(expected):
    np.testing.assert_allclose(outputs.logits[copy], want["logits"], **CLOSE)
    np.testing.assert_allclose(outputs.pooled[copy], want["pooled"], **CLOSE)


def test_hidden_states_are_those_of_the_reference(
  outputs, expected, text, config
):
  assert len(outputs.hidden) == config.num_layers + 1
  for copy, mask in enumerate(text[1]):
    for got, want in zip(outputs.hidden, expected[copy]["hidden"], strict=True):
      np.testing.assert_allclose(
        np.asarray(got[copy])[mask], want[mask], **CLOSE
      )


def test_attention_is_that_of_the_reference(outputs, expected, text, config):
  assert len(outputs.attention) == config.num_layers
  for copy, mask in enumerate(text[1]):
    both = zip(outputs.attention, expected[copy]["attention"], strict=True)
    for got, want in both:
      real = np.broadcast_to(mask[:, None, :], want.shape[:-1])
      np.testing.assert_allclose(
        np.asarray(got[copy])[real], want[real], **CLOSE
      )
      # And to padding nothing is paid at all.
      assert np.all(np.asarray(got[copy]).swapaxes(1, 3)[~mask] == 0)


def t5x_arrays(checkpoint):
  """Parameters of a native T5X checkpoint: one gzipped chunk per array."""
  tree = {}
  for array in checkpoint.glob("target.*"):
    about = json.loads((array / ".zarray").read_text())
    assert about["chunks"] == about["shape"]
    assert (about["dtype"], about["order"]) == ("<f4", "C")
    chunk = array / ".".join("0" for _ in about["shape"])
    flat = np.frombuffer(gzip.decompress(chunk.read_bytes()), "<f4")
    *parents, name = array.name.split(".")[1:]
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[name] = flat.reshape(about["shape"])
  return tree


@pytest.mark.parametrize(
  ("fixture", "num_layers"), [("t5_1_1", 2), ("t5_1_1_native_1layer", 1)]
)
def test_the_encoder_computes_what_t5x_computed(
  shared_data, fixture, num_layers
):
  folder = pathlib.Path(shared_data) / "t5x_checkpoints" / fixture
  (checkpoint,) = folder.glob("checkpoint_*")
  params = t5x_arrays(checkpoint)
  golden = np.load(folder / "reference.npz")
  tokens = golden["encoder_input_tokens"]
  mask = tokens > 0
  table = params["token_embedder"]["embedding"]
  config = EncT5Config(*table.shape[:1], 2, 16, 24, num_layers, 2, 6)
  encoded, *_ = jax.jit(
    lambda params, x, mask: Encoder(config).apply(
      {"params": params}, x, mask, 0, deterministic=True
    )
  )(
    params["encoder"], jnp.asarray(table[tokens][None]), jnp.asarray(mask[None])
  )
  np.testing.assert_allclose(
    np.asarray(encoded)[0][mask], golden["encoded"][mask], rtol=1e-5, atol=1e-6
  )


def test_every_parameter_but_latent_and_head_is_found_in_a_t5x_checkpoint(
  shared_data,
):
  folder = pathlib.Path(shared_data) / "t5x_checkpoints" / "t5_1_1"
  (checkpoint,) = folder.glob("checkpoint_*")
  theirs = t5x_arrays(checkpoint)
  network = enct5(EncT5Config(80, 2, 16, 24, 2, 2, 6))
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  new = []
  for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
    node = theirs
    for part in path:
      node = node.get(part.key, {})
    if isinstance(node, dict):
      new.append("/".join(part.key for part in path))
    else:
      assert node.shape == leaf.shape, path
  assert sorted(new) == ["decoder/latent", "head/bias", "head/kernel"]
