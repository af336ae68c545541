"""Rows as arrays of one shape."""

import dataclasses

import numpy as np
import pytest

from augdistill.data.batches import (
  batch_length,
  eval_batches,
  make_batch,
  make_rewrites,
  padded_length,
  train_batches,
)
from augdistill.data.dataset import take
from augdistill.data.plan import rows_of_similar_length_at
from augdistill.data.rewrites import Rewrites


@pytest.fixture
def examples(make_examples):
  return make_examples([3, 1, 9, 4, 2], [0, 1, 0, 1, 1])


def test_the_length_is_the_least_multiple_of_8_that_holds_all():
  for longest, length in ((1, 8), (8, 8), (9, 16), (17, 24)):
    assert padded_length(np.array([1, longest])) == length


def test_a_batch_has_the_smallest_of_few_lengths_that_hold_it(make_examples):
  longest = [3, 16, 17, 24, 25, 33, 49, 65, 97]
  examples = make_examples(longest, [0] * 9)
  lengths = [batch_length(examples.lengths, np.array([0, i])) for i in range(9)]
  # The split's own length caps the last.
  assert lengths == [16, 16, 24, 24, 32, 48, 64, 96, 104]
  batches = eval_batches(examples, 2)
  assert [b.tokens.shape[1] for b in batches] == [16, 24, 48, 96, 104]


def test_hosts_agree_on_the_length_of_a_batch(make_examples):
  examples = make_examples([3, 3, 3, 40], [0] * 4)
  for host in (((0,), 2), ((1,), 2)):
    batch = train_batches(examples, 4, seed=0, host=host)(0)
    assert batch.tokens.shape == (2, 40)


def test_a_batch_holds_the_rows_and_masks_the_rest(examples):
  batch = make_batch(examples, np.array([3, 0, 3]), 16)
  assert batch.tokens.shape == batch.mask.shape == (3, 16)
  for i, row in enumerate((3, 0, 3)):
    length = (3, 1, 9, 4, 2)[row]
    expected = [10 * row + j for j in range(length)] + [0] * (16 - length)
    assert batch.tokens[i].tolist() == expected
    assert batch.mask[i].tolist() == [j < length for j in range(16)]
  np.testing.assert_array_equal(batch.label, [[0, 1], [1, 0], [0, 1]])
  np.testing.assert_array_equal(batch.example_id, [3, 0, 3])
  np.testing.assert_array_equal(batch.weight, [1, 1, 1])
  dtypes = [np.asarray(field).dtype for field in batch[:6]]
  i32, f32 = np.dtype("int32"), np.dtype("float32")
  assert dtypes == [i32, bool, f32, bool, f32, i32]


def test_training_batches_are_the_plans_rows(examples):
  batch_at = train_batches(examples, 4, seed=3)
  for step in (5, 0):
    rows = rows_of_similar_length_at(
      examples.lengths, 4, 3, examples.fingerprint, step
    )
    np.testing.assert_array_equal(batch_at(step).example_id, rows)
    assert batch_at(step).tokens.shape == (4, 16)


def test_example_ids_are_those_of_the_whole_data(examples):
  batch = train_batches(take(examples, [4, 2]), 2, seed=0)(0)
  assert sorted(batch.example_id) == [2, 4]


def test_each_host_makes_its_share_of_the_same_batch(examples):
  whole = train_batches(examples, 4, seed=0)(7)
  parts = [
    train_batches(examples, 4, seed=0, host=((i,), 2))(7) for i in range(2)
  ]
  for field, first, second in zip(whole[:6], *parts, strict=False):
    np.testing.assert_array_equal(field, np.concatenate([first, second]))


def test_evaluation_counts_every_row_once(examples):
  batches = list(eval_batches(examples, 2))
  assert [batch.tokens.shape for batch in batches] == [(2, 16)] * 3
  ids = np.concatenate([batch.example_id for batch in batches])
  weight = np.concatenate([batch.weight for batch in batches])
  np.testing.assert_array_equal(ids[weight == 1], np.arange(5))
  # A filling row is a valid one, so that it cannot make a NaN.
  assert batches[-1].mask.any(axis=1).all()


def test_hosts_share_the_evaluation_too(examples):
  parts = [list(eval_batches(examples, 4, host=((i,), 2))) for i in range(2)]
  whole = list(eval_batches(examples, 4))
  for full, first, second in zip(whole, *parts, strict=True):
    ids = [*first.example_id, *second.example_id]
    np.testing.assert_array_equal(full.example_id, ids)


def test_a_host_may_have_shares_apart_from_each_other(examples):
  whole = train_batches(examples, 4, seed=0)(7)
  mine = train_batches(examples, 4, seed=0, host=((0, 3), 4))(7)
  np.testing.assert_array_equal(mine.tokens, whole.tokens[[0, 3]])


def test_hosts_must_divide_the_batch(examples):
  with pytest.raises(ValueError, match="multiple of the number of shares, 2"):
    train_batches(examples, 5, seed=0, host=((0,), 2))


def test_a_length_that_would_cut_rows_is_refused(examples):
  with pytest.raises(ValueError, match="9 tokens, got 8"):
    train_batches(examples, 2, seed=0, length=8)
  with pytest.raises(ValueError, match="9 tokens, got 8"):
    next(eval_batches(examples, 2, length=8))
  assert train_batches(examples, 2, seed=0, length=32)(0).mask.shape[1] == 32


# --- rewrites ----------------------------------------------------------------


@pytest.fixture
def rewrites(make_examples):
  """Rows 0 and 2 have two rewrites and one, one of them of 20 tokens."""
  made = make_examples([5, 20, 2], [0, 0, 0])
  tokens = made.tokens + 1000
  return Rewrites(
    dataclasses.replace(made, tokens=tokens), np.array([0, 2, 2, 3, 3, 3])
  )


def test_a_batch_carries_the_rewrites_of_its_rows(examples, rewrites):
  batch = make_batch(examples, np.array([2, 1, 0]), 24)
  new = make_rewrites(batch, rewrites, np.array([2, 1, 0]))
  assert new.tokens.shape == new.mask.shape == (2, 3, 24)
  assert new.weight.tolist() == [[1, 0, 1], [0, 0, 1]]
  assert new.partner is new.rewrites is None

  def text(copy, row):
    return new.tokens[copy, row][new.mask[copy, row]].tolist()

  assert text(0, 0) == [1020, 1021]
  assert text(0, 2) == [1000 + j for j in range(5)]
  assert text(1, 2) == [1010 + j for j in range(20)]
  # Where there is none, the row's own text stands in: it cannot make a NaN.
  assert text(1, 0) == batch.tokens[0][batch.mask[0]].tolist()
  assert not new.tokens[~new.mask].any()
  for copy in range(2):
    np.testing.assert_array_equal(new.label[copy], batch.label)
    np.testing.assert_array_equal(new.example_id[copy], batch.example_id)
    np.testing.assert_array_equal(new.has_label[copy], batch.has_label)
  dtypes = [field.dtype for field in new[:6]]
  assert dtypes == [field.dtype for field in batch[:6]]


def test_a_row_that_only_fills_the_shape_has_rewrites_of_no_weight(
  examples, rewrites
):
  rows = np.array([0, 0])
  weight = np.array([1, 0], np.float32)
  batch = make_batch(examples, rows, 24, weight)
  assert make_rewrites(batch, rewrites, rows).weight.tolist() == [[1, 0]] * 2


def test_training_batches_hold_their_longest_rewrite(examples, rewrites):
  plain = train_batches(examples, 2, seed=0)
  batch_at = train_batches(examples, 2, seed=0, rewrites=rewrites)
  for step in range(6):
    batch = batch_at(step)
    # The same rows as without rewrites.
    np.testing.assert_array_equal(batch.example_id, plain(step).example_id)
    length = 24 if 0 in batch.example_id else 16
    assert batch.tokens.shape == (2, length)
    assert batch.rewrites.tokens.shape == (2, 2, length)
    assert plain(step).rewrites is None


def test_hosts_share_rewrites_too(examples, rewrites):
  whole = train_batches(examples, 4, seed=0, rewrites=rewrites)(3)
  parts = [
    train_batches(examples, 4, seed=0, rewrites=rewrites, host=((i,), 2))(3)
    for i in range(2)
  ]
  for field, first, second in zip(
    whole.rewrites[:6], *(p.rewrites[:6] for p in parts), strict=True
  ):
    np.testing.assert_array_equal(field, np.concatenate([first, second], 1))


def test_a_length_that_would_cut_rewrites_is_refused(examples, rewrites):
  with pytest.raises(ValueError, match="20 tokens, got 16"):
    train_batches(examples, 2, seed=0, length=16, rewrites=rewrites)
