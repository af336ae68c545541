"""The few shapes in which texts are labelled."""

import numpy as np
import pytest

from augdistill.data.shapes import (
  Shape,
  next_batch,
  padded_batch,
  shapes_up_to,
)

LENGTHS = [1, 16, 17, 40, 64, 3, 64, 16]


def test_lengths_double_up_to_the_models_own():
  found = {n: {s.length for s in shapes_up_to(n, (1,))} for n in (5, 16, 77)}
  assert found == {5: {8}, 16: {16}, 77: {16, 32, 64, 80}}


def test_no_batch_has_more_positions_than_it_may():
  found = shapes_up_to(512, (1, 8, 64), 8192)
  assert len(found) == len(set(found)) == 18
  assert max(shape.rows * shape.length for shape in found) == 8192
  assert found[-3:] == ((1, 512), (8, 512), (16, 512))
  assert shapes_up_to(512, (8,), 100)[-1] == (1, 512)


def test_the_row_that_waits_longest_goes_with_those_of_its_length():
  shapes = shapes_up_to(64, (1, 4))
  rows, shape = next_batch(np.array(LENGTHS), shapes)
  np.testing.assert_array_equal(rows, [0, 1, 5, 7])
  assert shape == (4, 16)
  rows, shape = next_batch(np.array(LENGTHS[3:]), shapes)
  np.testing.assert_array_equal(rows, [0, 1, 3])
  assert shape == (4, 64)


@pytest.mark.parametrize(
  "waiting, size",
  [(1, 1), (3, 1), (4, 8), (8, 8), (31, 8), (32, 64), (64, 64), (200, 64)],
)
def test_rows_fill_a_shape_at_least_half(waiting, size):
  shapes = shapes_up_to(16, (1, 8, 64))
  rows, shape = next_batch(np.full(waiting, 5), shapes)
  assert shape == (size, 16)
  np.testing.assert_array_equal(rows, np.arange(min(waiting, size)))


def test_too_few_rows_take_the_smallest_shape():
  rows, shape = next_batch(np.array([5]), shapes_up_to(16, (16, 256)))
  assert (rows.tolist(), shape) == ([0], (16, 16))


def test_what_only_fills_a_batch_weighs_nothing_and_has_a_token():
  rows = [np.array([7, 8, 9], np.int32), np.array([5], np.int32)]
  batch = padded_batch(rows, Shape(3, 8), 2)
  assert batch.tokens.tolist() == [[7, 8, 9] + [0] * 5, [5] + [0] * 7, [0] * 8]
  assert batch.mask.sum(axis=-1).tolist() == [3, 1, 1]
  assert batch.mask[:, 0].all()
  assert batch.weight.tolist() == [1, 1, 0]
  assert batch.label.shape == (3, 2)
  assert not batch.has_label.any()
