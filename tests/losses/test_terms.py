"""The contract that every loss term keeps, and its float64 reference."""

import functools
from typing import NamedTuple

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.errors import UsageError
from augdistill.losses import targets, terms
from augdistill.types import LossTerm, TaskKind
from tests.reference import losses as reference

SHAPE = (2, 4, 5)  # [n, M, C]


class Member(NamedTuple):
  """A term, what it compares with, and its reference (student, target).

  The target is the "label", or its "vectors" in the space of the pooled state;
  the "teacher"; or the student's own answer to the "clean" text, or the same
  "live", learning.
  """

  name: str
  term: LossTerm
  target: str
  reference: object
  scale: float = 1.0  # t^2: the size of rounding errors around 0
  divergence: bool = False
  soft: bool = False  # keeps the size of a gradient at |logits| 1e4


def binary_soft_cross_entropy(student, teacher, temperature=1.0):
  t = float(temperature)
  p = np.exp(reference.log_sigmoid(np.float64(teacher) / t))
  return t**2 * reference.binary_cross_entropy(np.float64(student) / t, p)


def both(divergence):
  """The sum of a divergence in both directions."""
  return lambda a, b: divergence(a, b) + divergence(b, a)


def _with_temperature(name, t, divergence, formula=None):
  formula = formula or getattr(reference, name)
  return Member(
    f"{name}({t})",
    getattr(terms, name)(t),
    "teacher",
    functools.partial(formula, temperature=t),
    scale=max(t**2, 1.0),
    divergence=divergence,
    soft=True,
  )


# A new term adds its line here.
TERMS = [
  Member(
    "cross_entropy",
    terms.cross_entropy(),
    "label",
    reference.cross_entropy,
    soft=True,
  ),
  Member(
    "binary_cross_entropy",
    terms.binary_cross_entropy(),
    "label",
    reference.binary_cross_entropy,
    soft=True,
  ),
  Member("squared_error", terms.squared_error(), "label", reference.mse),
  Member("mse", terms.mse(), "teacher", reference.mse, divergence=True),
  *(_with_temperature("kl", t, True) for t in (1.0, 0.5, 4.0)),
  *(_with_temperature("soft_cross_entropy", t, False) for t in (1.0, 4.0)),
  *(_with_temperature("binary_kl", t, True) for t in (1.0, 4.0)),
  *(
    _with_temperature(
      "soft_binary_cross_entropy", t, False, binary_soft_cross_entropy
    )
    for t in (1.0, 4.0)
  ),
  Member(
    "negative_dot_product",
    terms.negative_dot_product(),
    "vectors",
    lambda student, vectors: -np.sum(np.float64(student) * vectors, axis=-1),
  ),
  *(
    Member(
      f"{target} consistency of {kind}",
      targets.consistency(kind, live=target == "live"),
      target,
      formula,
      divergence=kind == TaskKind.REGRESSION,
      soft=kind != TaskKind.REGRESSION and target == "clean",
    )
    for target in ("clean", "live")
    for kind, formula in (
      (TaskKind.CLASSES, reference.soft_cross_entropy),
      (TaskKind.MULTI_LABEL, binary_soft_cross_entropy),
      (TaskKind.REGRESSION, reference.mse),
    )
  ),
  *(
    Member(
      f"smoothness of {kind}",
      targets.smoothness(kind),
      "live",
      formula,
      divergence=True,
    )
    for kind, formula in (
      (TaskKind.CLASSES, both(reference.kl)),
      (TaskKind.MULTI_LABEL, both(reference.binary_kl)),
      (TaskKind.REGRESSION, reference.mse),
    )
  ),
]
OF_LABEL = [m for m in TERMS if m.target in ("label", "vectors")]
OF_CONSTANT = [m for m in TERMS if m.target in ("teacher", "clean")]
OF_TEACHER = [m for m in TERMS if m.target == "teacher"]
LIVE = [m for m in TERMS if m.target == "live"]
DIVERGENCES = [m for m in TERMS if m.divergence]


def each(members):
  return pytest.mark.parametrize(
    "member", members, ids=[m.name for m in members]
  )


def random_pair(member, size=1.0, seed=0):
  """Student's logits and a target; labels are mixtures in [0, 1]."""
  rng = np.random.default_rng(seed)
  student = size * rng.normal(size=SHAPE)
  if member.target == "label":
    target = rng.dirichlet(np.ones(SHAPE[-1]), size=SHAPE[:-1])
  else:
    target = size * rng.normal(size=SHAPE)
  return np.float32(student), np.float32(target)


def extreme_pair(member):
  """Logits of +-1e4 and 0, with every combination of the two."""
  rng = np.random.default_rng(1)
  student = np.float32(rng.choice([-1e4, 0, 1e4], SHAPE))
  target = np.float32(rng.choice([-1e4, 0, 1e4], SHAPE))
  if member.target == "label":
    target = np.eye(SHAPE[-1], dtype=np.float32)[np.argmax(target, axis=-1)]
  return student, target


@pytest.fixture(scope="module")
def pull(make_outputs, make_view, make_clean, make_live_models):
  """(member, student, target, has_label=None) -> losses, d sum by each."""

  def arguments(kind, student, target, has_label):
    """All that a term may read; the target where it looks for it."""
    none = jnp.zeros(SHAPE)
    return (
      make_outputs(student),
      make_outputs(target) if kind == "teacher" else None,
      make_view(
        SHAPE[:-1],
        label=target if kind == "label" else None,
        has_label=has_label,
        label_vectors=target if kind == "vectors" else None,
      ),
      make_clean(target if kind == "clean" else none),
      make_live_models(target if kind == "live" else none),
    )

  @functools.cache
  def compiled(index):
    member = TERMS[index]

    def losses(student, target, has_label):
      values = member.term(
        *arguments(member.target, student, target, has_label)
      )
      return jnp.sum(values), values

    return jax.jit(jax.grad(losses, argnums=(0, 1), has_aux=True))

  def pull(member, student, target, has_label=None):
    if has_label is None:
      has_label = np.ones(SHAPE[:-1], bool)
    function = compiled([m.name for m in TERMS].index(member.name))
    (by_student, by_target), values = function(student, target, has_label)
    return np.asarray(values), np.asarray(by_student), np.asarray(by_target)

  return pull


@each(TERMS)
def test_a_term_is_that_of_the_reference(pull, member):
  for seed, size in enumerate((0.1, 1.0, 10.0)):
    student, target = random_pair(member, size, seed)
    np.testing.assert_allclose(
      pull(member, student, target)[0],
      member.reference(student, target),
      rtol=1e-5,
      atol=1e-6 * member.scale,
    )


@each(TERMS)
def test_a_term_is_not_reduced(pull, member):
  values, *_ = pull(member, *random_pair(member))
  assert values.shape == SHAPE[:-1]
  assert values.dtype == np.float32
  assert len(np.unique(values)) == values.size


@each(TERMS)
def test_a_row_of_a_term_reads_its_own_row_alone(pull, member):
  student, target = random_pair(member)
  other_student, other_target = random_pair(member, seed=9)
  before, gradient, _ = pull(member, student, target)
  other_student[1, 2], other_target[1, 2] = student[1, 2], target[1, 2]
  after, other_gradient, _ = pull(member, other_student, other_target)
  assert after[1, 2] == before[1, 2]
  np.testing.assert_array_equal(other_gradient[1, 2], gradient[1, 2])
  assert np.sum(after == before) == 1


@each(TERMS)
def test_the_gradient_of_a_term_is_that_of_the_reference(pull, member):
  student, target = random_pair(member)
  _, gradient, _ = pull(member, student, target)
  step, expected = 1e-5, np.zeros(SHAPE)
  for index in np.ndindex(SHAPE):
    moved = np.zeros(SHAPE)
    moved[index] = step
    up = member.reference(student + moved, target)
    down = member.reference(student - moved, target)
    expected[index] = np.sum(up - down) / (2 * step)
  np.testing.assert_allclose(
    gradient, expected, rtol=1e-4, atol=1e-5 * member.scale
  )


@each(TERMS)
def test_a_term_is_finite_with_finite_gradients_at_logits_of_1e4(pull, member):
  student, target = extreme_pair(member)
  values, gradient, _ = pull(member, student, target)
  np.testing.assert_allclose(
    values, member.reference(student, target), rtol=1e-4
  )
  assert np.all(np.isfinite(gradient))
  if member.soft:
    assert np.max(np.abs(gradient)) <= 1.001 * member.scale


@each(OF_LABEL)
def test_a_row_without_a_label_counts_for_nothing_whatever_stands_there(
  pull, member
):
  student, label = random_pair(member)
  expected, expected_gradient, _ = pull(member, student, label)
  has_label = np.ones(SHAPE[:-1], bool)
  has_label[0, 1] = has_label[1, 3] = False
  for nothing in (0.0, np.nan, np.inf):
    label[~has_label] = nothing
    values, gradient, _ = pull(member, student, label, has_label)
    assert np.all(values[~has_label] == 0)
    assert np.all(gradient[~has_label] == 0)
    np.testing.assert_array_equal(values[has_label], expected[has_label])
    np.testing.assert_array_equal(
      gradient[has_label], expected_gradient[has_label]
    )


@each(OF_TEACHER)
def test_a_term_of_the_teacher_needs_no_label(pull, evaluate, member):
  student, teacher = random_pair(member)
  expected, *_ = pull(member, student, teacher)
  none = np.zeros(SHAPE[:-1], bool)
  np.testing.assert_allclose(
    evaluate(member.term, student, teacher, has_label=none),
    expected,
    rtol=1e-5,
    atol=1e-6,
  )


@each(OF_CONSTANT)
def test_the_teacher_and_what_was_answered_before_are_constants(pull, member):
  _, by_student, by_target = pull(member, *random_pair(member))
  assert np.all(by_target == 0)
  assert np.all(by_student != 0)


@each(LIVE)
def test_a_live_target_learns(pull, member):
  student, target = random_pair(member)
  _, _, gradient = pull(member, student, target)
  step, expected = 1e-5, np.zeros(SHAPE)
  for index in np.ndindex(SHAPE):
    moved = np.zeros(SHAPE)
    moved[index] = step
    up = member.reference(student, target + moved)
    down = member.reference(student, target - moved)
    expected[index] = np.sum(up - down) / (2 * step)
  assert np.all(gradient != 0)
  np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


@each(DIVERGENCES)
def test_a_divergence_is_0_where_the_two_agree_and_a_minimum(pull, member):
  for size in (1.0, 100.0):
    student, _ = random_pair(member, size)
    values, gradient, _ = pull(member, student, student)
    assert np.all(values == 0)
    assert np.all(np.abs(gradient) <= 1e-6 * member.scale)


@each(DIVERGENCES)
@hypothesis.settings(deadline=None, max_examples=25, database=None)
@hypothesis.given(data=hypothesis.strategies.data())
def test_a_divergence_is_never_negative(pull, member, data):
  logits = hypothesis.extra.numpy.arrays(
    np.float32,
    SHAPE,
    elements=hypothesis.strategies.floats(-1e4, 1e4, width=32),
  )
  student, teacher = data.draw(logits), data.draw(logits)
  values, gradient, _ = pull(member, student, teacher)
  assert np.all(values >= -1e-6 * member.scale)
  assert np.all(np.isfinite(values)) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
  "factory",
  [
    terms.kl,
    terms.soft_cross_entropy,
    terms.binary_kl,
    terms.soft_binary_cross_entropy,
  ],
)
@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_positive_and_finite_is_an_error(
  factory, wrong
):
  with pytest.raises(ValueError, match=f"positive and finite, got {wrong}"):
    factory(wrong)


def test_a_view_without_label_vectors_has_no_dot_product(evaluate):
  student = np.zeros(SHAPE, np.float32)
  with pytest.raises(UsageError, match="needs a view with label vectors"):
    evaluate(terms.negative_dot_product(), student)


@pytest.mark.parametrize(
  "factory",
  [terms.cross_entropy, terms.binary_cross_entropy, terms.squared_error],
)
def test_a_view_without_a_label_is_not_compared_with_it(evaluate, factory):
  with pytest.raises(UsageError, match=r"the label .* has none"):
    evaluate(factory(), np.zeros(SHAPE, np.float32))


@pytest.mark.parametrize(
  "factory",
  [
    terms.kl,
    terms.soft_cross_entropy,
    terms.binary_kl,
    terms.soft_binary_cross_entropy,
    terms.mse,
  ],
)
def test_a_view_without_an_answer_is_not_compared_with_it(evaluate, factory):
  with pytest.raises(UsageError, match="the teacher is compared with"):
    evaluate(factory(), np.zeros(SHAPE, np.float32))
