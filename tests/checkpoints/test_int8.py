"""Matrices in eight bits: what is lost is at most half of a scale."""

import numpy as np
import pytest

from augdistill.checkpoints.int8 import dequantise, quantise


@pytest.fixture
def weights():
  rng = np.random.default_rng(0)
  size = 10.0 ** np.arange(-3, 3)  # Channels of very different sizes.
  return {
    "encoder/layers_0/mlp/wo/kernel": rng.normal(size=(40, 6)) * size,
    "token_embedder/embedding": rng.normal(size=(6, 40)) * size[:, None],
    "encoder/relpos_bias/rel_embedding": rng.normal(size=(4, 32)),
    "decoder/latent": rng.normal(size=(1, 40)),
    "head/bias": rng.normal(size=6),
    "encoder/encoder_norm/scale": rng.normal(size=40),
  }


@pytest.fixture
def stored(weights):
  return quantise({n: w.astype(np.float32) for n, w in weights.items()})


MATRICES = {
  "encoder/layers_0/mlp/wo/kernel": (1, 6),
  "token_embedder/embedding": (6, 1),
}


def test_kernels_and_embeddings_alone_are_in_int8(weights, stored):
  assert set(stored) == {*weights, *(f"{name}.scale" for name in MATRICES)}
  for name in weights:
    wanted = np.int8 if name in MATRICES else np.float32
    assert stored[name].dtype == wanted
  for name, shape in MATRICES.items():
    assert stored[f"{name}.scale"].shape == shape
    assert stored[f"{name}.scale"].dtype == np.float32


def test_no_weight_moves_by_more_than_half_of_its_channels_scale(
  weights, stored
):
  back = dequantise(stored)
  assert set(back) == set(weights)
  for name, array in weights.items():
    assert back[name].dtype == np.float32
    moved = np.abs(back[name] - array)
    most = stored.get(f"{name}.scale", 0) / 2 + 1e-6 * np.abs(array)
    assert (moved <= most).all()


def test_the_largest_weight_of_each_channel_keeps_its_value(weights, stored):
  for name, axis in (
    ("encoder/layers_0/mlp/wo/kernel", 0),
    ("token_embedder/embedding", 1),
  ):
    assert (np.abs(stored[name]).max(axis=axis) == 127).all()
    np.testing.assert_allclose(
      np.abs(dequantise(stored)[name]).max(axis=axis),
      np.abs(weights[name]).max(axis=axis),
      rtol=1e-6,
    )


def test_a_channel_of_zeros_stays_one():
  with np.errstate(all="raise"):
    back = dequantise(quantise({"kernel": np.zeros((3, 2), np.float32)}))
  np.testing.assert_array_equal(back["kernel"], np.zeros((3, 2)))


def test_weights_in_float32_stay_as_they_are(weights):
  assert dequantise(weights).keys() == weights.keys()
  assert all(dequantise(weights)[n] is w for n, w in weights.items())
