"""Layers that the backward pass runs again."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.models.bert_config import BertConfig
from augdistill.models.enct5 import EncT5Config
from augdistill.models.networks import network
from augdistill.types import Inputs

CONFIGS = {
  "enct5": EncT5Config(16, 3, 8, 16, 3, 2, 4),
  "bert": BertConfig(16, 3, 8, 16, 3, 2, num_positions=8),
}
TOKENS = np.arange(16, dtype=np.int32).reshape(1, 2, 8)
MASK = np.array([[[True] * 8, [True] * 5 + [False] * 3]])


def pulled_back(config, dropout):
  """Gradients of a loss, and the bytes that were kept for them."""
  model = network(config)
  params = jax.jit(model.init)(jax.random.key(0))
  inputs = Inputs(mask=jnp.asarray(MASK), tokens=jnp.asarray(TOKENS))
  key = jax.random.key(1) if dropout else None

  def loss(params):
    logits = model.forward(params, inputs, key=key).logits
    return jnp.sum(jnp.square(logits))

  def kept(params):
    return jax.vjp(loss, params)[1]

  leaves = jax.tree.leaves(jax.eval_shape(kept, params))
  size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
  return jax.jit(jax.grad(loss))(params), size


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("family", CONFIGS)
def test_remat_keeps_less_and_changes_nothing(family, dropout):
  config = CONFIGS[family]
  plain, much = pulled_back(config, dropout)
  again, little = pulled_back(dataclasses.replace(config, remat=True), dropout)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
    plain,
    again,
  )
  assert little < 0.7 * much
