"""From un-reduced terms to one sum: what counts, and how much."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.losses import objective, terms
from augdistill.losses.reweight import maximal_expected_loss, mean
from augdistill.training.schedules import ramp
from augdistill.types import WeightedView
from tests.reference import losses as reference

SHAPE = (2, 4, 3)  # [n, M, C]
STEP = jnp.int32(5)
WEIGHT = np.array([[1, 1, 0, 1], [1, 0.5, 0, 0]], np.float32)


def weighted_view(*terms, weight=1.0):
  return WeightedView("view", None, terms, mean(), weight)


@pytest.fixture
def rows():
  """Logits of student and teacher, and labels."""
  rng = np.random.default_rng(0)
  student, teacher = np.float32(rng.normal(size=(2, *SHAPE)))
  label = np.float32(rng.dirichlet(np.ones(3), SHAPE[:-1]))
  return student, teacher, label


@pytest.fixture
def add_up(make_outputs, make_view, models):
  """(weighted, student, teacher, **view) -> summand's total and metrics."""

  @functools.partial(jax.jit, static_argnums=0)
  def add_up(weighted, student, teacher, **view):
    return objective.summand(
      weighted,
      make_outputs(student),
      make_outputs(teacher),
      make_view(student.shape[:-1], **view),
      None,
      models,
      STEP,
    )

  return add_up


def test_a_number_and_a_schedule_are_read_alike():
  for value in (2.0, lambda step: step.astype(jnp.float32) - 3.0):
    got = objective.at(value, STEP)
    assert got.dtype == jnp.float32 and got == 2.0


def test_a_summand_is_its_formula(add_up, rows):
  student, teacher, label = rows
  weighted = weighted_view(
    ("label", 0.25, terms.cross_entropy()),
    ("kl", ramp(0.0, 1.0, 10), terms.kl(2.0)),
    weight=ramp(3.0, 1.0, 10),
  )
  total, metrics = add_up(
    weighted, student, teacher, label=label, weight=WEIGHT
  )
  ce = reference.cross_entropy(student, label)
  kl = reference.kl(student, teacher, 2.0)
  # At step 5 of 10 the coefficient of kl is 0.5 and the view's weight is 2.
  copies = np.maximum(np.sum(WEIGHT > 0, axis=0), 1)
  expected = 2.0 * np.sum(WEIGHT * (0.25 * ce + 0.5 * kl) / copies)
  np.testing.assert_allclose(total, expected, rtol=1e-5)
  for name, values in (("view/label", ce), ("view/kl", kl)):
    got, weight = metrics[name]
    np.testing.assert_allclose(got, np.sum(WEIGHT * values), rtol=1e-5)
    assert weight == np.sum(WEIGHT)
    np.testing.assert_allclose(
      got / weight, reference.masked_mean(values, WEIGHT), rtol=1e-5
    )


@pytest.mark.parametrize("garbage", [1e30, np.inf, np.nan])
def test_a_row_of_weight_0_counts_for_nothing_whatever_it_holds(
  add_up, rows, garbage
):
  student, teacher, label = rows
  weighted = weighted_view(
    ("label", 1.0, terms.cross_entropy()), ("mse", 1.0, terms.mse())
  )

  @jax.jit
  def pull(student, teacher):
    def loss(student):
      return add_up(weighted, student, teacher, label=label, weight=WEIGHT)

    return jax.value_and_grad(loss, has_aux=True)(student)

  expected, expected_gradient = pull(student, teacher)
  student, teacher = student.copy(), teacher.copy()
  student[WEIGHT == 0] = garbage
  teacher[WEIGHT == 0] = -garbage
  got, gradient = pull(student, teacher)
  jax.tree.map(np.testing.assert_array_equal, got, expected)
  np.testing.assert_array_equal(
    gradient[WEIGHT > 0], expected_gradient[WEIGHT > 0]
  )
  assert np.all(expected_gradient[WEIGHT == 0] == 0)


def test_sums_of_parts_of_a_batch_are_the_sum_of_the_batch(add_up, rows):
  student, teacher, label = rows
  weighted = weighted_view(("kl", 1.0, terms.kl()))
  whole = add_up(weighted, student, teacher, label=label, weight=WEIGHT)
  parts = [
    add_up(
      weighted,
      student[:, s],
      teacher[:, s],
      label=label[:, s],
      weight=WEIGHT[:, s],
    )
    for s in (slice(0, 1), slice(1, 4))
  ]
  summed = jax.tree.map(jnp.add, *parts)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), summed, whole
  )


def test_copies_share_the_weight_of_their_example(add_up, rows):
  student, teacher, _ = rows
  weighted = weighted_view(("kl", 1.0, terms.kl()))
  once, _ = add_up(weighted, student[:1], teacher[:1])
  thrice, _ = add_up(
    weighted, np.repeat(student[:1], 3, 0), np.repeat(teacher[:1], 3, 0)
  )
  np.testing.assert_allclose(thrice, once, rtol=1e-6)


def test_a_row_without_a_label_is_not_counted_as_near_to_it(add_up, rows):
  student, teacher, label = rows
  weighted = weighted_view(("label", 1.0, terms.cross_entropy()))
  some = np.array([[True, False, True, False]] * 2)
  total, metrics = add_up(
    weighted, student, teacher, label=label, has_label=some
  )
  got, count = metrics["view/label"]
  log_q = jax.nn.log_softmax(jnp.asarray(student))
  distances = -jnp.sum(jnp.asarray(label) * log_q, axis=-1)[some]
  np.testing.assert_allclose(got, jnp.sum(distances), rtol=1e-6)
  assert count == 4
  np.testing.assert_allclose(total, got / 2, rtol=1e-6)  # Two copies of each.


def test_statistics_of_a_view_are_reported_under_its_name(add_up, rows):
  student, teacher, _ = rows
  stats = {"changed": (jnp.float32(3), jnp.float32(4))}
  total, metrics = add_up(weighted_view(), student, teacher, stats=stats)
  assert total == 0
  assert metrics == {"view/changed": stats["changed"]}


def test_the_mean_of_copies_weighs_each_row(make_view):
  losses = np.float32([[1, 2, 3, 4], [5, 6, 7, 8]])
  got = mean()(jnp.asarray(losses), make_view((2, 4), weight=WEIGHT))
  np.testing.assert_allclose(got, [3.0, 2.5, 0.0, 4.0], rtol=1e-6)


def test_the_mean_is_over_the_copies_that_are_there(make_view):
  weight = np.float32([[1, 1, 1], [1, 1, 0], [1, 0, 0]])
  view = make_view((3, 3), weight=weight)
  losses = jnp.full((3, 3), 2.0)
  np.testing.assert_allclose(mean()(losses, view), [2.0, 2.0, 2.0])
  # As the worst distribution is where every distribution is as bad.
  worst = maximal_expected_loss(1.0)(losses, view)
  np.testing.assert_allclose(worst, [2.0, 2.0, 2.0], rtol=1e-6)
