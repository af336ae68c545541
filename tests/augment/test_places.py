"""Places drawn from those that are marked: which, how often, and none twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.augment.places import (
  below,
  draw_pairs,
  draw_places,
  place_of,
  put,
  running_count,
)

ROWS = 6000
# Stretches of three, one, two and four marks.
MARKS = np.array([int(c) for c in "0111010110001111"], bool)
LENGTH = MARKS.size


def draws(*shape, seed=0):
  return jax.random.uniform(jax.random.key(seed), (ROWS, *shape))


def drawn(function, numbers, marks=MARKS):
  each = jax.jit(jax.vmap(function, (0, None)))
  return np.asarray(each(numbers, jnp.asarray(marks)))


@pytest.mark.parametrize("marks", [MARKS, ~MARKS, MARKS & False, MARKS | True])
def test_a_mark_is_where_its_number_says(marks):
  count = running_count(jnp.asarray(marks))
  np.testing.assert_array_equal(count, np.cumsum(marks))
  numbers = jnp.arange(LENGTH + 2, dtype=jnp.int32)
  expected = np.full(LENGTH + 2, LENGTH)
  expected[: marks.sum()] = np.flatnonzero(marks)
  np.testing.assert_array_equal(place_of(count, numbers), expected)
  assert place_of(count, numbers[3]) == expected[3]


@pytest.mark.parametrize("count", [-3, 0, 1, 3, 1000, 65_536])
def test_a_number_is_below_its_count_whatever_is_drawn(count):
  # The largest number that is drawn, and what is just below a third.
  given = jnp.float32([0.0, 1 / 3, 0.5, 1 - 2**-23])
  found = np.asarray(below(given, jnp.int32(count)))
  most = max(count - 1, 0)
  assert found[0] == 0 and found[-1] == most
  assert (np.diff(found) >= 0).all() and found.max() <= most


def test_every_order_of_places_is_as_likely():
  marks = MARKS & (np.arange(LENGTH) < 6)  # 1, 2, 3 and 5
  places = drawn(draw_places, draws(2), marks)
  found, number = np.unique(places, axis=0, return_counts=True)
  assert found.tolist() == [
    [a, b] for a in (1, 2, 3, 5) for b in (1, 2, 3, 5) if a != b
  ]
  # Four standard deviations of 1 / 12.
  np.testing.assert_allclose(number / ROWS, 1 / 12, atol=0.0143)


def test_no_place_is_drawn_twice_and_then_none_is_left():
  places = np.sort(drawn(draw_places, draws(LENGTH)), axis=-1)
  rest = LENGTH - MARKS.sum()
  expected = [*np.flatnonzero(MARKS), *[LENGTH] * rest]
  np.testing.assert_array_equal(places, [expected] * ROWS)


def pairs_of(numbers, marks=MARKS):
  pairs = drawn(draw_pairs, numbers, marks)
  return [[tuple(sorted(p)) for p in row] for row in pairs.tolist()]


def test_pairs_are_of_one_stretch_until_no_stretch_has_two():
  # Of stretches of three, one, two and four: one, none, one and two.
  stretch = np.cumsum(~MARKS)
  for row in pairs_of(draws(6, 2)):
    found = [pair for pair in row if pair != (LENGTH, LENGTH)]
    assert row[len(found) :] == [(LENGTH, LENGTH)] * 2
    places = [place for pair in found for place in pair]
    assert len(set(places)) == len(places) == 8
    assert MARKS[places].all()
    assert all(stretch[a] == stretch[b] for a, b in found)
    assert sorted(stretch[a] for a, _ in found) == sorted(
      stretch[[1, 7, 12, 12]]
    )


def test_the_first_of_a_pair_is_any_with_a_mate_and_the_second_any_mate():
  first = np.array([row[0] for row in drawn(draw_pairs, draws(1, 2))])
  chance = np.zeros((LENGTH, LENGTH))
  for stretch in ([1, 2, 3], [7, 8], [12, 13, 14, 15]):
    for a in stretch:
      for b in stretch:
        chance[a, b] = (a != b) / 9 / (len(stretch) - 1)
  number = np.zeros((LENGTH, LENGTH))
  np.add.at(number, tuple(first.T), 1)
  # Four standard deviations of 1 / 9.
  np.testing.assert_allclose(number / ROWS, chance, atol=0.0163)
  assert not number[chance == 0].any()


def test_of_the_second_pair_too_every_one_is_as_likely():
  # Five in one stretch: once a pair is gone, one of three is left over.
  marks = np.array([False, True, True, True, True, True, False])
  second = [row[1] for row in pairs_of(draws(2, 2), marks)]
  number = [second.count((a, b)) for a in range(1, 6) for b in range(a + 1, 6)]
  assert sum(number) == ROWS
  # Four standard deviations of 1 / 10.
  np.testing.assert_allclose(np.array(number) / ROWS, 0.1, atol=0.0155)


@pytest.mark.parametrize("length", [0, 1, 5])
def test_padding_moves_nothing(length):
  padded = np.append(MARKS, np.zeros(length, bool))
  for function, numbers in (
    (draw_places, draws(LENGTH)),
    (draw_pairs, draws(6, 2)),
  ):
    found, expected = (
      drawn(function, numbers, marks) for marks in (padded, MARKS)
    )
    inside = expected < LENGTH
    np.testing.assert_array_equal(found < len(padded), inside)
    np.testing.assert_array_equal(found[inside], expected[inside])


def test_what_is_put_past_the_end_is_put_nowhere():
  row, places = jnp.arange(5, dtype=jnp.int32), jnp.int32([3, 5, 0, 7])
  got = put(row, places, jnp.int32([30, 50, 10, 70]))
  assert got.tolist() == [10, 1, 2, 30, 4]
  assert put(row, places[:0], places[:0]).tolist() == row.tolist()
