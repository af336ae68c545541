"""The nearest token: exact, blocked, small."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from augdistill.augment.methods import augpro_fgsm, augpro_mix
from augdistill.augment.mixing import gather_partners
from augdistill.augment.nearest import nearest_tokens
from augdistill.augment.projection import (
  estimate_replaced,
  nearest_or_own,
  token_stats,
)
from augdistill.types import Lexicon
from tests import toy
from tests.reference import svm_example
from tests.reference import views as reference

# (leading axes of the queries, V, D, block): no block divides its V, but one.
SHAPES = [((5,), 23, 4, 7), ((2, 3), 16, 3, 16), ((1, 2, 3), 37, 8, 10)]


@functools.cache
def nearest(block):
  return jax.jit(functools.partial(nearest_tokens, block=block))


def draw_world(seed, lead, vocab, emb_dim):
  rng = np.random.default_rng(seed)
  queries = rng.normal(size=(*lead, emb_dim)).astype(np.float32)
  table = rng.normal(size=(vocab, emb_dim)).astype(np.float32)
  table *= np.exp(rng.normal(size=(vocab, 1))).astype(np.float32)
  allowed = rng.random(vocab) < 0.7
  allowed[rng.integers(vocab)] = True
  return queries, table, allowed


@pytest.mark.parametrize(("lead", "vocab", "emb_dim", "block"), SHAPES)
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=25, deadline=None)
def test_the_blocked_search_finds_the_reference(
  lead, vocab, emb_dim, block, seed
):
  queries, table, allowed = draw_world(seed, lead, vocab, emb_dim)
  token, score = nearest(block)(queries, table, allowed)
  assert token.shape == score.shape == lead
  assert token.dtype == jnp.int32
  flat = queries.reshape(-1, emb_dim)
  scores = reference.projection_scores(flat, table, allowed)
  token, score = np.asarray(token).ravel(), np.asarray(score).ravel()
  assert allowed[token].all()
  # Where two are nearer to one another than float32 can tell, either will do.
  best, second = np.sort(scores, axis=-1)[:, :-3:-1].T
  clear = best - second > 1e-5
  expected = reference.project(flat, table, allowed)
  np.testing.assert_array_equal(token[clear], expected[clear])
  np.testing.assert_allclose(
    score / np.linalg.norm(flat, axis=-1), best, rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize("block", [1, 5, 7, 24, 1000])
def test_every_block_size_gives_the_naive_argmax(block):
  queries, table, allowed = draw_world(1, (40,), 24, 6)
  unit = table / np.linalg.norm(table, axis=-1, keepdims=True)
  scores = np.where(allowed, queries @ unit.T, -np.inf)
  token, score = nearest(block)(queries, table, allowed)
  np.testing.assert_array_equal(token, scores.argmax(-1))
  np.testing.assert_allclose(score, scores.max(-1), rtol=1e-6)


@pytest.mark.parametrize("block", [3, 5, 100])
def test_ties_go_to_the_lowest_id(block):
  # Doubling keeps every bit of the direction: exact ties, also across blocks.
  base = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
  table = np.concatenate([base * 2**i for i in (3, 0, 1, -2)])
  allowed = np.ones(16, bool)
  token, _ = nearest(block)(base, table, allowed)
  np.testing.assert_array_equal(token, [0, 1, 2, 3])
  token, _ = nearest(block)(0 * base, table, allowed)
  np.testing.assert_array_equal(token, [0] * 4)
  allowed[:5] = False
  token, _ = nearest(block)(base, table, allowed)
  np.testing.assert_array_equal(token, [8, 5, 6, 7])
  # A query of zeros is as near to one as to another.
  token, _ = nearest(block)(0 * base, table, allowed)
  np.testing.assert_array_equal(token, [5] * 4)


@pytest.mark.parametrize("block", [7, 64])
def test_a_row_of_the_table_is_its_own_projection(block):
  _, table, _ = draw_world(2, (1,), 50, 8)
  token, score = nearest(block)(table, table, np.ones(50, bool))
  np.testing.assert_array_equal(token, np.arange(50))
  np.testing.assert_allclose(score, np.linalg.norm(table, axis=-1), rtol=1e-5)
  token, _ = nearest(block)(7.5 * table, table, np.ones(50, bool))
  np.testing.assert_array_equal(token, np.arange(50))


def test_a_forbidden_row_or_one_without_direction_is_never_chosen():
  queries, table, _ = draw_world(3, (64,), 20, 4)
  table[[2, 11]] = 0.0
  allowed = np.zeros(20, bool)
  allowed[[2, 5, 11, 17]] = True
  # All products may be negative: no padding of a block may win with a 0.
  queries -= 3 * table[5] / np.linalg.norm(table[5])
  queries -= 3 * table[17] / np.linalg.norm(table[17])
  for block in (3, 6, 20):
    token, score = nearest(block)(queries, table, allowed)
    assert set(np.asarray(token).tolist()) <= {5, 17}
    assert np.isfinite(score).all()
  assert (np.asarray(score) < 0).any()


@pytest.mark.parametrize("block", [8, 24, 100])
@pytest.mark.parametrize(
  "ties", [(slice(0, 20), slice(25, 45)), (slice(0, 40, 2), slice(1, 41, 2))]
)
def test_rounded_products_find_the_winner_of_float32(block, ties):
  queries, table, allowed = draw_world(6, (4, 30), 50, 16)
  # Near ties, which only float32 tells apart, in two segments or side by side;
  # queries near two rows alike; a row alone in its kind, and one that has no
  # other.
  one, other = ties
  table[other] = table[one] * (1 + 1e-3 * queries[0, :20])
  queries[1, :20] = table[one] + table[other]
  kinds = np.arange(120).reshape(4, 30) % 3 == 0, np.arange(50) == 7
  allowed[7] = True

  @functools.partial(jax.jit, static_argnames=("dtype", "apart"))
  def find(queries, dtype, apart):
    return nearest_tokens(
      queries,
      jnp.asarray(table),
      jnp.asarray(allowed),
      block=block,
      kinds=jax.tree.map(jnp.asarray, kinds) if apart else None,
      products=dtype,
    )

  unit = table / np.linalg.norm(table, axis=-1, keepdims=True)
  cosines = np.float64(queries) @ np.float64(unit).T
  cosines /= np.linalg.norm(np.float64(queries), axis=-1, keepdims=True)

  def cosine_of(ids):
    return np.take_along_axis(cosines, np.asarray(ids)[..., None], -1)[..., 0]

  # Two that float32 cannot tell apart are another one's winners where it adds
  # up in another order, as processors do for few queries.
  unclear = 1e-6
  for apart in (False, True):
    token, score = find(queries, jnp.float32, apart)
    its, close = find(queries, jnp.bfloat16, apart)
    assert (its == token).mean() > 0.9
    np.testing.assert_allclose(
      cosine_of(its), cosine_of(token), rtol=0, atol=unclear
    )
    np.testing.assert_allclose(close, score, rtol=1e-5)
    if apart:
      alike = kinds[0] == kinds[1][np.asarray(its)]
      np.testing.assert_array_equal(alike, close > -np.inf)
  # Rounding alone would have taken some for others.
  half, units = (
    np.asarray(jnp.asarray(x, jnp.bfloat16), np.float32)
    for x in (queries, unit)
  )
  rounded = np.where(allowed, half @ units.T, -np.inf).argmax(-1)
  token, _ = find(queries, jnp.float32, False)
  assert (cosine_of(rounded) < cosine_of(token) - 10 * unclear).any()


def test_half_precision_queries_are_compared_in_float32():
  queries, table, allowed = draw_world(4, (30,), 50, 16)
  half = jnp.asarray(queries, jnp.bfloat16)
  token, score = nearest(16)(half, table, allowed)
  expected, _ = nearest(16)(np.asarray(half, np.float32), table, allowed)
  np.testing.assert_array_equal(token, expected)
  assert score.dtype == jnp.float32


def sizes(jaxpr):
  """The number of elements of everything that a jaxpr computes."""
  if isinstance(jaxpr, ClosedJaxpr):
    jaxpr = jaxpr.jaxpr
  for equation in jaxpr.eqns:
    yield from (variable.aval.size for variable in equation.outvars)
    for value in jax.tree.leaves(
      list(equation.params.values()),
      is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr),
    ):
      if isinstance(value, Jaxpr | ClosedJaxpr):
        yield from sizes(value)


def test_no_array_of_queries_times_vocabulary_exists():
  f = functools.partial(nearest_tokens, block=32)
  arguments = (jnp.zeros((300, 4)), jnp.zeros((1000, 4)), jnp.ones(1000, bool))
  largest = max(sizes(jax.make_jaxpr(f)(*arguments)))
  assert largest == 300 * 32
  naive = jax.make_jaxpr(lambda q, t, a: jnp.where(a[None], q @ t.T, 0.0))
  assert max(sizes(naive(*arguments))) == 300 * 1000


@pytest.mark.parametrize("maker", [augpro_mix(), augpro_fgsm()])
def test_no_view_makes_an_array_of_tokens_times_vocabulary(maker):
  vocab, rows = 3000, 64
  batch = jax.tree.map(
    lambda x: jnp.tile(jnp.asarray(x), (rows // toy.ROWS, *[1] * (x.ndim - 1))),
    toy.make_batch(),
  )
  ids = jnp.arange(vocab)
  models = toy.make_models(
    toy.STUDENT_PARAMS | {"table": jnp.ones((vocab, 6))},
    toy.TEACHER_PARAMS | {"table": jnp.ones((vocab, 7))},
  )
  lexicon = models.lexicon._replace(producible=ids > 2, protected=ids < 2)
  models = models._replace(lexicon=lexicon)
  mates = jnp.arange(rows, dtype=jnp.int32)[None]

  def make(key):
    mine = gather_partners(batch, mates) if maker.partners else batch
    clean = toy.clean_of(models, mine)
    view = maker.make(key, mine, clean, models, jnp.int32(0))
    return view.student.tokens

  largest = max(sizes(jax.make_jaxpr(make)(jax.random.key(0))))
  assert largest <= rows * toy.LENGTH * 512 < rows * toy.LENGTH * vocab


def test_the_memory_is_that_of_a_block():
  queries, vocab, emb_dim, block = 2048, 8192, 4, 256
  shapes = (
    jax.ShapeDtypeStruct((queries, emb_dim), jnp.float32),
    jax.ShapeDtypeStruct((vocab, emb_dim), jnp.float32),
    jax.ShapeDtypeStruct((vocab,), bool),
  )
  memory = nearest(block).lower(*shapes).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 3 * 4 * queries * block


def test_a_piece_that_continues_a_word_becomes_another_such():
  rng = np.random.default_rng(0)
  table = rng.normal(size=(23, 4)).astype(np.float32)
  continues, producible = rng.random((2, 23)) < 0.6
  queries = rng.normal(size=(2, 5, 6, 4)).astype(np.float32)
  own = rng.integers(0, 23, (1, 5, 6)).astype(np.int32)
  lexicon = Lexicon(
    jnp.asarray(producible), jnp.zeros(23, bool), jnp.asarray(continues)
  )
  given = [jnp.asarray(x) for x in (queries, own, table)]
  got = np.asarray(nearest_or_own(*given, lexicon))
  scores = queries @ (table / np.linalg.norm(table, axis=-1)[:, None]).T
  may = (continues[own][..., None] == continues) & producible
  # A token may stay, too, also where it could not be produced.
  may = may | (own[..., None] == np.arange(23))
  expected = np.where(may, scores, -np.inf).argmax(axis=-1)
  np.testing.assert_array_equal(got, expected)
  free = nearest_or_own(*given, lexicon._replace(continues=None))
  assert (continues[np.asarray(free)] != continues[own]).any()


def test_projection_keeps_a_decision_boundary_that_mixing_shifts():
  """AugPro's section 3: four points are all the inputs that there are."""
  point, label = svm_example.mixture()
  seen = [0, 2]

  def with_one_more(new, its_label):
    return svm_example.hard_margin(
      np.vstack([svm_example.POINTS[seen], new]),
      np.append(svm_example.LABELS[seen], its_label),
    )

  mixed = svm_example.correct(*with_one_more(point, label))
  assert not mixed.all()
  token, _ = nearest_tokens(
    jnp.asarray(point, jnp.float32),
    jnp.asarray(svm_example.POINTS, jnp.float32),
    jnp.ones(4, bool),
  )
  # The teacher knows every input's label, so that of the nearest one, too.
  nearest = svm_example.POINTS[int(token)], svm_example.LABELS[int(token)]
  assert svm_example.correct(*with_one_more(*nearest)).all()


# --- Statistics --------------------------------------------------------------


def test_every_free_token_is_as_likely_to_stand_for_its_row():
  batch = toy.batch_of([[3, 4, 5, 6, toy.EOS]] * 1000)
  batch = jax.tree.map(jnp.asarray, batch)
  models = toy.make_models()
  table = models.student_params["table"]

  @jax.jit
  def share(position):
    other = jnp.arange(toy.LENGTH)[None] == position
    tokens = jnp.where(other, 10, batch.tokens)
    queries = jnp.take(table, tokens, axis=0)[None]
    return estimate_replaced(jax.random.key(0), queries, batch, models)

  for position in range(4):
    replaced, counted = share(position)
    assert counted == 4 * 1000
    # One of four; four standard deviations.
    assert float(replaced / counted) == pytest.approx(0.25, abs=0.055)


def test_a_token_that_both_parents_have_is_not_counted_as_the_partners():
  texts = [[3, 4, 5, 6], [3, 7, 8, 9]]
  batch = jax.tree.map(jnp.asarray, toy.batch_of(texts, 4))
  batch = gather_partners(batch, jnp.array([[1, 0]], jnp.int32))
  # In both, from b, from a, from neither; and a row that is as it was.
  tokens = jnp.array([[[3, 7, 5, 10], [3, 7, 8, 9]]], jnp.int32)
  got = token_stats(batch, tokens, batch.mask[None], batch.weight[None])
  expected = {"changed": 2, "from_b": 1, "from_neither": 1}
  assert got == {name: (number, 8) for name, number in expected.items()}
