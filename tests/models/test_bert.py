"""BERT's shape, entries, dropout and places of its parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.models.bert import bert, segments_of
from augdistill.models.bert_config import BertConfig
from augdistill.models.projected import with_projections
from augdistill.models.selection import select_layers
from augdistill.types import Inputs

CONFIG = BertConfig(
  vocab_size=16,
  num_outputs=3,
  emb_dim=8,
  mlp_dim=12,
  num_layers=3,
  num_heads=2,
  num_positions=10,
  separator_id=3,
)


@pytest.fixture(scope="module")
def network():
  return bert(CONFIG)


@pytest.fixture(scope="module")
def params(network):
  return network.init(jax.random.key(0))


def inputs(length=6):
  tokens = jax.random.randint(jax.random.key(1), (1, 4, length), 4, 16)
  mask = np.arange(length) < np.array([[[6], [4], [2], [1]]])
  return Inputs(mask=jnp.asarray(mask), tokens=jnp.where(mask, tokens, 0))


def close(a, b):
  np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5)


def test_padding_changes_nothing_that_is_real(network, params):
  short, long = inputs(6), inputs(9)
  tokens = jnp.pad(short.tokens, ((0, 0), (0, 0), (0, 3)), constant_values=7)
  long = dataclasses.replace(long, tokens=tokens)
  a, b = network.forward(params, short), network.forward(params, long)
  close(a.logits, b.logits)
  for x, y in zip(a.hidden, b.hidden, strict=True):
    close(x[short.mask], y[:, :, :6][short.mask])


def test_it_is_entered_at_any_layer_and_at_the_head(network, params):
  whole = network.forward(params, inputs())
  assert len(whole.hidden) == 4
  for layer, hidden in enumerate(whole.hidden):
    entered = network.forward(
      params, Inputs(mask=inputs().mask, hidden=hidden, layer=layer)
    )
    close(entered.logits, whole.logits)
    assert len(entered.attention) == 3 - layer
  pooled = Inputs(mask=inputs().mask, pooled=whole.pooled)
  close(network.forward(params, pooled).logits, whole.logits)


def test_an_offset_of_the_words_is_one_of_the_sum_of_embeddings(
  network, params
):
  # So its gradient is the sum's: what AD² climbs.
  words = network.embed(params, inputs().tokens, inputs().mask).embeddings
  offset = jax.random.normal(jax.random.key(2), words.shape)
  moved = Inputs(mask=inputs().mask, embeddings=words + offset)
  positions = params["position_embedder"]["embedding"]
  other = {**params, "position_embedder": {"embedding": positions * 0.0}}
  as_sum = Inputs(
    mask=inputs().mask, embeddings=words + positions[:6][None, None] + offset
  )
  close(
    network.forward(params, moved).logits,
    network.forward(other, as_sum).logits,
  )


def test_dropout_is_random_by_key_and_off_without_one(network, params):
  def said(key=None):
    return network.forward(params, inputs(), key=key).logits

  one, two = jax.random.key(1), jax.random.key(2)
  assert jnp.array_equal(said(), said())
  assert jnp.array_equal(said(one), said(one))
  assert not jnp.allclose(said(one), said(two), atol=1e-6)
  assert not jnp.allclose(said(one), said(), atol=1e-6)


def test_tokens_after_the_first_separator_are_of_the_second_text():
  tokens = jnp.array([[5, 6, 3, 7, 8, 3, 0], [5, 6, 7, 3, 0, 0, 0]])
  assert segments_of(tokens, 3).tolist() == [
    [0, 0, 0, 1, 1, 1, 1],
    [0, 0, 0, 0, 1, 1, 1],
  ]


def test_every_parameter_has_its_logical_axes(network, params):
  axes = network.logical_axes()
  flat = jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple))
  shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
  assert [len(names) for names in flat] == [len(shape) for shape in shapes]
  assert axes["token_embedder"]["embedding"] == ("vocab", "embed")
  layer = axes["encoder"]["layers_0"]
  assert layer["wi"] == {"kernel": ("embed", "mlp"), "bias": ("mlp",)}
  assert layer["attention"]["out"]["kernel"] == ("joined_kv", "embed")


def test_activations_may_be_bfloat16_and_logits_are_float32(params):
  half = bert(dataclasses.replace(CONFIG, dtype="bfloat16"))
  said = half.forward(params, inputs())
  assert said.logits.dtype == jnp.float32
  assert {x.dtype for x in said.hidden} == {jnp.dtype("bfloat16")}
  whole = bert(CONFIG).forward(params, inputs())
  np.testing.assert_allclose(said.logits, whole.logits, atol=3e-2)


def test_a_student_is_some_of_its_layers(network, params):
  smaller = bert(dataclasses.replace(CONFIG, num_layers=2))
  mine = smaller.init(jax.random.key(3))
  made = select_layers(params, mine, (0, 2))
  for i, layer in enumerate((0, 2)):
    assert jnp.array_equal(
      made["encoder"][f"layers_{i}"]["wi"]["kernel"],
      params["encoder"][f"layers_{layer}"]["wi"]["kernel"],
    )


def test_it_learns_to_speak_of_its_layers_in_another_width(network):
  wider = with_projections(network, 5)
  said = wider.forward(wider.init(jax.random.key(0)), inputs())
  assert [x.shape[-1] for x in said.projected] == [5] * 4


def test_a_text_that_is_too_long_is_refused(network, params):
  with pytest.raises(ValueError, match="at most 10 tokens, got 11"):
    network.forward(params, inputs(11))


@pytest.mark.parametrize(
  "change, said",
  [
    ({"num_heads": 3}, "num_heads must divide emb_dim, got 3 and 8"),
    ({"num_layers": 0}, "num_layers must be a positive int, got 0"),
    ({"num_segments": -1}, "num_segments must be an int that is not negative"),
    ({"first_position": 999}, r"one of the \d+ positions, got 999"),
    ({"epsilon": float("nan")}, r"epsilon must be in \[0, 1\), got nan"),
    ({"epsilon": 1.0}, r"epsilon must be in \[0, 1\), got 1.0"),
    ({"dropout_rate": 1.0}, r"dropout_rate must be in \[0, 1\), got 1.0"),
    ({"activation": "swish"}, "activation must be one of gelu, .*'swish'"),
    ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, got 'int8'"),
  ],
)
def test_a_shape_that_cannot_be_is_refused(change, said):
  with pytest.raises(ValueError, match=said):
    dataclasses.replace(CONFIG, **change)
