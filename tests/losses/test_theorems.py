"""What must hold of the terms, in float64 where a limit is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.losses import terms
from tests.reference import losses as reference

SHAPE = (1, 3, 4)
TEMPERATURES = [0.3, 1.0, 2.0, 10.0]


@pytest.fixture
def float64():
  with jax.enable_x64(True):
    yield


def logits(seed):
  rng = np.random.default_rng(seed)
  return np.float32(3 * rng.normal(size=SHAPE))


def gradient_of(evaluate, term, student, teacher):
  return jax.jit(jax.grad(lambda s: jnp.sum(evaluate(term, s, teacher))))(
    student
  )


def test_kl_goes_from_the_teacher_to_the_student(evaluate):
  even, skewed = np.log([[[0.5, 0.5]]]), np.log([[[0.75, 0.25]]])
  even, skewed = np.float32(even), np.float32(skewed)
  expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)  # KL(skewed || even)
  for term in (terms.kl(), terms.binary_kl()):
    assert not np.allclose(
      evaluate(term, skewed, even), evaluate(term, even, skewed), rtol=0.01
    )
  np.testing.assert_allclose(
    evaluate(terms.kl(), even, skewed), [[expected]], rtol=1e-5
  )


@pytest.mark.parametrize("t", TEMPERATURES)
def test_self_distillation_is_0_at_every_temperature(evaluate, t):
  same = logits(0)
  for term in (terms.kl(t), terms.binary_kl(t), terms.mse()):
    np.testing.assert_allclose(
      evaluate(term, same, same), 0.0, atol=1e-7 * max(t**2, 1)
    )
    np.testing.assert_allclose(
      gradient_of(evaluate, term, same, same), 0.0, atol=1e-6 * max(t, 1)
    )


@pytest.mark.parametrize("t", TEMPERATURES)
def test_soft_cross_entropy_is_kl_plus_the_teachers_entropy(evaluate, t):
  student, teacher = logits(0), logits(1)
  log_p = reference.log_softmax(teacher / np.float64(t))
  entropy = -np.sum(np.exp(log_p) * log_p, axis=-1)
  np.testing.assert_allclose(
    evaluate(terms.soft_cross_entropy(t), student, teacher),
    evaluate(terms.kl(t), student, teacher) + np.float32(t**2 * entropy),
    rtol=1e-5,
  )


@pytest.mark.parametrize("t", TEMPERATURES)
def test_soft_cross_entropy_and_kl_pull_the_student_alike(evaluate, t):
  student, teacher = logits(0), logits(1)
  got = [
    gradient_of(evaluate, factory(t), student, teacher)
    for factory in (terms.soft_cross_entropy, terms.kl)
  ]
  np.testing.assert_allclose(got[0], got[1], rtol=1e-4, atol=1e-6 * t)
  p = np.exp(reference.log_softmax(teacher / np.float64(t)))
  q = np.exp(reference.log_softmax(student / np.float64(t)))
  np.testing.assert_allclose(got[1], t * (q - p), rtol=1e-4, atol=1e-6 * t)


def test_kl_tends_to_half_the_variance_of_the_difference_of_logits(
  evaluate, float64
):
  student, teacher = np.float64(logits(0)), np.float64(logits(1))
  limit = 0.5 * np.var(student - teacher, axis=-1)
  errors = [
    np.max(np.abs(evaluate(terms.kl(t), student, teacher) / limit - 1))
    for t in (1e2, 1e3, 1e4)
  ]
  # The next term of the series is of order 1/t.
  assert errors[0] < 0.1 and errors[1] < 0.01 and errors[2] < 0.001


def test_binary_kl_tends_to_an_eighth_of_the_mean_squared_error(
  evaluate, float64
):
  student, teacher = np.float64(logits(0)), np.float64(logits(1))
  np.testing.assert_allclose(
    evaluate(terms.binary_kl(1e3), student, teacher),
    evaluate(terms.mse(), student, teacher) / 8,
    rtol=1e-3,
  )


@pytest.mark.parametrize("t", [1.0, 2.0])
def test_binary_kl_is_kl_between_two_classes(evaluate, t):
  student, teacher = logits(0)[..., :1], logits(1)[..., :1]

  def coin(x):
    return np.concatenate([x, np.zeros_like(x)], axis=-1)

  np.testing.assert_allclose(
    evaluate(terms.binary_kl(t), student, teacher),
    evaluate(terms.kl(t), coin(student), coin(teacher)),
    rtol=1e-5,
  )


@pytest.mark.parametrize("term", [terms.kl(), terms.soft_cross_entropy()])
def test_a_shift_of_all_logits_changes_nothing(evaluate, term):
  student, teacher = logits(0), logits(1)
  np.testing.assert_allclose(
    evaluate(term, student + np.float32(7), teacher - np.float32(5)),
    evaluate(term, student, teacher),
    rtol=1e-4,
  )


@pytest.mark.parametrize("t", [1.0, 4.0])
@pytest.mark.parametrize("name", ["kl", "soft_cross_entropy", "binary_kl"])
@pytest.mark.parametrize("never", [-np.inf, -1e30])
def test_a_class_that_the_teacher_excludes_is_finite_and_pulls_down(
  evaluate, name, t, never
):
  student, teacher = logits(0), logits(1)
  teacher[..., 0] = never
  term = getattr(terms, name)(t)
  values = evaluate(term, student, teacher)
  np.testing.assert_allclose(
    values, getattr(reference, name)(student, teacher, t), rtol=1e-5
  )
  gradient = gradient_of(evaluate, term, student, teacher)
  assert np.all(np.isfinite(gradient))
  assert np.all(gradient[..., 0] > 0)


def test_a_one_hot_label_and_a_sure_teacher_say_the_same(evaluate):
  student = logits(0)
  label = np.eye(4, dtype=np.float32)[[[0, 3, 1]]]
  sure = np.where(label > 0, np.float32(0), np.float32(-np.inf))
  expected = evaluate(terms.cross_entropy(), student, label=label)
  for term in (terms.kl(), terms.soft_cross_entropy()):
    np.testing.assert_allclose(
      evaluate(term, student, sure), expected, rtol=1e-5
    )
