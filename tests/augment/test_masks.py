"""Masks of one row: what share they take, of what, and in which shape."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from augdistill.augment.masks import (
  check_decay,
  grey_image,
  largest,
  low_pass,
  round_at_random,
  take_at_random,
  take_low_frequencies,
  take_spans,
)
from augdistill.training import mesh as meshes
from tests.reference import fmix as reference

SMOOTH = functools.partial(take_low_frequencies, decay=3.0)
TAKES = {"at_random": take_at_random, "spans": take_spans, "smooth": SMOOTH}
# Those that keep to the share within one position.
EXACT = {"spans": take_spans, "smooth": SMOOTH}
FREE = np.array([0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0], bool)


def keys(n, seed=0):
  return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(
    jnp.arange(n)
  )


@functools.cache
def drawn(take):
  return jax.jit(jax.vmap(take, in_axes=(0, None, None)))


def draw(take, free, share, n=300, seed=0):
  """n masks of one row."""
  return np.asarray(drawn(take)(keys(n, seed), free, jnp.float32(share)))


# The last one has more entries than are compared with each other.
SHAPES = [(9,), (4, 5), (2, 3, 4), (10, 13)]


@pytest.mark.parametrize("shape", SHAPES)
@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=40, deadline=None)
def test_the_largest_are_the_first_of_a_stable_sort(shape, data):
  rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
  values = rng.integers(-2, 3, shape).astype(np.float32)  # with many ties
  free = rng.random(shape) < rng.random()
  count = data.draw(st.integers(0, values.size + 2))
  taken = jax.jit(largest)(values, free, jnp.int32(count))
  order = sorted(np.flatnonzero(free), key=lambda i: (-values.flat[i], i))
  expected = np.zeros(values.size, bool)
  expected[order[:count]] = True
  np.testing.assert_array_equal(taken, expected.reshape(shape))


def test_a_number_is_rounded_to_its_neighbours_and_is_their_mean():
  numbers = jnp.float32([0.0, 0.3, 2.0, 2.5, 127.9, 128.0])
  many = jax.vmap(round_at_random, (0, None))
  draws = jax.random.uniform(jax.random.key(0), (4000, len(numbers)))
  drawn = np.asarray(jax.jit(many)(draws, numbers))
  assert drawn.dtype == np.int32
  np.testing.assert_array_equal(drawn.min(0), [0, 0, 2, 2, 127, 128])
  np.testing.assert_array_equal(drawn.max(0), [0, 1, 2, 3, 128, 128])
  np.testing.assert_allclose(drawn.mean(0), numbers, atol=0.03)


@pytest.mark.parametrize("name", TAKES)
def test_only_free_positions_are_taken_and_at_one_all_of_them(name):
  for seed in range(3):
    masks = draw(TAKES[name], FREE, 0.6, seed=seed)
    assert not masks[:, ~FREE].any()
    assert len(np.unique(masks, axis=0)) > 5
  np.testing.assert_array_equal(draw(TAKES[name], FREE, 1.0), [FREE] * 300)
  assert not draw(TAKES[name], FREE, 0.0).any()
  assert not draw(TAKES[name], np.zeros(16, bool), 0.7).any()


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.77])
def test_the_share_is_kept_to_one_of_the_rows_own_free_positions(name, share):
  for free in (FREE, FREE[:7], np.ones(16, bool)):
    counts = draw(EXACT[name], free, share).sum(-1)
    n = free.sum()
    assert (np.abs(counts - share * n) < 1).all()
    assert counts.mean() == pytest.approx(share * n, abs=0.12)


def test_a_random_parent_has_its_chance_at_every_position():
  masks = draw(take_at_random, FREE, 0.3, n=4000)
  np.testing.assert_allclose(masks[:, FREE].mean(0), 0.3, atol=0.04)
  together = np.corrcoef(masks[:, FREE].T)
  np.testing.assert_allclose(together, np.eye(FREE.sum()), atol=0.08)


def test_a_span_is_one_run_of_the_free_positions_and_begins_anywhere():
  masks = draw(take_spans, FREE, 0.4, n=3000)[:, FREE]  # 9 free, 3.6 taken
  edges = np.abs(np.diff(np.pad(masks, ((0, 0), (1, 1))).astype(int)))
  assert (edges.sum(-1) == 2).all()
  for length, starts in ((3, 7), (4, 6)):
    begun = masks[masks.sum(-1) == length].argmax(-1)
    share = np.bincount(begun, minlength=starts) / len(begun)
    np.testing.assert_allclose(share, 1 / starts, atol=0.04)


@pytest.mark.parametrize("name", ["at_random", "spans"])
def test_masks_do_not_depend_on_the_padding(name):
  masks = draw(TAKES[name], FREE, 0.5)
  longer = draw(TAKES[name], np.pad(FREE, (0, 21)), 0.5)
  np.testing.assert_array_equal(longer[:, :16], masks)


def test_how_many_a_smooth_mask_takes_does_not_depend_on_the_padding():
  masks = draw(SMOOTH, FREE, 0.45)
  longer = draw(SMOOTH, np.pad(FREE, (0, 21)), 0.45)
  np.testing.assert_array_equal(longer.sum(-1), masks.sum(-1))


@pytest.mark.parametrize("decay", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("shape", [(64,), (32, 24), (12, 16, 10)])
def test_amplitudes_fall_as_a_power_of_the_frequency(shape, decay):
  many = jax.jit(jax.vmap(lambda key: grey_image(key, shape, decay)))
  images = many(keys(100))
  assert images.dtype == jnp.float32
  spectrum = np.fft.fftn(
    np.asarray(images, np.float64), axes=range(1, 4)[: len(shape)]
  )
  amplitude = np.sqrt((np.abs(spectrum) ** 2).mean(0)).ravel()
  grid = np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")
  frequency = np.sqrt(sum(np.square(axis) for axis in grid)).ravel()
  some = frequency > 0
  slope, _ = np.polyfit(np.log(frequency[some]), np.log(amplitude[some]), 1)
  assert slope == pytest.approx(-decay, abs=0.05)


@pytest.mark.parametrize("shape", [(7,), (16,), (5, 8), (4, 3, 6)])
def test_the_image_and_its_largest_are_the_reference(shape):
  rng = np.random.default_rng(0)
  noise = rng.normal(size=shape) + 1j * rng.normal(size=shape)
  # The unit of our frequencies is the lowest one of the longest axis.
  expected = reference.grey_image(noise, 2.5) / max(shape) ** 2.5
  image = jax.jit(lambda z: low_pass(z, 2.5))(noise.astype(np.complex64))
  np.testing.assert_allclose(image, expected, rtol=1e-5, atol=1e-6)
  free = rng.random(shape) < 0.7
  for lam in (0.0, 0.3, 1.0):
    count = jnp.int32(reference.count_of(lam, free.sum()))
    top = jax.jit(largest)(image, free, count)
    expected = reference.top_mask(image, lam, free) & free
    np.testing.assert_array_equal(top, expected)


def test_a_span_is_the_reference_where_every_position_is_free():
  for mask in draw(take_spans, np.ones(9, bool), 0.4, n=30):
    expected = ~reference.span_mask(9, mask.argmax(), mask.sum())
    np.testing.assert_array_equal(mask, expected)


def test_no_decay_is_too_large():
  image = grey_image(jax.random.key(0), (64,), 500.0)
  assert np.isfinite(image).all()
  assert np.ptp(image) > 0


def edges(masks):
  return np.abs(np.diff(masks.astype(int))).sum(-1).mean()


def test_the_larger_the_decay_the_fewer_the_pieces():
  free = np.ones(64, bool)
  rough, middle, smooth = (
    edges(draw(functools.partial(take_low_frequencies, decay=d), free, 0.5))
    for d in (0.0, 1.5, 3.0)
  )
  assert rough == pytest.approx(32, abs=2)  # as white noise
  assert 2 < middle < rough / 2
  assert 1 <= smooth < 4


def test_a_smooth_mask_has_two_axes_where_the_row_has_two():
  free = np.zeros((24, 16), bool)
  free[:20] = True
  masks = draw(SMOOTH, free, 0.3, n=50)
  assert not masks[:, ~free].any()
  assert (np.abs(masks.sum((1, 2)) - 0.3 * free.sum()) < 1).all()
  # Neighbours along either axis are mostly of one text.
  for axis in (1, 2):
    assert np.abs(np.diff(masks[:, :20].astype(int), axis=axis)).mean() < 0.15


@pytest.mark.parametrize("name", TAKES)
def test_no_device_waits_for_the_rows_of_another(name):
  rows = NamedSharding(meshes.make_mesh(), PartitionSpec("data"))
  function = jax.jit(
    jax.vmap(TAKES[name]), in_shardings=rows, out_shardings=rows
  )
  arguments = (keys(16), np.ones((16, 24), bool), np.full(16, 0.3, np.float32))
  assert "all-gather" not in function.lower(*arguments).compile().as_text()


@pytest.mark.parametrize("decay", [-0.1, float("inf"), float("nan")])
def test_a_decay_is_a_number(decay):
  with pytest.raises(ValueError, match="decay must be a number >= 0, got"):
    check_decay(decay)
