"""The latent query's attention is T5's attention, computed in another order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from augdistill.models.latent_attention import LatentAttention
from augdistill.models.t5_layers import Attention, padding_bias
from augdistill.training.flops import count_flops

ROWS, LENGTH, WIDTH, HEADS, HEAD_DIM = 3, 7, 10, 2, 5
KEY = jax.random.key(2)


def both(dropout_rate=0.0, dtype="float32"):
  shape = HEADS, HEAD_DIM, dropout_rate, jnp.dtype(dtype)
  return LatentAttention(*shape), Attention(*shape)


def draw(queries, rows=ROWS, length=LENGTH, width=WIDTH):
  """Queries, keys and the bias of a mask, with two copies of every row."""
  draw = np.random.default_rng(0)
  mask = np.arange(length) < draw.integers(1, length, (2, rows, 1))
  return (
    jnp.float32(draw.normal(size=(2, rows, queries, width))),
    jnp.float32(draw.normal(size=(2, rows, length, width))),
    padding_bias(jnp.asarray(mask)),
  )


def arguments(dropout_rate):
  if not dropout_rate:
    return {"deterministic": True}
  return {"deterministic": False, "rngs": {"dropout": KEY}}


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("dropout_rate", [0.0, 0.5])
def test_it_is_t5s_attention_with_the_same_parameters(queries, dropout_rate):
  latent, t5 = both(dropout_rate)
  read = draw(queries)
  variables = latent.init(KEY, *read, deterministic=True)
  expected = t5.init(KEY, *read, deterministic=True)
  jax.tree.map(np.testing.assert_array_equal, variables, expected)

  def value(module, params, queries, keys):
    what = arguments(dropout_rate)
    out = module.apply({"params": params}, queries, keys, read[2], **what)
    out = out if module is latent else out[0]
    return jnp.sum(jnp.sin(out)), out

  def all_of(module):
    run = jax.value_and_grad(
      lambda *given: value(module, *given), argnums=(0, 1, 2), has_aux=True
    )
    return jax.jit(run)(variables["params"], *read[:2])

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5),
    all_of(latent),
    all_of(t5),
  )


def test_it_stays_in_bfloat16_where_t5s_does():
  latent, t5 = both(dtype="bfloat16")
  read = draw(1)
  variables = nn.meta.unbox(t5.init(KEY, *read, deterministic=True))
  read = (*(x.astype(jnp.bfloat16) for x in read[:2]), read[2])
  got = latent.apply(variables, *read, deterministic=True)
  expected = t5.apply(variables, *read, deterministic=True)[0]
  assert got.dtype == expected.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    *(np.float32(x) for x in (got, expected)), rtol=0.05, atol=0.05
  )


def test_its_probabilities_are_float32s_in_bfloat16_too():
  latent, _ = both(dtype="bfloat16")
  read = draw(1)
  read = (*(x.astype(jnp.bfloat16) for x in read[:2]), read[2])
  variables = nn.meta.unbox(latent.init(KEY, *read, deterministic=True))
  jaxpr = jax.make_jaxpr(
    lambda *read: latent.apply(variables, *read, deterministic=True)
  )(*read)
  powers = [e for e in jaxpr.eqns if e.primitive.name == "exp"]
  assert [e.outvars[0].aval.dtype for e in powers] == [jnp.float32]


def test_no_position_of_the_text_meets_a_matrix():
  latent, t5 = both()
  costs = {}
  for name, module in (("latent", latent), ("t5", t5)):
    for length in (64, 128):
      read = draw(1, length=length)
      variables = module.init(KEY, *read, deterministic=True)
      costs[name, length] = count_flops(
        lambda v, *r, m=module: m.apply(v, *r, deterministic=True),
        *(variables, *read),
      ).total()
  rows = 2 * ROWS
  for name, per_position in (
    ("latent", 2 * HEADS * WIDTH),
    ("t5", 2 * HEADS * HEAD_DIM * (WIDTH + 1)),
  ):
    more = costs[name, 128] - costs[name, 64]
    assert more == 2 * rows * 64 * per_position
