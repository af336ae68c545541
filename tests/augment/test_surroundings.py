"""Mixtures: what is found among few is what is found among all.

Reference: naive argmax of cosines in float64.
"""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.augment import surroundings
from augdistill.augment.stages import settle
from augdistill.augment.surroundings import (
  find_surroundings,
  nearest_of_mixtures,
)
from augdistill.types import Lexicon, Mixture

VOCAB, WIDTH, SHAPE = 60, 8, (2, 5, 6)
find = functools.partial(find_surroundings, chunk=7)


@functools.cache
def nearest(k):
  del k  # Of another k the surroundings have other shapes.
  return jax.jit(nearest_of_mixtures)


def draw_table(seed, clusters):
  """Rows of unequal norms: on their own, or in clusters of near neighbours."""
  rng = np.random.default_rng(seed)
  table = rng.normal(size=(VOCAB, WIDTH))
  if clusters:
    table = table[rng.integers(0, 12, VOCAB)]
    table = table + 0.05 * rng.normal(size=table.shape)
  table *= np.exp(0.5 * rng.normal(size=(VOCAB, 1)))
  table[rng.integers(VOCAB)] = 0.0
  return table.astype(np.float32)


def draw_mixture(seed):
  rng = np.random.default_rng(seed)
  share = np.where(rng.random(SHAPE) < 0.6, 0.5, rng.random(SHAPE))
  share[0, 0, :2] = 0.0, 1.0
  first, second = rng.integers(0, VOCAB, (2, *SHAPE))
  return Mixture(
    first.astype(np.int32), second.astype(np.int32), share.astype(np.float32)
  )


def naive_scores(mixture, table, producible, continues):
  table = table.astype(np.float64)
  share = mixture.share[..., None].astype(np.float64)
  query = share * table[mixture.first] + (1 - share) * table[mixture.second]
  norm = np.linalg.norm(table, axis=-1)
  unit = table / np.where(norm > 0, norm, 1)[:, None]
  may = np.broadcast_to(producible & (norm > 0), (*SHAPE, VOCAB))
  if continues is not None:
    may = may & (continues[mixture.first][..., None] == continues)
  may = may | (mixture.first[..., None] == np.arange(VOCAB))
  return np.where(may, query @ unit.T, -np.inf)


@pytest.mark.parametrize("k", [1, 3, VOCAB - 1])
@hypothesis.given(
  seed=st.integers(0, 2**32 - 1),
  clusters=st.booleans(),
  kinds=st.booleans(),
)
@hypothesis.settings(max_examples=20, deadline=None)
def test_every_mixture_gets_the_naive_argmax(k, seed, clusters, kinds):
  rng = np.random.default_rng(seed)
  table, mixture = draw_table(seed, clusters), draw_mixture(seed)
  producible = rng.random(VOCAB) < 0.8
  producible |= ~table.any(axis=-1)  # Such a row stays if it must not be put.
  continues = rng.random(VOCAB) < 0.3 if kinds else None
  lexicon = Lexicon(producible, np.zeros(VOCAB, bool), continues)
  around = find(table, producible, k=k)
  asked = rng.random(SHAPE) < 0.7
  got, stats = nearest(k)(
    mixture, asked, table, lexicon._replace(surroundings=around)
  )
  scores = naive_scores(mixture, table, producible, continues)
  best, second = np.moveaxis(np.sort(scores)[..., :-3:-1], -1, 0)
  clear = asked & (best - second > 1e-5)
  np.testing.assert_array_equal(
    np.asarray(got)[clear], scores.argmax(-1)[clear]
  )
  # Of those that float32 cannot tell apart, one is found.
  found = np.take_along_axis(scores, np.asarray(got)[..., None], -1)[..., 0]
  real = asked & np.isfinite(best)
  np.testing.assert_allclose(found[real], best[real], atol=1e-5)
  sums = {name: int(where.sum()) for name, where in stats.items()}
  assert sum(sums.values()) == asked.sum()
  assert not any((np.asarray(where) & ~asked).any() for where in stats.values())
  if k == 1:
    assert sums["by_neighbours"] == 0


def test_the_surroundings_are_the_largest_cosines():
  table = draw_table(0, clusters=False)
  producible = np.arange(VOCAB) % 3 > 0
  around = find(table, producible, k=4)
  norm = np.linalg.norm(table.astype(np.float64), axis=-1)
  unit = table / np.where(norm > 0, norm, 1)[:, None]
  cosine = np.where(producible & (norm > 0), unit @ unit.T, -np.inf)
  order = np.argsort(-cosine, axis=-1, kind="stable")
  real = norm > 0
  np.testing.assert_array_equal(
    np.asarray(around.ids)[real], order[real][:, :4]
  )
  expected = np.take_along_axis(cosine, order[:, :5], axis=-1)
  np.testing.assert_allclose(
    np.asarray(around.cosine)[real], expected[real], atol=1e-6
  )
  np.testing.assert_allclose(around.norm, norm, rtol=1e-6)


def test_of_a_row_without_surroundings_the_whole_table_is_searched():
  table = draw_table(1, clusters=False)
  producible = np.ones(VOCAB, bool)
  lexicon = Lexicon(producible, ~producible)
  known = np.arange(0, VOCAB, 2, dtype=np.int32)
  around = find(table, producible, rows=known, k=2)
  mixture, asked = draw_mixture(1), np.ones(SHAPE, bool)
  got, stats = nearest(2)(
    mixture, asked, table, lexicon._replace(surroundings=around)
  )
  scores = naive_scores(mixture, table, producible, None)
  best, second = np.moveaxis(np.sort(scores)[..., :-3:-1], -1, 0)
  clear = best - second > 1e-5
  np.testing.assert_array_equal(
    np.asarray(got)[clear], scores.argmax(-1)[clear]
  )
  both = (mixture.first % 2 == 0) & (mixture.second % 2 == 0)
  assert stats["by_search"].sum() >= (~both).sum() - 4


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_more_open_mixtures_than_a_turn_holds_take_more_turns(
  monkeypatch, chunk
):
  monkeypatch.setattr(surroundings, "_CHUNK", chunk)
  monkeypatch.setattr(surroundings, "_CANDIDATES", chunk * 2 * 8 * WIDTH)
  table = draw_table(2, clusters=True)
  producible = np.ones(VOCAB, bool)
  around = find(table, producible, k=8)
  lexicon = Lexicon(producible, ~producible, surroundings=around)
  mixture, asked = draw_mixture(2), np.ones(SHAPE, bool)
  got, stats = jax.jit(nearest_of_mixtures)(mixture, asked, table, lexicon)
  assert stats["by_search"].sum() > 3
  assert stats["by_neighbours"].sum() > 3
  scores = naive_scores(mixture, table, producible, None)
  found = np.take_along_axis(scores, np.asarray(got)[..., None], -1)[..., 0]
  np.testing.assert_allclose(found, scores.max(-1), atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 10, 99])
@pytest.mark.parametrize("number", [0, 1, 3, 10])
def test_settling_answers_the_open_questions_and_no_others(chunk, number):
  is_open = jnp.arange(10) < number
  is_open = is_open[jnp.array([3, 0, 7, 1, 9, 2, 5, 4, 8, 6])]
  answers = -jnp.arange(10), jnp.zeros((10, 2))

  def search(which):
    return which, jnp.stack([which, 2 * which], axis=-1).astype(jnp.float32)

  got, pairs = jax.jit(lambda: settle(search, is_open, answers, chunk))()
  ids = np.arange(10)
  np.testing.assert_array_equal(got, np.where(is_open, ids, -ids))
  pair = np.stack([ids, 2 * ids], axis=-1)
  np.testing.assert_array_equal(pairs, np.where(is_open[:, None], pair, 0))
