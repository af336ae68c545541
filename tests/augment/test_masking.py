"""What is hidden from a masked language model, and how much of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill import prng
from augdistill.augment.masking import (
  draw_positions,
  mask_tokens,
  producible_at,
)
from augdistill.types import Batch
from tests import toy

LEXICON = jax.tree.map(jnp.asarray, toy.LEXICON)
KEY = prng.run_key(0)


def texts(rows, length=24, ids=None):
  """Rows of all lengths from 2 on, which end in the end of a sentence."""
  rng = np.random.default_rng(0)
  lengths = 2 + np.arange(rows) % (length - 1)
  tokens = rng.integers(toy.FIRST_WORD, toy.NO_PIECE, (rows, length))
  tokens[np.arange(rows), lengths - 1] = toy.EOS
  mask = np.arange(length) < lengths[:, None]
  ids = np.arange(rows) if ids is None else ids
  return Batch(
    tokens=np.where(mask, tokens, toy.PAD).astype(np.int32),
    mask=mask,
    label=np.zeros((rows, 2), np.float32),
    has_label=np.zeros(rows, bool),
    weight=np.ones(rows, np.float32),
    example_id=np.asarray(ids, np.int32),
  )


def run(mask, batch, key=KEY):
  return jax.device_get(jax.jit(mask)(key, batch, LEXICON))


def free_of(batch):
  return batch.mask & ~toy.LEXICON.protected[batch.tokens]


# --- the draw of positions ---------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.15, 0.4, 1.0])
def test_a_share_is_drawn_rounded_to_the_nearest_and_at_least_one(rate):
  batch = texts(46)
  free = free_of(batch)
  keys = prng.per_example(KEY, jnp.asarray(batch.example_id))
  drawn = jax.device_get(
    jax.jit(draw_positions, static_argnums=2)(keys, free, rate)
  )
  count = drawn.chosen.sum(axis=1)
  want = np.maximum(np.floor(rate * free.sum(axis=1) + 0.5 + 1e-6), 1)
  np.testing.assert_array_equal(count, want)
  for row in range(46):
    chosen = drawn.positions[row][drawn.chosen[row]]
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) == set(np.flatnonzero(drawn.at[row]))
    assert free[row][chosen].all()
    # The first ones count, the rest does not.
    assert (np.diff(drawn.chosen[row].astype(int)) <= 0).all()


def test_a_row_of_which_nothing_is_free_has_nothing_drawn():
  keys = prng.per_example(KEY, jnp.arange(2))
  drawn = draw_positions(keys, jnp.array([[False] * 8, [True] * 8]), 0.4)
  assert drawn.chosen.sum(axis=1).tolist() == [0, 3]
  assert drawn.at.sum(axis=1).tolist() == [0, 3]


def test_every_free_position_is_drawn_equally_often_and_equally_early():
  rows, free = 20_000, 10
  keys = prng.per_example(KEY, jnp.arange(rows))
  drawn = draw_positions(keys, jnp.ones((rows, free), bool), 0.3)
  first = np.bincount(np.asarray(drawn.positions[:, 0]), minlength=free)
  anywhere = np.asarray(drawn.at).sum(axis=0)
  for counts, share in ((first, 0.1), (anywhere, 0.3)):
    deviation = np.sqrt(rows * share * (1 - share))
    assert np.abs(counts - rows * share).max() < 4.5 * deviation


# --- masking -----------------------------------------------------------------


@pytest.mark.parametrize(
  "shares", [(0.8, 0.1), (1.0, 0.0), (0.0, 1.0), (0.5, 0.25)]
)
def test_the_shares_of_hidden_random_and_kept_tokens_are_as_asked(shares):
  batch = texts(3000)
  masked = run(mask_tokens(0.3, *shares), batch)
  count = masked.weight.sum()
  positions = masked.positions.astype(np.int64)
  asked = np.zeros(batch.mask.shape, bool)
  for row in range(len(positions)):
    asked[row, positions[row][masked.weight[row] > 0]] = True
  assert asked.sum() == count
  hidden = masked.hidden.sum() / count
  # A random token is the old one in 1 of 17 cases.
  words = toy.NO_PIECE - toy.FIRST_WORD
  changed = (masked.tokens != batch.tokens).sum() / count * words / (words - 1)
  deviation = 4.5 / np.sqrt(count)
  assert abs(hidden - shares[0]) <= deviation * (0 < shares[0] < 1)
  assert abs(changed - shares[1]) <= deviation
  # Nothing but what is asked for is hidden or changed, and never both.
  assert not (masked.hidden & ~asked).any()
  changed = masked.tokens != batch.tokens
  assert not (changed & (~asked | masked.hidden)).any()


def test_the_right_answers_are_the_rows_own_tokens():
  batch = texts(64)
  masked = run(mask_tokens(0.3), batch)
  want = np.take_along_axis(batch.tokens, masked.positions, axis=1)
  np.testing.assert_array_equal(masked.target, want)


def test_padding_and_ends_of_sentences_are_left_and_never_put_in():
  batch = texts(500)
  masked = run(mask_tokens(0.5, 0.4, 0.6), batch)
  assert not (masked.hidden & ~free_of(batch)).any()
  changed = masked.tokens != batch.tokens
  assert not (changed & ~free_of(batch)).any()
  assert toy.LEXICON.producible[masked.tokens[changed]].all()
  asked = masked.target[masked.weight > 0]
  assert not toy.LEXICON.protected[asked].any()


def test_random_tokens_are_equally_often_each_producible_one():
  count = 100_000
  uniform = (jnp.arange(count, dtype=jnp.float32) / count)[None]
  ids = np.asarray(producible_at(uniform, LEXICON))[0]
  counts = np.bincount(ids, minlength=toy.VOCAB)
  words = toy.NO_PIECE - toy.FIRST_WORD
  want = np.where(toy.LEXICON.producible, count / words, 0)
  assert np.abs(counts - want).max() <= 2
  end = producible_at(jnp.full((1, 1), 1.0 - 2**-24, jnp.float32), LEXICON)
  assert toy.LEXICON.producible[np.asarray(end)].all()


def test_the_random_token_is_drawn_apart_from_where_it_goes():
  batch = texts(3000)
  masked = run(mask_tokens(0.5, 0.8, 0.1), batch)
  changed = masked.tokens[masked.tokens != batch.tokens]
  counts = np.bincount(changed, minlength=toy.VOCAB)
  counts = counts[toy.FIRST_WORD : toy.NO_PIECE]
  share = 1 / len(counts)
  deviation = np.sqrt(len(changed) * share * (1 - share))
  assert np.abs(counts - len(changed) * share).max() < 4.5 * deviation


def test_rows_that_only_fill_the_shape_are_asked_nothing():
  batch = toy.make_batch()
  masked = run(mask_tokens(0.4), batch)
  np.testing.assert_array_equal(masked.weight.any(axis=1), batch.weight > 0)


# Each of which has one draw alone decide: of positions, of fates, of tokens.
ALONE = {"positions": (0.4, 1.0, 0.0), "fate": (1.0, 0.5, 0.0)}
ALONE["tokens"] = (1.0, 0.0, 1.0)


@pytest.mark.parametrize("draw", ALONE)
def test_masks_are_a_function_of_key_and_example_alone(draw):
  batch, mask = texts(8, ids=np.arange(8) + 5), mask_tokens(*ALONE[draw])

  def seen(batch, key=KEY):
    masked = run(mask, batch, key)
    return np.where(masked.hidden, -1, masked.tokens)

  one = seen(batch)
  np.testing.assert_array_equal(seen(batch), one)
  # In another place of another batch.
  moved = jax.tree.map(lambda x: x[::-1], batch)
  np.testing.assert_array_equal(seen(moved)[::-1], one)
  assert not np.array_equal(seen(batch, prng.run_key(1)), one)
  others = batch._replace(example_id=batch.example_id + 100)
  assert not np.array_equal(seen(others), one)


@pytest.mark.parametrize(
  "arguments, said",
  [
    ((0.0,), r"must be in \(0, 1\], got 0"),
    ((1.5,), r"must be in \(0, 1\], got 1.5"),
    ((0.2, -0.1), "at most 1"),
    ((0.2, 0.8, 0.3), "got 0.8 and 0.3"),
  ],
)
def test_a_share_out_of_range_is_refused(arguments, said):
  with pytest.raises(ValueError, match=said):
    mask_tokens(*arguments)
