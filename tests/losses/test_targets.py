"""Targets that depend on the copy, or are the student's own answers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.errors import UsageError
from augdistill.losses import targets, terms
from augdistill.types import TaskKind
from tests import toy
from tests.reference import losses as reference

SHAPE = (3, 4, 5)  # [n, M, C]; copy 0 is the original where that matters.
CLEAN = (1, *SHAPE[1:])
CLASSES, REGRESSION, MULTI_LABEL = (
  TaskKind.CLASSES,
  TaskKind.REGRESSION,
  TaskKind.MULTI_LABEL,
)
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def draw(shape, seed):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


STUDENT, TEACHER = draw(SHAPE, 0), draw(SHAPE, 1)
OWN, TEACHER_CLEAN = draw(CLEAN, 2), draw(CLEAN, 3)
LABEL = np.eye(SHAPE[-1], dtype=np.float32)[
  np.random.default_rng(4).integers(0, SHAPE[-1], SHAPE[:-1])
]


def binary_soft_cross_entropy(student, teacher):
  p = np.exp(reference.log_sigmoid(teacher))
  return reference.binary_cross_entropy(student, p)


CROSS_ENTROPY = {
  CLASSES: reference.soft_cross_entropy,
  MULTI_LABEL: binary_soft_cross_entropy,
  REGRESSION: reference.mse,
}


# --- label_or_teacher


@pytest.fixture
def hard(make_outputs, make_view):
  """(student, teacher, label=LABEL, has_label=None) -> losses [n, M]."""
  term = targets.label_or_teacher(
    terms.cross_entropy(), terms.soft_cross_entropy()
  )

  def hard(student, teacher, label=LABEL, has_label=None):
    return term(
      make_outputs(student),
      None if teacher is None else make_outputs(teacher),
      make_view(SHAPE[:-1], label=label, has_label=has_label),
      None,
      None,
    )

  return hard


def test_the_original_has_its_label_and_the_other_copies_the_teacher(hard):
  got = hard(STUDENT, TEACHER)
  np.testing.assert_allclose(
    got[0], reference.cross_entropy(STUDENT[0], LABEL[0]), **CLOSE
  )
  np.testing.assert_allclose(
    got[1:], reference.soft_cross_entropy(STUDENT[1:], TEACHER[1:]), **CLOSE
  )


def test_labels_of_the_copies_and_the_teachers_original_are_not_read(hard):
  expected = hard(STUDENT, TEACHER)
  label, teacher = LABEL.copy(), TEACHER.copy()
  label[1:], teacher[0] = LABEL[1:, :, ::-1], 3.0
  np.testing.assert_array_equal(hard(STUDENT, teacher, label), expected)


def test_an_original_without_a_label_has_the_teachers_answer(hard):
  label, has_label = LABEL.copy(), np.ones(SHAPE[:-1], bool)
  label[0, 1], has_label[0, 1] = np.nan, False
  got = hard(STUDENT, TEACHER, label, has_label)
  expected = np.array(hard(STUDENT, TEACHER))
  expected[0, 1] = reference.soft_cross_entropy(STUDENT, TEACHER)[0, 1]
  np.testing.assert_allclose(got, expected, **CLOSE)


def test_each_copy_pulls_the_student_to_its_own_target(hard):
  gradient = jax.jit(jax.grad(lambda s: jnp.sum(hard(s, TEACHER))))(STUDENT)
  q = np.exp(reference.log_softmax(STUDENT))
  p = np.exp(reference.log_softmax(TEACHER))
  np.testing.assert_allclose(gradient[0], (q - LABEL)[0], rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(gradient[1:], (q - p)[1:], rtol=1e-4, atol=1e-6)


def test_without_a_teacher_or_labels_there_is_no_such_target(hard):
  with pytest.raises(UsageError, match="needs a teacher, got None"):
    hard(STUDENT, None)
  with pytest.raises(UsageError, match="needs a view with labels, got None"):
    hard(STUDENT, TEACHER, None)


# --- consistency


@pytest.fixture
def soft(make_outputs, make_view, make_clean, make_live_models):
  """(kind, student, own, teacher, teacher_clean, live=) -> losses [n, M]."""

  def soft(kind, student, own, teacher, teacher_clean, live=False):
    # The answer that must not be read is far away.
    old, new = (own + 9, own) if live else (own, own + 9)
    return targets.consistency(kind, live)(
      make_outputs(student),
      None if teacher is None else make_outputs(teacher),
      make_view(np.shape(student)[:-1]),
      make_clean(old, teacher_clean),
      make_live_models(new),
    )

  return soft


def replaced_by_definition(kind, own, of_z, of_x):
  """Where the teacher's answer takes the place of the student's own."""
  replaced = np.zeros(of_z.shape, bool)
  for z, i, c in np.ndindex(of_z.shape):
    if kind == CLASSES:
      replaced[z, i, c] = np.argmax(of_z[z, i]) != np.argmax(of_x[0, i])
    elif kind == MULTI_LABEL:
      replaced[z, i, c] = (of_z[z, i, c] > 0) != (of_x[0, i, c] > 0)
    else:
      replaced[z, i, c] = abs(of_z[z, i, c] - own[0, i, c]) > 0.5
  return replaced


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("kind", TaskKind)
def test_the_target_is_the_own_answer_unless_the_meaning_changed(
  soft, kind, live
):
  replaced = replaced_by_definition(kind, OWN, TEACHER, TEACHER_CLEAN)
  assert 0 < np.mean(replaced) < 1
  target = np.where(replaced, TEACHER, OWN)
  got = soft(kind, STUDENT, OWN, TEACHER, TEACHER_CLEAN, live)
  expected = CROSS_ENTROPY[kind](STUDENT, target)
  np.testing.assert_allclose(got, expected, **CLOSE)


@pytest.mark.parametrize("kind", TaskKind)
@pytest.mark.parametrize("missing", ["the view's", "the clean", "both"])
def test_without_a_teachers_answer_the_own_one_always_stands(
  soft, kind, missing
):
  teacher = None if missing != "the clean" else TEACHER
  teacher_clean = None if missing != "the view's" else TEACHER_CLEAN
  got = soft(kind, STUDENT, OWN, teacher, teacher_clean)
  expected = CROSS_ENTROPY[kind](STUDENT, np.broadcast_to(OWN, SHAPE))
  np.testing.assert_allclose(got, expected, **CLOSE)


def test_a_class_is_replaced_with_all_its_row_and_a_name_alone(soft):
  of_x = np.array([[[2.0, 1.0, -1.0]]], np.float32)
  of_z = np.array([[[1.0, 2.0, -1.0]]], np.float32)  # another class, same names
  student, own = draw((1, 1, 3), 5), draw((1, 1, 3), 6)
  got = soft(CLASSES, student, own, of_z, of_x)
  expected = reference.soft_cross_entropy(student, of_z)
  np.testing.assert_allclose(got, expected, **CLOSE)
  got = soft(MULTI_LABEL, student, own, of_z, of_x)
  np.testing.assert_allclose(
    got, binary_soft_cross_entropy(student, own), **CLOSE
  )
  of_z[0, 0, 2] = 0.5  # one name more
  own_and_one = np.append(own[..., :2], of_z[..., 2:], axis=-1)
  got = soft(MULTI_LABEL, student, own, of_z, of_x)
  np.testing.assert_allclose(
    got, binary_soft_cross_entropy(student, own_and_one), **CLOSE
  )


def test_an_own_value_stands_within_a_half_of_the_teachers(soft):
  of_z = np.float32([[[3.5], [2.5], [3.51], [2.49]]])
  student = np.zeros((1, 4, 1), np.float32)
  own = np.full((1, 4, 1), 3.0, np.float32)
  # What the teacher says of x does not matter.
  for of_x in (of_z, of_z + 9):
    got = soft(REGRESSION, student, own, of_z, of_x)
    np.testing.assert_allclose(got, [[9.0, 9.0, 3.51**2, 2.49**2]], rtol=1e-5)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("kind", TaskKind)
def test_only_a_live_answer_learns_and_only_where_it_stands(soft, kind, live):
  def total(own, teacher, teacher_clean):
    return jnp.sum(soft(kind, STUDENT, own, teacher, teacher_clean, live))

  gradient, *of_teacher = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(
    OWN, TEACHER, TEACHER_CLEAN
  )
  for nothing in of_teacher:
    np.testing.assert_array_equal(nothing, 0.0)
  stands = ~replaced_by_definition(kind, OWN, TEACHER, TEACHER_CLEAN)
  learns = np.any(stands, axis=0, keepdims=True)
  assert not np.all(learns)
  np.testing.assert_array_equal(gradient != 0, learns if live else False)


# --- smoothness


@pytest.mark.parametrize("kind", TaskKind)
def test_smoothness_is_the_sum_of_both_directions(
  make_outputs, make_view, make_clean, make_live_models, kind
):
  got = targets.smoothness(kind)(
    make_outputs(STUDENT),
    make_outputs(TEACHER),
    make_view(SHAPE[:-1]),
    make_clean(OWN + 9, TEACHER_CLEAN),
    make_live_models(OWN),
  )
  own = np.broadcast_to(OWN, SHAPE)
  kl = {CLASSES: reference.kl, MULTI_LABEL: reference.binary_kl}.get(kind)
  if kl:
    expected = kl(STUDENT, own) + kl(own, STUDENT)
  else:
    expected = reference.mse(STUDENT, own)
  np.testing.assert_allclose(got, expected, **CLOSE)
  assert np.all(got > 0)


# --- both, with a student that has parameters


def toy_loss(term, params, batch):
  """The term on the clean batch as view, in a model with these parameters.

  No teacher is asked, so that the own answer stands.
  """
  models = toy.make_models()
  clean = toy.clean_of(models, batch)
  clean = clean._replace(student=jax.lax.stop_gradient(clean.student))
  outputs = toy.STUDENT.forward(params, clean.view.student)
  live = models._replace(student_params=params)
  return term(outputs, None, clean.view, clean, live)


@pytest.mark.parametrize("kind", TaskKind)
def test_a_copy_that_changes_nothing_is_smooth_and_stays_where_it_is(kind):
  batch = jax.tree.map(jnp.asarray, toy.make_batch())

  @jax.jit
  @jax.grad
  def pull(params):
    losses = toy_loss(targets.smoothness(kind), params, batch)
    return jnp.sum(losses)

  losses = toy_loss(targets.smoothness(kind), toy.STUDENT_PARAMS, batch)
  np.testing.assert_allclose(losses, 0.0, atol=1e-12)
  for gradient in jax.tree.leaves(pull(toy.STUDENT_PARAMS)):
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


@pytest.mark.parametrize("kind", TaskKind)
def test_a_live_answer_is_that_of_the_parameters_at_hand(kind):
  batch = jax.tree.map(jnp.asarray, toy.make_batch())
  moved = jax.tree.map(lambda x: 1.5 * x, toy.STUDENT_PARAMS)
  now = toy_loss(targets.consistency(kind, live=True), moved, batch)
  before = toy_loss(targets.consistency(kind), moved, batch)
  outputs = toy.STUDENT.forward(moved, toy.clean_view(batch).student).logits
  clean = toy.clean_of(toy.make_models(), batch).student.logits
  expected = functools.partial(CROSS_ENTROPY[kind], np.float64(outputs))
  np.testing.assert_allclose(now, expected(np.float64(outputs)), **CLOSE)
  np.testing.assert_allclose(before, expected(np.float64(clean)), **CLOSE)
  assert not np.allclose(now, before)


ALL = {
  "consistency": targets.consistency(CLASSES),
  "live consistency": targets.consistency(CLASSES, live=True),
  "smoothness": targets.smoothness(CLASSES),
}


@pytest.mark.parametrize("name", ALL)
def test_without_a_clean_batch_there_is_nothing_to_be_consistent_with(
  make_outputs, make_view, models, name
):
  arguments = (make_outputs(STUDENT), None, make_view(SHAPE[:-1]), None, models)
  with pytest.raises(UsageError, match=f"{name.split()[-1]} compares .* clean"):
    ALL[name](*arguments)


@pytest.mark.parametrize("name", ALL)
def test_rows_that_are_not_those_of_the_clean_batch_are_an_error(
  make_outputs, make_view, make_clean, make_live_models, name
):
  with pytest.raises(UsageError, match="got 4 rows of a view and 7 clean ones"):
    ALL[name](
      make_outputs(STUDENT),
      None,
      make_view(SHAPE[:-1]),
      make_clean(draw((1, 7, 5), 0)),
      make_live_models(draw((1, 7, 5), 0)),
    )


@pytest.mark.parametrize("name", ALL)
def test_points_of_a_whole_batch_have_no_clean_text_though_they_be_as_many(
  make_outputs, make_view, make_clean, make_live_models, name
):
  with pytest.raises(UsageError, match="which points of a whole batch do not"):
    ALL[name](
      make_outputs(STUDENT),
      None,
      make_view(SHAPE[:-1], label_vectors=STUDENT),
      make_clean(OWN),
      make_live_models(OWN),
    )
