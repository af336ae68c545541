"""The parts of T5 that have a definition of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.models import t5_layers
from tests.reference import t5_encoder as reference


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 20)])
def test_a_relative_position_falls_into_the_bucket_of_the_reference(
  num_buckets, max_distance
):
  positions = np.arange(-300, 301, dtype=np.int32)[None]
  expected = reference.relative_position_bucket(
    positions, num_buckets=num_buckets, max_distance=max_distance
  )
  bucket = t5_layers.relative_position_bucket
  for function in (bucket, jax.jit(bucket, static_argnums=(1, 2))):
    got = function(jnp.asarray(positions), num_buckets, max_distance)
    np.testing.assert_array_equal(got, expected)


def test_the_norm_is_that_of_the_reference_at_every_size_of_its_input():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(5, 8)) * np.array([[1e-4], [1e-2], [1], [1e2], [1e6]])
  x, scale = x.astype(np.float32), rng.uniform(0.5, 1.5, 8).astype(np.float32)
  got = t5_layers.RMSNorm().apply({"params": {"scale": scale}}, jnp.asarray(x))
  np.testing.assert_allclose(got, reference.rms_norm(x, scale), rtol=1e-5)


def test_the_norm_of_bfloat16_is_computed_in_float32():
  # In bfloat16 the mean of 4096 squares would stop growing at 256.
  x = jnp.full((1, 4096), 3.0, jnp.bfloat16)
  norm = t5_layers.RMSNorm(jnp.dtype("bfloat16"))
  got = norm.apply({"params": {"scale": jnp.ones(4096)}}, x)
  assert got.dtype == jnp.bfloat16
  np.testing.assert_array_equal(got.astype(jnp.float32), 1.0)


def test_the_gelu_is_the_tanh_form():
  x = np.linspace(-3, 5, 41, dtype=np.float32)[None]
  same = {"kernel": np.eye(41, dtype=np.float32)}
  one = {"kernel": np.full((41, 41), 1 / x.sum(), np.float32)}  # x wi_1 = 1
  got = t5_layers.Mlp(41).apply(
    {"params": {"wi_0": same, "wi_1": one, "wo": same}},
    jnp.asarray(x),
    deterministic=True,
  )
  np.testing.assert_allclose(got, reference.gelu(x), rtol=1e-5, atol=1e-6)


def test_padding_is_masked_and_text_is_not():
  bias = t5_layers.padding_bias(jnp.array([[True, False]]))
  assert bias.shape == (1, 1, 1, 2)
  np.testing.assert_array_equal(bias[0, 0, 0], np.float32([0.0, -1e10]))
