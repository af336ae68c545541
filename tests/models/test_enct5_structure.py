"""Shapes, names, axes, sizes and types of EncT5."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.errors import UsageError
from augdistill.models.enct5 import enct5
from augdistill.models.sizes import SIZES, enct5_config
from augdistill.types import Inputs

KERNELS = {
  "query": ("embed", "joined_kv"),
  "key": ("embed", "joined_kv"),
  "value": ("embed", "joined_kv"),
  "out": ("joined_kv", "embed"),
}
MLP = {
  "mlp/wi_0/kernel": ("embed", "mlp"),
  "mlp/wi_1/kernel": ("embed", "mlp"),
  "mlp/wo/kernel": ("mlp", "embed"),
}
# T5X's own names; latent and head are EncT5's.
AXES = {
  "token_embedder/embedding": ("vocab", "embed"),
  "encoder/relpos_bias/rel_embedding": ("heads", "relpos_buckets"),
  "encoder/encoder_norm/scale": ("embed",),
  "decoder/latent": ("length", "embed"),
  "decoder/layers_0/pre_cross_attention_layer_norm/scale": ("embed",),
  "decoder/layers_0/pre_mlp_layer_norm/scale": ("embed",),
  "decoder/decoder_norm/scale": ("embed",),
  "head/kernel": ("embed", "classes"),
  "head/bias": ("classes",),
}
AXES |= {f"decoder/layers_0/{name}": axes for name, axes in MLP.items()}
AXES |= {
  f"decoder/layers_0/encoder_decoder_attention/{name}/kernel": axes
  for name, axes in KERNELS.items()
}
for layer in ("encoder/layers_0", "encoder/layers_1"):
  AXES |= {f"{layer}/{name}": axes for name, axes in MLP.items()}
  AXES |= {
    f"{layer}/attention/{name}/kernel": axes for name, axes in KERNELS.items()
  }
  AXES |= {
    f"{layer}/pre_attention_layer_norm/scale": ("embed",),
    f"{layer}/pre_mlp_layer_norm/scale": ("embed",),
  }
# The config of tests/models/conftest.py.
WIDTHS = {
  "vocab": 23,
  "embed": 8,
  "mlp": 12,
  "joined_kv": 6,
  "heads": 2,
  "relpos_buckets": 32,
  "length": 1,
  "classes": 3,
}


def named(tree, is_leaf=None):
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
  return {"/".join(p.key for p in path): leaf for path, leaf in leaves}


def shapes_of(network):
  return jax.eval_shape(network.init, jax.random.key(0))


def test_parameters_have_t5x_names_and_logical_axes(network):
  axes = network.logical_axes()
  assert named(axes, is_leaf=lambda x: isinstance(x, tuple)) == AXES


def test_every_parameter_is_float32_with_the_shape_that_its_axes_say(network):
  shapes = named(shapes_of(network))
  assert {n: s.shape for n, s in shapes.items()} == {
    name: tuple(WIDTHS[a] for a in axes) for name, axes in AXES.items()
  }
  assert {s.dtype for s in shapes.values()} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
  ("size", "count"), [("small", 37_693_632), ("large", 354_079_232)]
)
def test_the_papers_sizes_have_the_papers_numbers_of_parameters(size, count):
  config = enct5_config(size, vocab_size=32_128, num_outputs=7)
  total = sum(s.size for s in jax.tree.leaves(shapes_of(enct5(config))))
  latent, head = config.emb_dim, 7 * config.emb_dim + 7
  assert total == count + latent + head


@pytest.mark.parametrize(
  ("size", "shape"),
  [
    ("small", (512, 1024, 8, 6, 64)),
    ("base", (768, 2048, 12, 12, 64)),
    ("large", (1024, 2816, 24, 16, 64)),
    ("xl", (2048, 5120, 24, 32, 64)),
  ],
)
def test_a_size_has_the_shape_of_t5_1_1(size, shape):
  config = enct5_config(size, 32_128, 2)
  got = [
    getattr(config, name)
    for name in ("emb_dim", "mlp_dim", "num_layers", "num_heads", "head_dim")
  ]
  assert tuple(got) == shape


def test_a_micro_model_of_a_small_vocabulary_stays_below_300000_parameters():
  config = enct5_config("micro", vocab_size=2_208, num_outputs=77)
  total = sum(s.size for s in jax.tree.leaves(shapes_of(enct5(config))))
  assert total < 300_000


def test_a_size_that_is_not_there_is_an_error_that_names_the_nearest():
  with pytest.raises(UsageError, match=r"'smal'.*micro.*Did you mean 'small'"):
    enct5_config("smal", 10, 2)


def test_options_of_a_size_reach_its_configuration():
  config = enct5_config("micro", 10, 2, dropout_rate=0.25, dtype="bfloat16")
  assert (config.dropout_rate, config.dtype) == (0.25, "bfloat16")
  assert set(SIZES) >= {"micro", "mini", "small", "base", "large", "xl"}


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"num_layers": 0}, "num_layers must be a positive int, got 0"),
    ({"emb_dim": -8}, "emb_dim must be a positive int, got -8"),
    ({"dropout_rate": 1.0}, r"dropout_rate must be in \[0, 1\), got 1.0"),
    ({"relative_buckets": 3}, "relative_buckets must be at least 4"),
    ({"relative_max_distance": 8}, "more than a quarter of them, got 32 and 8"),
    ({"dropout_rate": -0.1}, r"dropout_rate must be in \[0, 1\), got -0.1"),
    ({"dropout_rate": float("nan")}, "dropout_rate must be in"),
    ({"dtype": "float16"}, "dtype must be float32 or bfloat16, got 'float16'"),
    ({"feed_forward": "gelu"}, "gated-silu or relu, got 'gelu'"),
    ({"relative_bias": "none"}, "shared or per_layer, got 'none'"),
  ],
)
def test_a_shape_that_makes_no_model_is_an_error(config, wrong, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(config, **wrong)


def test_initial_parameters_have_t5s_scales(config):
  # Wide enough for the standard deviations to be within 5 %.
  wide = dataclasses.replace(
    config, vocab_size=64, emb_dim=64, mlp_dim=256, head_dim=64, num_layers=1
  )
  init = jax.jit(enct5(wide).init)
  drawn = init(jax.random.key(0))
  params = {n: np.asarray(p) for n, p in named(drawn).items()}
  expected = {
    "token_embedder/embedding": 1.0,
    "encoder/relpos_bias/rel_embedding": (2 / (2 + 32)) ** 0.5,
    "encoder/layers_0/attention/query/kernel": (64 * 64) ** -0.5,
    "encoder/layers_0/attention/key/kernel": 64**-0.5,
    "encoder/layers_0/attention/value/kernel": 64**-0.5,
    "encoder/layers_0/attention/out/kernel": 128**-0.5,
    "encoder/layers_0/mlp/wi_0/kernel": 64**-0.5,
    "encoder/layers_0/mlp/wo/kernel": 256**-0.5,
  }
  for name, deviation in expected.items():
    tolerance = 0.2 if "relpos" in name else 0.05
    np.testing.assert_allclose(
      params[name].std(), deviation, rtol=tolerance, err_msg=name
    )
  for name, value in params.items():
    if name.endswith("scale"):
      np.testing.assert_array_equal(value, 1.0)
  np.testing.assert_array_equal(params["head/bias"], 0.0)
  jax.tree.map(np.testing.assert_array_equal, init(jax.random.key(0)), drawn)
  other = named(init(jax.random.key(1)))
  assert not np.allclose(other["head/kernel"], params["head/kernel"])


def test_bfloat16_computes_in_bfloat16_and_keeps_the_rest_in_float32(
  config, run, params, text
):
  tokens, mask = text
  inputs = Inputs(jnp.asarray(mask), tokens=jnp.asarray(tokens))
  half = enct5(dataclasses.replace(config, dtype="bfloat16"))
  assert {s.dtype for s in jax.tree.leaves(shapes_of(half))} == {
    jnp.dtype("float32")
  }

  def loss(params):
    outputs = half.forward(params, inputs)
    return jnp.sum(outputs.logits), outputs

  pull = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (_, outputs), grads = pull(params)
  assert outputs.logits.dtype == jnp.float32
  assert {x.dtype for x in (outputs.pooled, *outputs.hidden)} == {
    jnp.dtype("bfloat16")
  }
  assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
  exact = run(mask, tokens=tokens).logits
  np.testing.assert_allclose(outputs.logits, exact, atol=0.1)
  assert np.max(np.abs(outputs.logits - exact)) > 1e-5  # it did round
