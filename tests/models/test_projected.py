"""A student with projections is the student, and a matrix per hidden state."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.models.projected import with_projections, without_projections
from augdistill.training.mesh import make_mesh, param_shardings
from augdistill.types import Inputs
from tests import toy

WIDTH = 12  # the teacher's; the student's is 8
LAYERS = ("layer_0", "layer_1", "layer_2")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def projected(network):
  return with_projections(network, WIDTH)


@pytest.fixture(scope="module")
def matrices():
  rng = np.random.default_rng(7)
  return {
    name: rng.normal(size=(8, WIDTH)).astype(np.float32) for name in LAYERS
  }


@pytest.fixture(scope="module")
def whole(params, matrices):
  """The student's parameters and the matrices."""
  return {**params, "projections": matrices}


@pytest.fixture(scope="module")
def run_projected(projected, whole):
  """(mask, key=None, layer=0, tokens= | embeddings= | ...) -> outputs."""
  forward = jax.jit(projected.forward)

  def run_projected(mask, key=None, layer=0, **entry):
    entry = {name: jnp.asarray(x) for name, x in entry.items()}
    inputs = Inputs(mask=jnp.asarray(mask), layer=layer, **entry)
    return forward(whole, inputs, key=key)

  return run_projected


@pytest.fixture(scope="module")
def outputs(run, text):
  tokens, mask = text
  return run(mask=mask, tokens=tokens)


def products(hidden, matrices, mask, first=0):
  names = LAYERS[first:]
  assert len(hidden) == len(names)
  return tuple(
    np.where(mask[..., None], np.einsum("nmld,dp->nmlp", h, matrices[name]), 0)
    for h, name in zip(hidden, names, strict=True)
  )


def assert_same(got, expected, **tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance or CLOSE),
    got,
    expected,
  )


def test_parameters_are_the_students_from_the_same_key_and_the_matrices(
  network, projected
):
  key = jax.random.key(3, impl="rbg")  # compiles faster than threefry
  own, both = jax.jit(network.init)(key), jax.jit(projected.init)(key)
  jax.tree.map(np.testing.assert_array_equal, without_projections(both), own)
  assert set(both) == {*own, "projections"}
  assert set(both["projections"]) == set(LAYERS)
  for matrix in both["projections"].values():
    assert matrix.shape == (8, WIDTH) and matrix.dtype == jnp.float32
  first, second, _ = both["projections"].values()
  assert not np.allclose(first, second)


def test_a_projection_keeps_the_size_of_a_state_at_first(network):
  wide = with_projections(network, 512)
  key = jax.random.key(0, impl="rbg")
  drawn = jax.jit(wide.init)(key)["projections"]
  for matrix in drawn.values():
    np.testing.assert_allclose(np.std(matrix), 8**-0.5, rtol=0.05)


def test_every_hidden_state_is_projected_by_its_own_matrix(
  run_projected, matrices, text, outputs
):
  got = run_projected(mask=text[1], tokens=text[0])
  assert_same(got.projected, products(outputs.hidden, matrices, text[1]))
  assert_same(got._replace(projected=()), outputs)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_projections_stay_with_their_layer_wherever_a_view_enters(
  run_projected, matrices, text, outputs, layer
):
  hidden = outputs.hidden[layer]
  got = run_projected(mask=text[1], hidden=hidden, layer=layer)
  expected = products(outputs.hidden[layer:], matrices, text[1], layer)
  assert_same(got.projected, expected)
  assert len(got.projected) == len(got.hidden)


def test_a_view_that_enters_at_the_head_has_nothing_to_project(
  run_projected, text, outputs
):
  got = run_projected(mask=text[1], pooled=outputs.pooled)
  assert got.projected == ()
  np.testing.assert_allclose(got.logits, outputs.logits, rtol=1e-6)


def test_embeddings_and_dropout_pass_through(run_projected, run, params, text):
  key = jax.random.key(5, impl="rbg")
  words = params["token_embedder"]["embedding"][text[0]]
  got = run_projected(mask=text[1], embeddings=words, key=key)
  expected = run(mask=text[1], embeddings=words, key=key)
  assert_same(got._replace(projected=()), expected)


def test_all_else_of_the_network_is_as_it_was(
  network, projected, params, whole, text
):
  tokens, mask = map(jnp.asarray, text)
  for got, expected in (
    (
      projected.embed(whole, tokens, mask).embeddings,
      network.embed(params, tokens, mask).embeddings,
    ),
    (projected.table(whole), network.table(params)),
    (projected.class_vectors(whole), network.class_vectors(params)),
  ):
    np.testing.assert_array_equal(got, expected)
  assert projected.num_outputs == network.num_outputs


def test_without_projections_the_parameters_are_those_that_are_served(
  params, whole
):
  served = without_projections(whole)
  assert jax.tree.structure(served) == jax.tree.structure(params)
  jax.tree.map(np.testing.assert_array_equal, served, params)
  assert set(without_projections(params)) == set(params)
  assert set(whole) > set(served)  # Nothing was taken from the argument.


@pytest.mark.parametrize("junk", [np.nan, np.inf])
def test_what_padding_holds_reaches_neither_projections_nor_gradients(
  projected, whole, text, junk
):
  _, mask = text
  hidden = np.random.default_rng(0).normal(size=(*mask.shape, 8))

  @jax.jit
  @jax.grad
  def pull(matrices, hidden):
    inputs = Inputs(mask=jnp.asarray(mask), hidden=hidden, layer=2)
    made = projected.forward({**whole, "projections": matrices}, inputs)
    return jnp.sum(jnp.square(made.projected[0]))

  got, expected = (
    pull(
      whole["projections"],
      jnp.asarray(np.where(mask[..., None], hidden, x), jnp.float32),
    )
    for x in (junk, 0.0)
  )
  jax.tree.map(np.testing.assert_array_equal, got, expected)
  assert np.any(got["layer_2"] != 0)
  assert np.all(got["layer_1"] == 0)


def test_parameters_have_logical_axes_and_the_matrices_are_on_every_device(
  network, projected
):
  axes = projected.logical_axes()
  assert axes["projections"] == dict.fromkeys(LAYERS, ("embed", "kv"))
  assert without_projections(axes) == network.logical_axes()
  shardings = param_shardings(projected, make_mesh("x4"))
  for sharding in shardings["projections"].values():
    assert sharding.is_fully_replicated


def test_a_network_that_shows_no_layers_cannot_be_projected():
  with pytest.raises(ValueError, match="network that shows its hidden states"):
    with_projections(toy.STUDENT, 3)


def test_a_width_of_nothing_is_an_error(network):
  with pytest.raises(ValueError, match="teacher_width must be positive, got 0"):
    with_projections(network, 0)


def test_a_network_without_class_vectors_gets_none(network):
  bare = dataclasses.replace(network, class_vectors=None)
  assert with_projections(bare, WIDTH).class_vectors is None
