"""Each kind of task has its own terms."""

import functools

import numpy as np
import pytest

from augdistill.errors import UsageError
from augdistill.losses import kinds
from augdistill.types import TaskKind
from tests.reference import losses as reference

SHAPE = (1, 3, 4)


@pytest.fixture
def rows():
  rng = np.random.default_rng(0)
  student, teacher = np.float32(rng.normal(size=(2, *SHAPE)))
  return student, teacher, np.float32(rng.integers(0, 2, SHAPE))


@pytest.mark.parametrize(
  ("kind", "name"),
  [
    (TaskKind.CLASSES, "cross_entropy"),
    (TaskKind.REGRESSION, "mse"),
    (TaskKind.MULTI_LABEL, "binary_cross_entropy"),
  ],
)
def test_the_label_is_compared_as_its_kind_asks(evaluate, rows, kind, name):
  student, _, label = rows
  got = evaluate(kinds.label_term(kind), student, label=label)
  expected = getattr(reference, name)(student, label)
  np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize(
  ("kind", "name", "reported", "expected"),
  [
    (TaskKind.CLASSES, None, "kl", "kl"),
    (TaskKind.CLASSES, "kl", "kl", "kl"),
    (
      TaskKind.CLASSES,
      "soft_cross_entropy",
      "soft_cross_entropy",
      "soft_cross_entropy",
    ),
    (TaskKind.CLASSES, "mse", "mse", "mse"),
    (TaskKind.REGRESSION, None, "mse", "mse"),
    (TaskKind.MULTI_LABEL, None, "kl", "binary_kl"),
    (TaskKind.MULTI_LABEL, "mse", "mse", "mse"),
  ],
)
def test_the_teacher_is_compared_as_its_kind_asks(
  evaluate, rows, kind, name, reported, expected
):
  student, teacher, _ = rows
  temperature = () if expected == "mse" else (2.0,)
  got_name, term = kinds.distance_term(kind, name, *temperature)
  assert got_name == reported
  np.testing.assert_allclose(
    evaluate(term, student, teacher),
    getattr(reference, expected)(student, teacher, *temperature),
    rtol=1e-4,
  )


@pytest.mark.parametrize(
  ("kind", "name", "message"),
  [
    (TaskKind.CLASSES, "lk", "kl, soft_cross_entropy, mse for .* classes, got"),
    (TaskKind.CLASSES, "mes", "Did you mean 'mse'"),
    (TaskKind.REGRESSION, "kl", "one of mse for .* regression, got 'kl'"),
    (TaskKind.MULTI_LABEL, "ce", "one of kl, soft_cross_entropy, mse for"),
  ],
)
def test_a_distance_that_the_kind_does_not_have_is_an_error(
  kind, name, message
):
  with pytest.raises(UsageError, match=message):
    kinds.distance_term(kind, name)


def test_a_wrong_temperature_is_an_error_here_too():
  with pytest.raises(ValueError, match="temperature"):
    kinds.distance_term(TaskKind.CLASSES, "kl", 0.0)


@pytest.mark.parametrize(
  ("kind", "name"), [("classes", "mse"), ("regression", None)]
)
def test_a_temperature_that_would_do_nothing_is_refused(kind, name):
  with pytest.raises(UsageError, match=r"no temperature, got temperature=4\.0"):
    kinds.distance_term(TaskKind(kind), name, 4.0)


def test_coins_have_a_soft_cross_entropy_of_the_same_name(evaluate, rows):
  student, teacher, _ = rows
  name, term = kinds.distance_term(
    TaskKind.MULTI_LABEL, "soft_cross_entropy", 2.0
  )
  assert name == "soft_cross_entropy"
  p = np.exp(reference.log_sigmoid(teacher / 2))
  expected = 4 * reference.binary_cross_entropy(student / 2, p)
  np.testing.assert_allclose(
    evaluate(term, student, teacher), expected, rtol=1e-5
  )


ROLES = {
  "label",
  "teacher",
  "label_or_teacher",
  "consistency",
  "live_consistency",
  "smoothness",
  "dot_product",
}


@pytest.mark.parametrize("kind", TaskKind)
def test_every_kind_has_every_role(kind):
  roles = kinds.roles_of(kind)
  # The one output of a regression has no other to point away from.
  absent = {"dot_product"} if kind == TaskKind.REGRESSION else set()
  assert set(roles) == ROLES - absent
  assert {name for name, role in roles.items() if role.needs_teacher} == {
    "teacher",
    "label_or_teacher",
  }
  assert {name for name, role in roles.items() if role.needs_clean} == {
    "consistency",
    "live_consistency",
    "smoothness",
  }
  for name, role in roles.items():
    assert role.reported == name or name == "teacher"
  assert roles["teacher"].reported == kinds.distance_term(kind)[0]


@pytest.mark.parametrize("kind", TaskKind)
def test_a_role_is_its_term(
  make_outputs, make_view, make_clean, make_live_models, rows, kind
):
  student, teacher, label = rows
  before, now = np.float32(np.random.default_rng(1).normal(size=(2, *SHAPE)))
  roles = kinds.roles_of(kind, "mse")

  def losses(role, models=None, **more):
    return roles[role].term(
      make_outputs(student),
      make_outputs(teacher),
      make_view(SHAPE[:-1], label=label, **more),
      make_clean(before),
      models or make_live_models(now),
    )

  close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
  close(losses("label"), label_reference(kind)(student, label))
  close(losses("teacher"), reference.mse(student, teacher))
  # One copy, which is the original.
  close(losses("label_or_teacher"), losses("label"))
  if kind != TaskKind.REGRESSION:
    dots = losses("dot_product", label_vectors=label)
    close(dots, -np.sum(student * label, axis=-1))
  soft = answer_reference(kind)
  close(losses("consistency"), soft(student, before))
  close(losses("live_consistency"), soft(student, now))
  assert np.all(losses("smoothness") > 0)
  same = losses("smoothness", models=make_live_models(student))
  np.testing.assert_array_equal(same, 0.0)


def label_reference(kind):
  return {
    TaskKind.CLASSES: reference.cross_entropy,
    TaskKind.REGRESSION: reference.mse,
    TaskKind.MULTI_LABEL: reference.binary_cross_entropy,
  }[kind]


def answer_reference(kind):
  """Cross entropy with an answer as target."""
  if kind == TaskKind.MULTI_LABEL:
    return lambda s, t: reference.binary_cross_entropy(
      s, np.exp(reference.log_sigmoid(t))
    )
  return {
    TaskKind.CLASSES: reference.soft_cross_entropy,
    TaskKind.REGRESSION: reference.mse,
  }[kind]


@pytest.mark.parametrize("kind", TaskKind)
def test_the_copies_of_one_example_compete_in_one_unit(
  make_outputs, make_view, rows, kind
):
  """Whatever the distance and its temperature."""
  student, teacher, label = (np.repeat(x, 2, axis=0) for x in rows)
  distance = () if kind == "regression" else ("kl", 3.0)
  term = kinds.roles_of(kind, *distance)["label_or_teacher"].term
  view = make_view((2, 3), label=label)
  got = term(make_outputs(student), make_outputs(teacher), view, None, None)
  expected = [
    label_reference(kind)(student[0], label[0]),
    answer_reference(kind)(student[1], teacher[1]),
  ]
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_role_has_the_distance_and_the_temperature_that_were_asked_for(
  evaluate, rows
):
  student, teacher, _ = rows
  role = kinds.roles_of(TaskKind.CLASSES, "soft_cross_entropy", 2.0)["teacher"]
  assert role.reported == "soft_cross_entropy"
  np.testing.assert_allclose(
    evaluate(role.term, student, teacher),
    reference.soft_cross_entropy(student, teacher, 2.0),
    rtol=1e-5,
  )
  with pytest.raises(UsageError, match="distance must be one of"):
    kinds.roles_of(TaskKind.REGRESSION, "kl")
