"""A tiny EncT5 with random parameters, none of them at its initial value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.models.enct5 import EncT5Config, enct5
from augdistill.types import Inputs

# Every width differs, and heads x head_dim is not D.
TINY = EncT5Config(
  vocab_size=23,
  num_outputs=3,
  emb_dim=8,
  mlp_dim=12,
  num_layers=2,
  num_heads=2,
  head_dim=3,
  dropout_rate=0.3,
)


def random_params(network, seed=0):
  """Parameters at which no scale is 1, no bias 0 and no attention uniform."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name = path[-1].key
    if name == "scale":
      return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
    width = leaf.shape[0] ** -0.5 if name == "kernel" else 1.0
    return (width * rng.normal(size=leaf.shape)).astype(np.float32)

  shapes = jax.eval_shape(network.init, jax.random.key(0))
  return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="session")
def config():
  return TINY


@pytest.fixture(scope="session")
def network():
  return enct5(TINY)


@pytest.fixture(scope="session")
def params(network):
  return random_params(network)


@pytest.fixture(scope="session")
def run(network, params):
  """(mask, key=None, layer=0, tokens= | embeddings= | hidden=) -> outputs.

  At the random parameters; compiled once per kind of input.
  """
  forward = jax.jit(network.forward)

  def run(mask, key=None, layer=0, **entry):
    inputs = Inputs(
      mask=jnp.asarray(mask),
      layer=layer,
      **{name: jnp.asarray(x) for name, x in entry.items()},
    )
    return forward(params, inputs, key=key)

  return run


@pytest.fixture(scope="session")
def text():
  """tokens i32[2, 3, 20] and their mask; lengths 1 to 20."""
  rng = np.random.default_rng(1)
  lengths = np.array([[20, 13, 1], [5, 20, 9]])
  mask = np.arange(20) < lengths[..., None]  # [n, M, L]
  tokens = rng.integers(2, TINY.vocab_size - 2, mask.shape)
  return np.where(mask, tokens, 0).astype(np.int32), mask
