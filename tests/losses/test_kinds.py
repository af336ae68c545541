"""Each kind of task has its own terms."""

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
    (TaskKind.MULTI_LABEL, "soft_cross_entropy", "one of kl, mse for"),
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
