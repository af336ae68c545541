"""What EncT5 promises wherever it is entered and whatever the padding holds."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from augdistill.types import Inputs

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
KEY = jax.random.key(5, impl="rbg")  # compiles faster than threefry


def assert_same(got, expected, **tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance or CLOSE),
    got,
    expected,
  )


@pytest.fixture(scope="module")
def outputs(run, text):
  tokens, mask = text
  return run(mask=mask, tokens=tokens)


@pytest.fixture(scope="module")
def dropped(run, text):
  """Outputs under dropout with one key."""
  tokens, mask = text
  return run(mask=mask, tokens=tokens, key=KEY)


def embedded(params, text):
  return jnp.asarray(params["token_embedder"]["embedding"][text[0]])


def test_embeddings_of_the_tokens_enter_the_same_model(
  run, params, text, outputs
):
  got = run(mask=text[1], embeddings=embedded(params, text))
  assert_same(got, outputs)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_hidden_states_enter_the_same_model_at_their_layer(
  run, text, outputs, layer
):
  hidden = outputs.hidden[layer]
  got = run(mask=text[1], hidden=hidden, layer=layer)
  expected = outputs._replace(
    hidden=outputs.hidden[layer:],
    attention=outputs.attention[layer:],
    values=outputs.values[layer:],
  )
  assert_same(got, expected)


def test_pooled_vectors_enter_at_the_head(run, network, params, text, outputs):
  got = run(mask=text[1], pooled=outputs.pooled)
  np.testing.assert_allclose(got.logits, outputs.logits, rtol=1e-6)
  assert got.hidden == got.attention == ()
  vectors, bias = network.class_vectors(params), params["head"]["bias"]
  expected = np.einsum("nmd,cd->nmc", outputs.pooled, vectors) + bias
  np.testing.assert_allclose(outputs.logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_that_is_not_there_cannot_be_entered(run, text, outputs, layer):
  with pytest.raises(ValueError, match=rf"in \[0, 2\], got {layer}"):
    run(mask=text[1], hidden=outputs.hidden[0], layer=layer)


def test_embed_and_table_are_what_the_forward_pass_reads(
  network, params, text, outputs
):
  tokens, mask = map(jnp.asarray, text)
  table = network.table(params)
  assert table.shape == (23, 8)
  words = network.embed(params, tokens, mask).embeddings
  np.testing.assert_array_equal(words, table[tokens])
  np.testing.assert_array_equal(words, outputs.hidden[0])


def test_an_id_beyond_the_table_does_not_pass_for_another_word(network, params):
  tokens = jnp.array([[[22, 23]]], jnp.int32)
  words = network.embed(params, tokens, tokens > 0).embeddings[0, 0]
  assert np.all(np.isfinite(words[0])) and np.all(np.isnan(words[1]))


def test_a_row_depends_on_no_other_row_and_no_other_copy(run, text, outputs):
  tokens, mask = text
  others = np.roll(tokens, 1, axis=1) * 0 + 7
  others[1, 2] = tokens[1, 2]
  got = run(mask=mask, tokens=others)
  row = jax.tree.map(lambda x: x[1, 2], (got, outputs))
  assert_same(*row, rtol=1e-6, atol=1e-6)


def test_what_stands_in_the_padding_changes_no_bit(run, text, outputs):
  tokens, mask = text
  got = run(mask=mask, tokens=np.where(mask, tokens, 9))
  np.testing.assert_array_equal(got.logits, outputs.logits)
  np.testing.assert_array_equal(got.pooled, outputs.pooled)


def test_the_length_of_the_padding_changes_nothing(run, text, outputs):
  tokens, mask = (np.pad(a, ((0, 0), (0, 0), (0, 4))) for a in text)
  got = run(mask=mask, tokens=tokens)
  assert_same(got.logits, outputs.logits)
  assert_same(got.pooled, outputs.pooled)


def test_a_row_without_any_text_is_finite(run, text):
  got = run(mask=np.zeros_like(text[1]), tokens=text[0])
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(got))


@pytest.fixture(scope="module")
def gradients(network, params, text):
  """d sum(w . logits) by parameters and by embeddings.

  The row [0, 0] has no text and no weight, as one that only fills the shape.
  """
  tokens, mask = text
  mask = mask.copy()
  mask[0, 0] = False
  weights = np.random.default_rng(2).normal(size=(2, 3, 3)).astype(np.float32)
  weights[0, 0] = 0

  @jax.jit
  @jax.grad
  def pull(both):
    params, offset = both
    inputs = network.embed(params, jnp.asarray(tokens), jnp.asarray(mask))
    moved = inputs.embeddings + offset
    outputs = network.forward(
      params, dataclasses.replace(inputs, embeddings=moved)
    )
    return jnp.sum(weights * outputs.logits)

  offset = jnp.zeros((*tokens.shape, 8))
  return *pull((params, offset)), mask


def test_gradients_reach_every_parameter(gradients):
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradients[0]):
    assert np.all(np.isfinite(leaf)), path
    assert np.max(np.abs(leaf)) > 1e-4, path


def test_gradients_reach_the_words_of_the_text_and_no_others(gradients, text):
  grads, _, mask = gradients
  reached = np.any(grads["token_embedder"]["embedding"] != 0, axis=-1)
  assert set(np.flatnonzero(reached)) == set(text[0][mask].tolist())


def test_padding_has_no_gradient(gradients):
  _, offset, mask = gradients
  assert np.all(np.asarray(offset)[~mask] == 0)
  assert np.all(np.any(np.asarray(offset)[mask] != 0, axis=-1))


def test_dropout_is_a_function_of_the_key(run, text, outputs, dropped):
  inputs = {"mask": text[1], "tokens": text[0]}
  again = run(**inputs, key=KEY)
  jax.tree.map(np.testing.assert_array_equal, again, dropped)
  other = run(**inputs, key=jax.random.key(6, impl="rbg"))
  for a, b in ((dropped, other), (dropped, outputs)):
    assert np.all(np.abs(a.logits - b.logits) > 1e-6)


def test_without_a_key_nothing_is_dropped(run, text, outputs):
  again = run(mask=text[1], tokens=text[0])
  jax.tree.map(np.testing.assert_array_equal, again, outputs)


def test_dropout_is_the_same_wherever_the_model_is_entered(
  run, params, text, dropped
):
  key = KEY
  got = run(mask=text[1], embeddings=embedded(params, text), key=key)
  assert_same(got, dropped)
  got = run(mask=text[1], hidden=dropped.hidden[1], layer=1, key=key)
  assert_same(got.logits, dropped.logits)


def test_dropout_is_wherever_t5_has_it(network, config, params, text):
  places = collections.Counter()

  def watch(call, args, kwargs, context):
    if isinstance(context.module, nn.Dropout) and not kwargs["deterministic"]:
      assert context.module.rate == config.dropout_rate
      places["/".join(context.module.path[:-1])] += 1
    return call(*args, **kwargs)

  tokens, mask = map(jnp.asarray, text)
  with nn.intercept_methods(watch):
    jax.eval_shape(
      lambda: network.forward(params, Inputs(mask, tokens=tokens), key=KEY)
    )
  stacks = {"": 1, "encoder": 1, "decoder": 1}  # words, and after each norm
  layers = {
    "encoder/layers_0": "attention",
    "encoder/layers_1": "attention",
    "decoder/layers_0": "encoder_decoder_attention",
  }
  residuals = dict.fromkeys(layers, 2)
  inside = {f"{layer}/{name}": 1 for layer, name in layers.items()}
  inside |= {f"{layer}/mlp": 1 for layer in layers}
  assert places == stacks | residuals | inside


def test_dropout_keeps_the_mean_and_is_shared_by_the_positions_of_a_row(
  config, outputs, dropped
):
  factor = np.asarray(dropped.hidden[0] / outputs.hidden[0])  # [n, M, L, D]
  kept = 1 / (1 - config.dropout_rate)
  assert np.all(np.isclose(factor, 0) | np.isclose(factor, kept, rtol=1e-5))
  np.testing.assert_allclose(
    factor, np.broadcast_to(factor[..., :1, :], factor.shape), rtol=1e-5
  )
  assert 0.1 < np.mean(factor == 0) < 0.5  # 48 draws at rate 0.3
  assert not np.array_equal(factor[0, 0, 0], factor[0, 1, 0])  # rows differ
