"""Permuted classes are named, whatever the permutation."""

import itertools

import numpy as np
import pytest

from augdistill.evaluation.relabeling import relabel


def answers(rng, order, accuracy, rows, classes):
  """One-hot answers of a model whose output c means order[c], and labels."""
  true = rng.integers(0, classes, rows)
  wrong = (true + rng.integers(1, classes, rows)) % classes
  meant = np.where(rng.random(rows) < accuracy, true, wrong)
  said = np.argsort(order)[meant]
  return np.eye(classes)[said], np.eye(classes)[true]


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
@pytest.mark.parametrize(("accuracy", "rows"), [(0.9, 60), (0.6, 300)])
def test_every_permutation_of_three_classes_is_named(order, accuracy, rows):
  rng = np.random.default_rng(0)
  predictions, labels = answers(rng, order, accuracy, rows, 3)
  found = relabel(predictions, labels)
  meant = np.asarray(order)[predictions.argmax(-1)]
  accuracy = np.mean(meant == labels.argmax(-1))
  assert found.order == order
  assert found.permuted == (order != (0, 1, 2))
  assert found.permuted_accuracy == pytest.approx(accuracy)
  assert found.knows == (order == (0, 1, 2))


@pytest.mark.parametrize("seed", range(20))
def test_random_permutations_of_77_classes_are_named(seed):
  rng = np.random.default_rng(seed)
  order = rng.permutation(77)
  found = relabel(*answers(rng, order, 0.85, 1000, 77))
  assert found.permuted
  assert found.order == tuple(order.tolist())
  assert found.permuted_accuracy > 0.75


def test_two_exchanged_classes_of_77_are_named():
  rng = np.random.default_rng(0)
  order = np.arange(77)
  order[[5, 40]] = 40, 5
  predictions, labels = answers(rng, order, 0.85, 3000, 77)
  found = relabel(predictions, labels)
  assert found.order == tuple(order.tolist())
  # Two classes of 77 are 2 % of the rows: nothing that ruins a student.
  assert not found.permuted


@pytest.mark.parametrize("classes", [2, 3, 77])
def test_a_good_model_is_not_permuted(classes):
  for seed in range(20):
    rng = np.random.default_rng(seed)
    found = relabel(*answers(rng, np.arange(classes), 0.8, 500, classes))
    assert found.knows
    assert not found.permuted
    assert found.order == tuple(range(classes))


@pytest.mark.parametrize("classes", [2, 3, 77])
def test_a_model_that_knows_nothing_is_not_permuted(classes):
  for seed in range(50):
    rng = np.random.default_rng(seed)
    labels = np.eye(classes)[rng.integers(0, classes, 400)]
    guesses = np.eye(classes)[rng.integers(0, classes, 400)]
    constant = np.eye(classes)[np.zeros(400, int)]
    for predictions in (guesses, constant):
      found = relabel(predictions, labels)
      assert not found.permuted
      assert not found.knows


def test_the_most_frequent_class_is_what_chance_has():
  labels = np.eye(3)[[0] * 70 + [1] * 20 + [2] * 10]
  found = relabel(np.eye(3)[[0] * 100], labels)
  assert found.accuracy == found.chance == 0.7
  assert not found.knows
  assert found.order == (0, 1, 2)


def test_one_class_alone_and_no_row():
  found = relabel(np.eye(2)[[0] * 5], np.eye(2)[[0] * 5])
  assert (found.accuracy, found.chance) == (1.0, 1.0)
  assert not found.knows
  assert not found.permuted
  with pytest.raises(ValueError, match="a row"):
    relabel(np.zeros((0, 2)), np.zeros((0, 2)))
