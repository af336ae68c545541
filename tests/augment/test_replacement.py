"""Words in the place of others: neighbours, or any at all."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from augdistill.augment.methods import RECIPES
from augdistill.augment.replacement import (
  draw_neighbours,
  nearest_neighbours,
  neighbour_lists,
  num_slots,
  replace_at_random,
  replace_by_neighbours,
)
from augdistill.errors import UsageError
from augdistill.training import mesh as meshes
from augdistill.types import Lexicon
from tests import toy
from tests.augment.test_projection import sizes
from tests.reference import neighbours as reference

STUDENT_TABLE = np.asarray(toy.STUDENT_PARAMS["table"], np.float64)
TEACHER_TABLE = np.asarray(toy.TEACHER_PARAMS["table"], np.float64)
PRODUCIBLE = toy.LEXICON.producible


@functools.cache
def searching(k, block, exact=False):
  return jax.jit(
    lambda tokens, table, allowed: nearest_neighbours(
      tokens, table, allowed, k, exact, block
    )
  )


def draw_world(seed, lead, vocab, emb_dim):
  rng = np.random.default_rng(seed)
  table = rng.normal(size=(vocab, emb_dim)).astype(np.float32)
  table *= np.exp(rng.normal(size=(vocab, 1))).astype(np.float32)
  allowed = rng.random(vocab) < 0.8
  allowed[:8] = True
  tokens = rng.integers(0, vocab, lead).astype(np.int32)
  return tokens, table, allowed


def test_neighbours_continue_words_as_their_tokens_do():
  tokens, table, allowed = draw_world(0, (40,), 37, 6)
  continues = np.random.default_rng(1).random(37) < 0.4
  found, exists = map(
    np.asarray,
    nearest_neighbours(
      *map(jnp.asarray, (tokens, table, allowed)),
      *(4, True, 7, jnp.asarray(continues)),
    ),
  )
  for i, token in enumerate(tokens):
    alike = allowed & (continues == continues[token])
    expected = reference.nearest(table, alike, 4)[token]
    count = min(4, alike.sum() - alike[token])
    assert exists[i].sum() == count
    np.testing.assert_array_equal(found[i][:count], expected[:count])


# (leading axes, V, D, k, block): no block divides its V, but one.
SHAPES = [((6,), 23, 4, 3, 7), ((2, 3), 16, 3, 5, 16), ((2, 2, 2), 37, 8, 6, 4)]


@pytest.mark.parametrize(("lead", "vocab", "emb_dim", "k", "block"), SHAPES)
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=25, deadline=None)
def test_the_blocked_search_finds_the_nearest(
  lead, vocab, emb_dim, k, block, seed
):
  tokens, table, allowed = draw_world(seed, lead, vocab, emb_dim)
  found, exists = searching(k, block)(tokens, table, allowed)
  assert found.shape == exists.shape == (*lead, k)
  assert np.asarray(exists).all()
  expected = reference.nearest(table, allowed, k)[tokens]
  # In order, and none twice; ids may differ where float32 sees a tie.
  cosines = reference.cosines(table)[tokens]
  got, wanted = (
    np.take_along_axis(cosines, np.asarray(ids), axis=-1)
    for ids in (found, expected)
  )
  np.testing.assert_allclose(got, wanted, atol=1e-5)
  flat = np.asarray(found).reshape(-1, k)
  assert all(len(set(row)) == k for row in flat.tolist())


@pytest.mark.parametrize("block", [3, 5, 100])
def test_ties_go_to_the_lowest_id(block):
  # Doubling keeps every bit of the direction: exact ties, also across blocks.
  base = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
  table = np.concatenate([base * 2**i for i in (3, 0, 1, -2, 4)])
  tokens = np.array([4], np.int32)
  found, _ = searching(3, block)(tokens, table, np.ones(15, bool))
  np.testing.assert_array_equal(found, [[1, 7, 10]])


@pytest.mark.parametrize("block", [2, 4, 64])
def test_what_is_not_there_is_not_found(block):
  tokens, table, _ = draw_world(0, (12,), 12, 4)
  tokens = np.arange(12, dtype=np.int32)
  table[5] = 0.0  # has no direction
  allowed = np.isin(np.arange(12), [2, 5, 7, 11])
  found, exists = map(np.asarray, searching(4, block)(tokens, table, allowed))
  for token in tokens:
    expected = {2, 7, 11} - {int(token)}
    assert set(found[token][exists[token]].tolist()) == expected
    # Those that exist come first.
    assert exists[token].tolist() == [True] * len(expected) + [False] * (
      4 - len(expected)
    )


def test_lists_hold_what_a_search_finds():
  _, table, producible = draw_world(0, (), 37, 6)
  producible &= np.arange(37) < 12  # Some kinds have fewer than four.
  continues = np.random.default_rng(1).random(37) < 0.4
  lexicon = Lexicon(producible, producible, continues)
  lexicon = jax.tree.map(jnp.asarray, lexicon)
  lists = neighbour_lists(jnp.asarray(table), lexicon, 4, chunk=10)
  ids = jnp.arange(37, dtype=jnp.int32)
  found, exists = nearest_neighbours(
    ids, jnp.asarray(table), lexicon.producible, 4, continues=lexicon.continues
  )
  assert exists.any() and not exists.all()
  np.testing.assert_array_equal(lists, np.where(exists, found, ids[:, None]))


def test_a_list_stands_in_for_the_search():
  models, tokens = toy.make_models(), jnp.arange(20, dtype=jnp.int32)[:, None]
  table = models.teacher.table(models.teacher_params)
  draws = jax.random.uniform(jax.random.key(0), (20, 1))

  @jax.jit
  def drawn(lists):
    its = models._replace(lexicon=models.lexicon._replace(neighbours=lists))
    return draw_neighbours(draws, tokens, its, 4, False)[0][:, 0]

  lists, searched = neighbour_lists(table, models.lexicon, 6), drawn(None)
  # The first four of six; and what they say is what is put there.
  np.testing.assert_array_equal(drawn(lists), searched)
  assert set(drawn(jnp.full_like(lists, 7)).tolist()) == {7}
  # One that is too short says too little.
  np.testing.assert_array_equal(drawn(lists[:, :3]), searched)


def test_more_neighbours_than_the_vocabulary_has_are_refused():
  tokens, table, allowed = draw_world(0, (2,), 9, 4)
  with pytest.raises(UsageError, match="got k=9 and 9 rows"):
    searching(9, 4)(tokens, table, allowed)
  with pytest.raises(UsageError, match="got k=24 and 24 rows"):
    toy.view_of(replace_by_neighbours(0.1, 24), toy.make_batch())


def test_no_array_of_tokens_times_vocabulary_exists():
  f = functools.partial(nearest_neighbours, k=3, block=32)
  tokens, table = jnp.zeros(300, jnp.int32), jnp.zeros((1000, 4))
  largest = max(sizes(jax.make_jaxpr(f)(tokens, table, jnp.ones(1000, bool))))
  assert largest == 300 * 32


def test_only_a_share_of_the_positions_is_searched():
  # 2 rows of 100: at rate 0.1 ceil(10) + 1 of each, against blocks of 2048.
  assert [num_slots(rate, 100) for rate in (0.0, 0.1, 0.4, 1.0)] == [
    1,
    11,
    41,
    100,
  ]
  batch = jax.tree.map(jnp.asarray, toy.batch_of([[5] * 100] * 2, 100))
  ids = jnp.arange(2048)
  models = toy.make_models(
    teacher_params=toy.TEACHER_PARAMS | {"table": jnp.ones((2048, 7))}
  )
  lexicon = models.lexicon._replace(producible=ids > 2, protected=ids < 2)
  models = models._replace(lexicon=lexicon)
  maker = replace_by_neighbours(0.1)

  def make(key):
    view = maker.make(key, batch, None, models, jnp.int32(0))
    return view.student.tokens

  assert max(sizes(jax.make_jaxpr(make)(jax.random.key(0)))) == 2 * 11 * 2048


@pytest.mark.parametrize(
  ("exact", "recalls"), [(False, {0.95, 1.0}), (True, {1.0})]
)
def test_a_tpu_searches_by_its_own_instruction_unless_all_must_be_found(
  exact, recalls
):
  traced = searching(3, 16, exact).trace(*draw_world(0, (4,), 40, 4))
  text = traced.lower(lowering_platforms=("tpu",)).as_text()
  calls = [line for line in text.splitlines() if "@ApproxTopK" in line]
  found = [c.split("recall_target = ")[1].split(" ")[0] for c in calls]
  assert {round(float(recall), 4) for recall in found} == recalls


def test_no_device_waits_for_the_rows_of_another():
  rows = NamedSharding(meshes.make_mesh(), PartitionSpec("data"))

  def tokens(batch):
    maker = replace_by_neighbours(0.3)
    key, models = jax.random.key(0), toy.make_models()
    return maker.make(key, batch, None, models, jnp.int32(0)).student.tokens[0]

  function = jax.jit(tokens, in_shardings=rows, out_shardings=rows)
  compiled = function.lower(toy.make_batch()).compile().as_text()
  assert "all-gather" not in compiled


# Many long texts, with ends of sentences and unknown words inside.
ROWS, LENGTH = 300, 24


def make_batch():
  rng = np.random.default_rng(0)
  texts = []
  for _ in range(ROWS):
    text = rng.integers(toy.UNKNOWN, toy.NO_PIECE, rng.integers(2, LENGTH))
    text[rng.integers(0, len(text))] = toy.EOS
    texts.append([*text, toy.EOS])
  return toy.batch_of(texts, LENGTH)


BATCH = make_batch()
FREE = BATCH.mask & (BATCH.tokens > toy.EOS)
KNN = replace_by_neighbours(0.3, k=4)
TWO = replace_at_random(0.3)


@pytest.mark.parametrize("with_teacher", [True, False])
def test_a_replacement_is_one_of_the_nearest_and_each_is_as_likely(
  with_teacher,
):
  view = toy.view_of(KNN, BATCH, with_teacher=with_teacher)
  tokens = view.student.tokens[0]
  changed = tokens != BATCH.tokens
  assert not changed[~FREE].any()
  table = TEACHER_TABLE if with_teacher else STUDENT_TABLE
  order = reference.nearest(table, PRODUCIBLE, 4)
  old, new = BATCH.tokens[changed], tokens[changed]
  rank = (order[old] == new[:, None]).argmax(-1)
  assert (order[old, rank] == new).all()
  assert (old == toy.UNKNOWN).any()
  share = np.bincount(rank, minlength=4) / len(rank)
  np.testing.assert_allclose(share, 1 / 4, atol=0.06)
  assert (view.teacher is not None) == with_teacher


@pytest.mark.parametrize("maker", [KNN, TWO])
def test_the_rate_is_that_of_a_rows_own_free_tokens(maker):
  counts, free = [], FREE.sum(-1)
  for seed in range(4):
    tokens = toy.view_of(maker, BATCH, seed).student.tokens[0]
    counts.append((tokens != BATCH.tokens).sum(-1))
    # No more than one off; a random token may be the old one.
    assert (counts[-1] - 0.3 * free < 1).all()
    if maker is KNN:
      assert (counts[-1] - 0.3 * free > -1).all()
  same = 1 / PRODUCIBLE.sum() if maker is TWO else 0.0
  expected = 0.3 * (1 - same) * free.sum()
  assert np.sum(counts, axis=-1).mean() == pytest.approx(expected, rel=0.02)


def test_every_position_is_as_likely_to_be_replaced_by_every_neighbour():
  text = [*range(3, 13), toy.EOS]
  batch = toy.batch_of([text] * 2000, 16)
  tokens = toy.view_of(KNN, batch).student.tokens[0]
  changed = tokens != batch.tokens
  np.testing.assert_allclose(changed[:, :10].mean(0), 0.3, atol=0.05)
  assert (changed.sum(-1) == 3).all()
  near = reference.nearest(TEACHER_TABLE, PRODUCIBLE, 4)[text[:10]]
  number = (tokens[:, :10, None] == near[None]).sum(0)
  # Four standard deviations.
  np.testing.assert_allclose(number / 2000, 0.3 / 4, atol=0.024)


def test_at_rate_one_a_random_view_is_a_random_sentence():
  tokens = toy.view_of(replace_at_random(), BATCH).student.tokens[0]
  np.testing.assert_array_equal(tokens[~FREE], BATCH.tokens[~FREE])
  share = np.bincount(tokens[FREE], minlength=toy.VOCAB) / FREE.sum()
  np.testing.assert_allclose(share, PRODUCIBLE / PRODUCIBLE.sum(), atol=0.015)
  assert share[~PRODUCIBLE].sum() == 0
  # Whatever stood there before.
  old = BATCH.tokens[FREE] == 7
  share = np.bincount(tokens[FREE][old], minlength=toy.VOCAB) / old.sum()
  np.testing.assert_allclose(share, PRODUCIBLE / PRODUCIBLE.sum(), atol=0.06)


def test_at_rate_one_every_free_token_gets_a_neighbour():
  tokens = toy.view_of(replace_by_neighbours(1.0), BATCH).student.tokens[0]
  np.testing.assert_array_equal(tokens != BATCH.tokens, FREE)


def test_tinybert_is_the_same_at_a_higher_rate():
  tinybert = RECIPES["tinybert"].make()
  view = toy.view_of(tinybert, BATCH)
  total, weight = view.stats["changed"]
  assert total / weight == pytest.approx(0.4, abs=0.02)
  same = toy.view_of(replace_by_neighbours(0.4, 15), BATCH)
  np.testing.assert_array_equal(view.student.tokens, same.student.tokens)


@pytest.mark.parametrize("maker", [KNN, TWO])
def test_replacements_do_not_depend_on_the_padding(maker):
  view = toy.view_of(maker, BATCH)
  longer = toy.view_of(maker, toy.pad(BATCH, 17))
  np.testing.assert_array_equal(
    longer.student.tokens[..., :LENGTH], view.student.tokens
  )


@pytest.mark.parametrize("maker", [KNN, TWO])
def test_a_microbatch_is_replaced_as_in_the_whole_batch(maker):
  rows = np.random.default_rng(0).permutation(ROWS)[:50]
  view = toy.view_of(maker, BATCH)
  part = toy.view_of(maker, toy.take_rows(BATCH, rows))
  np.testing.assert_array_equal(
    part.student.tokens[0], view.student.tokens[0, rows]
  )


def test_the_label_is_the_rows_own():
  for maker in (KNN, TWO):
    view = toy.view_of(maker, BATCH)
    np.testing.assert_array_equal(view.label[0], BATCH.label)
    np.testing.assert_array_equal(view.has_label[0], BATCH.has_label)


@pytest.mark.parametrize(
  ("factory", "arguments", "message"),
  [
    (replace_by_neighbours, (1.1,), r"rate must be in \[0, 1\], got 1.1"),
    (replace_by_neighbours, (0.1, 0), "k must be at least 1, got 0"),
    (replace_at_random, (-0.1,), r"rate must be in \[0, 1\], got -0.1"),
    (replace_at_random, (float("nan"),), r"rate must be in \[0, 1\], got nan"),
  ],
)
def test_factories_reject_what_cannot_be(factory, arguments, message):
  with pytest.raises(ValueError, match=message):
    factory(*arguments)
