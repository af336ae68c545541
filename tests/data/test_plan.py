"""Which rows a step trains on."""

import collections

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from augdistill.data.draws import permutation
from augdistill.data.plan import (
  evaluation_rows,
  rows_at,
  rows_of_similar_length_at,
)


def _rows(n, size, steps, seed=0, fingerprint="f"):
  return [rows_at(n, size, seed, fingerprint, s) for s in range(steps)]


def test_a_permutation_depends_on_its_name_alone():
  first = permutation(100, "a", 1)
  np.testing.assert_array_equal(np.sort(first), np.arange(100))
  np.testing.assert_array_equal(first, permutation(100, "a", 1))
  for other in (("a", 2), ("b", 1), ("a", "1"), ("a",), ("a1",)):
    assert (permutation(100, *other) != first).any()


def test_the_draw_is_the_same_for_ever():
  # Computed once; a change would break the resuming of runs.
  assert permutation(8, "epoch", "f", 0, 0).tolist() == [5, 1, 3, 2, 7, 4, 0, 6]


@hypothesis.given(
  n=st.integers(1, 40), size=st.integers(1, 70), seed=st.integers(0, 3)
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_no_row_is_dropped_and_none_comes_early(n, size, seed):
  stream = np.concatenate(_rows(n, size, 12, seed))
  assert len(stream) == 12 * size
  for epoch in range(len(stream) // n):
    part = stream[epoch * n : (epoch + 1) * n]
    np.testing.assert_array_equal(np.sort(part), np.arange(n))


def test_a_step_needs_no_step_before_it():
  forward = _rows(23, 5, 40)
  for step in (39, 0, 17, 4):
    np.testing.assert_array_equal(rows_at(23, 5, 0, "f", step), forward[step])


def test_epochs_seeds_and_data_have_orders_of_their_own():
  epochs = np.concatenate(_rows(64, 64, 3)).reshape(3, 64)
  others = [
    rows_at(64, 64, 1, "f", 0),
    rows_at(64, 64, 0, "g", 0),
  ]
  orders = {tuple(order) for order in (*epochs, *others)}
  assert len(orders) == 5


def test_rows_come_in_every_place_equally_often():
  # 4,000 epochs of 4 rows: each row is first 1,000 +- 27 times.
  first = collections.Counter(
    int(rows_at(4, 4, 0, "f", epoch)[0]) for epoch in range(4000)
  )
  assert set(first) == {0, 1, 2, 3}
  assert all(abs(count - 1000) < 5 * 27 for count in first.values())


@pytest.mark.parametrize(("n", "size", "batches"), [(7, 3, 3), (6, 3, 2)])
def test_evaluation_sees_each_row_once_in_order(n, size, batches):
  planned = evaluation_rows(n, size)
  assert len(planned) == batches
  rows = np.concatenate([rows for rows, _ in planned])
  weight = np.concatenate([weight for _, weight in planned])
  assert len(rows) == batches * size
  np.testing.assert_array_equal(rows[weight == 1], np.arange(n))
  assert set(rows[weight == 0]) <= {planned[-1][0][0]}


@hypothesis.given(
  n=st.integers(1, 90), size=st.integers(1, 8), seed=st.integers(0, 3)
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_pooling_by_length_trains_on_the_same_rows(n, size, seed):
  lengths = np.random.default_rng(0).integers(1, 50, n)
  window = max(1, min(8, n // (2 * size)))
  for first in range(0, 3 * window, window):
    steps = range(first, first + window)
    plain = [rows_at(n, size, seed, "f", s) for s in steps]
    pooled = [
      rows_of_similar_length_at(lengths, size, seed, "f", s) for s in steps
    ]
    assert sorted(np.concatenate(pooled)) == sorted(np.concatenate(plain))


def test_pooled_batches_have_rows_of_similar_length_in_a_random_order():
  lengths = np.random.default_rng(0).integers(1, 50, 400)
  batches = [
    lengths[rows_of_similar_length_at(lengths, 16, 0, "f", s)]
    for s in range(40)
  ]
  spread = np.mean([b.max() - b.min() for b in batches])
  assert spread < np.ptp(lengths) / 4
  longest = np.array([b.max() for b in batches]).reshape(5, 8)
  # Neither ascending nor the same in every window.
  assert len({tuple(np.argsort(w)) for w in longest}) > 3


def test_small_data_do_not_meet_their_own_repetitions():
  lengths = np.arange(1, 21)
  for step in range(30):
    rows = rows_of_similar_length_at(lengths, 10, 0, "f", step)
    assert len(set(rows)) == 10
