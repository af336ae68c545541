"""Which rows a step trains on."""

import collections

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from augdistill.data.draws import permutation
from augdistill.data.plan import evaluation_rows, rows_at


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
  assert set(rows[weight == 0]) <= {0}
