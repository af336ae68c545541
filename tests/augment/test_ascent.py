"""Ascents in the space of embeddings, against closed forms and by hand."""

import dataclasses
import functools
import types

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.augment.adversarial import perturb_at_random
from augdistill.augment.ascent import (
  ascend_freely,
  ascend_from_noise,
  ascend_in_ball,
)
from augdistill.augment.methods import RECIPES
from augdistill.augment.offsets import by_largest, by_norm, offset_unit
from augdistill.augment.projection import project_to_tokens, projected
from augdistill.losses.reweight import mean
from augdistill.losses.terms import cross_entropy, kl, mse
from augdistill.types import Inputs, Method, WeightedView
from tests import toy
from tests.training.toy_step import assert_close, gradients

# Many closed forms, each compiled on its own; the contract of all views and
# every method's step are always run.
pytestmark = pytest.mark.slow

BATCH = toy.make_batch()
PLACED = jax.tree.map(jnp.asarray, BATCH)
REAL = BATCH.weight > 0
SCALE = np.asarray(toy.STUDENT_PARAMS["table"], np.float64)[
  toy.LEXICON.producible
].std()


def smoothness():
  """KL both ways between the student's answer and its clean one."""

  def term(student, teacher, view, clean, models):
    del teacher, view, models
    p = jax.nn.log_softmax(student.logits)
    q = jax.nn.log_softmax(jax.lax.stop_gradient(clean.student.logits))
    return jnp.sum((jnp.exp(p) - jnp.exp(q)) * (p - q), axis=-1)

  return term


TEMPERATURE = 2.0
ROLES = {
  "teacher": kl(TEMPERATURE),
  "label": cross_entropy(),
  "smoothness": smoothness(),
}


def norms(offset):
  """The l2 norm of each example's whole offset: [..., L, D] -> [...]."""
  return np.sqrt((np.asarray(offset, np.float64) ** 2).sum((-2, -1)))


# What a relative l2 size of 1 is: a typical embedding's norm.
UNIT = SCALE * np.sqrt(6)
LENGTHS = BATCH.mask.sum(-1)


@functools.cache
def compiled(maker, clean=True, student=toy.STUDENT):
  """(key, batch, params, teacher's params) -> view, offsets."""

  @jax.jit
  def make(key, batch, params, teacher_params):
    models = toy.make_models(params, teacher_params)
    models = models._replace(student=student)
    known = toy.clean_of(models, batch) if clean else None
    view = maker.make(key, batch, known, models, jnp.int32(0))
    words = params["table"][batch.tokens][None]
    return view, view.student.embeddings - words

  return make


def made(
  maker,
  seed=0,
  batch=BATCH,
  params=toy.STUDENT_PARAMS,
  teacher_params=toy.TEACHER_PARAMS,
  clean=True,
  student=toy.STUDENT,
):
  view, offset = compiled(maker, clean, student)(
    jax.random.key(seed), batch, params, teacher_params
  )
  return types.SimpleNamespace(
    view=view,
    offset=np.asarray(offset),
    stats={k: float(a) / float(b) for k, (a, b) in view.stats.items()},
  )


def offsets_of(*makers, batch=PLACED):
  """The offsets that several makers make, from one compilation."""

  @jax.jit
  def make(key):
    models = toy.make_models()
    clean = toy.clean_of(models, batch)
    words = toy.STUDENT_PARAMS["table"][batch.tokens][None]
    return [
      maker.make(key, batch, clean, models, jnp.int32(0)).student.embeddings
      - words
      for maker in makers
    ]

  return [np.asarray(offset) for offset in make(jax.random.key(0))]


def logits_at(offset):
  words = toy.STUDENT_PARAMS["table"][PLACED.tokens][None] + offset
  inputs = Inputs(mask=PLACED.mask[None], embeddings=words)
  return toy.STUDENT.forward(toy.STUDENT_PARAMS, inputs).logits


def losses_at(offset, target):
  """Each row's target by the textbook, at an offset f[1, B, L, D]."""
  logits = logits_at(offset)
  if target == "label":
    cross = -jnp.sum(PLACED.label[None] * jax.nn.log_softmax(logits), -1)
    return jnp.where(PLACED.has_label[None], cross, 0.0)
  if target == "smoothness":
    p, q = jax.nn.softmax(logits), jax.nn.softmax(logits_at(0.0))
    return jnp.sum(p * jnp.log(p / q) + q * jnp.log(q / p), -1)
  inputs = Inputs(mask=PLACED.mask[None], tokens=PLACED.tokens[None])
  answers = toy.TEACHER.forward(toy.TEACHER_PARAMS, inputs).logits
  p = jax.nn.softmax(answers / TEMPERATURE)
  q = jax.nn.softmax(logits / TEMPERATURE)
  return TEMPERATURE**2 * jnp.sum(p * jnp.log(p / q), -1)


@functools.cache
def gradient_of(target):
  return jax.jit(jax.grad(lambda x: jnp.sum(losses_at(x, target))))


def gradient_at(offset, target):
  """The gradient of each row's own target: f64[B, L, D]."""
  offset = jnp.asarray(offset, jnp.float32)[None]
  return np.asarray(gradient_of(target)(offset)[0], np.float64)


def unit_vector(gradient):
  size = norms(gradient)[:, None, None]
  return gradient / np.where(size > 0, size, 1.0)


def into_ball(offset, radius):
  size = norms(offset)
  return (
    offset * np.minimum(1.0, radius / np.maximum(size, 1e-30))[:, None, None]
  )


ZERO = np.zeros((toy.ROWS, toy.LENGTH, 6))


# -- The ball -----------------------------------------------------------------

BALLS = {
  "one step": (ascend_in_ball(ROLES, epsilon=0.3), "l2", 0.3),
  "long steps": (ascend_in_ball(ROLES, 3, 0.3, 5.0), "l2", 0.3),
  "short steps": (ascend_in_ball(ROLES, 3, 0.3, 0.07), "l2", 0.3),
  "signs": (ascend_in_ball(ROLES, 2, 0.3, 1.0, norm="linf"), "linf", 0.3),
  "freely": (ascend_freely(ROLES, 3, 0.3, 0.8), "l2", 0.3),
  "from noise": (ascend_from_noise(ROLES, 2, 0.3), "linf", 0.3),
  "at random": (perturb_at_random(0.3), "l2", 0.3),
}


@pytest.mark.parametrize("name", BALLS)
@hypothesis.given(
  seed=st.integers(0, 2**31 - 1), log_scale=st.floats(-3.0, 2.0)
)
@hypothesis.settings(max_examples=25, deadline=None)
def test_no_offset_leaves_its_ball(name, seed, log_scale):
  maker, norm, epsilon = BALLS[name]
  rng = np.random.default_rng(seed)
  params = [
    jax.tree.map(
      lambda x: (10.0**log_scale * rng.normal(size=x.shape)).astype(np.float32),
      its,
    )
    for its in (toy.STUDENT_PARAMS, toy.TEACHER_PARAMS)
  ]
  batch = toy.make_batch(seed)
  view, offset = compiled(maker)(jax.random.key(seed), batch, *params)
  offset = np.asarray(offset, np.float64)
  assert np.isfinite(offset).all()
  assert (offset[:, ~batch.mask] == 0).all()
  if log_scale > 0.5:
    # Answers are so sharp that gradients are what rounding leaves, and the
    # emitters of these tests compute a gradient once for its norm and once
    # more, otherwise rounded, for the quotient. The default ones do not.
    return
  table = np.asarray(params[0]["table"], np.float64)
  scale = table[toy.LEXICON.producible].std()
  # What is measured is a sum minus a summand: rounded like the sum.
  slack = 1e-5 * epsilon + 1e-6 * np.abs(table).max() / scale
  if norm == "l2":
    assert (norms(offset) <= (epsilon + slack) * scale * np.sqrt(6)).all()
  else:
    assert np.abs(offset).max() <= (epsilon + slack) * scale
  total, weight = view.stats["norm"]
  assert float(total) <= (epsilon + 1e-5) * float(weight)


LINEAR = toy.network(emb_dim=6, linear=True)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize(
  "factory",
  [
    lambda relative: ascend_in_ball(ROLES, 2, 0.3, 0.2, relative=relative),
    lambda relative: ascend_in_ball(
      ROLES, 2, 0.3, 0.2, norm="linf", relative=relative
    ),
    lambda relative: ascend_freely(ROLES, 2, 0.3, 0.2, relative=relative),
    lambda relative: ascend_from_noise(
      ROLES, 1, 0.3, 0.2, 0.1, relative=relative
    ),
    lambda relative: perturb_at_random(0.3, relative),
  ],
)
def test_ten_times_the_table_gives_ten_times_a_relative_offset(
  factory, relative
):
  maker = factory(relative)
  # A student that answers the same, ten times further out.
  params = {
    "table": 10 * toy.STUDENT_PARAMS["table"],
    "w": toy.STUDENT_PARAMS["w"] / 10,
  }
  one = made(maker, student=LINEAR)
  ten = made(maker, student=LINEAR, params=params)
  assert np.abs(one.offset).max() > 0.1
  factor = 10.0 if relative else 1.0
  if relative:
    np.testing.assert_allclose(
      ten.offset, factor * one.offset, rtol=1e-3, atol=1e-4
    )
    assert ten.stats["norm"] == pytest.approx(one.stats["norm"], rel=1e-4)
  else:
    assert np.abs(ten.offset).max() < 2 * np.abs(one.offset).max()


@pytest.mark.parametrize("relative", [True, False])
def test_a_relative_size_is_in_norms_of_embeddings_however_long_a_text(
  relative,
):
  ascent, noise, signs = offsets_of(
    ascend_in_ball(ROLES, epsilon=0.3, relative=relative),
    perturb_at_random(0.3, relative),
    ascend_in_ball(ROLES, epsilon=0.3, norm="linf", relative=relative),
  )
  for offset in (ascent, noise):
    expected = 0.3 * (UNIT if relative else 1.0)
    np.testing.assert_allclose(norms(offset[0]), expected, rtol=1e-5)
  entries = 0.3 * (SCALE if relative else 1.0) * np.sqrt(6 * LENGTHS)
  np.testing.assert_allclose(norms(signs[0]), entries, rtol=1e-5)


def test_a_typical_embedding_has_norm_one():
  rng = np.random.default_rng(0)
  table = 0.05 * rng.normal(size=(toy.VOCAB, 300)).astype(np.float32)
  models = toy.make_models(toy.STUDENT_PARAMS | {"table": jnp.asarray(table)})
  typical = np.linalg.norm(table[toy.LEXICON.producible], axis=-1).mean()
  assert float(offset_unit(models, "l2", True)) == pytest.approx(
    typical, rel=0.02
  )
  assert float(offset_unit(models, "linf", True)) == pytest.approx(
    0.05, rel=0.02
  )
  for norm in ("l2", "linf"):
    assert float(offset_unit(models, norm, False)) == 1.0


# -- One step, K steps --------------------------------------------------------


@pytest.mark.parametrize("target", ["teacher", "label"])
@pytest.mark.parametrize("relative", [True, False])
def test_one_step_goes_to_the_boundary_along_the_gradient(target, relative):
  made_ = made(
    ascend_in_ball(ROLES, epsilon=0.4, relative=relative, target=target)
  )
  radius = 0.4 * (UNIT if relative else 1.0)
  expected = radius * unit_vector(gradient_at(ZERO, target))
  np.testing.assert_allclose(made_.offset[0], expected, rtol=1e-4, atol=1e-5)


def test_a_short_step_does_not_reach_the_boundary():
  it = made(ascend_in_ball(ROLES, epsilon=0.4, step_size=0.1))
  expected = 0.1 * UNIT * unit_vector(gradient_at(ZERO, "teacher"))
  np.testing.assert_allclose(it.offset[0], expected, rtol=1e-4, atol=1e-5)
  assert it.stats["norm"] == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("relative", [True, False])
def test_in_the_linf_ball_a_step_is_the_sign(relative):
  maker = ascend_in_ball(ROLES, epsilon=0.4, norm="linf", relative=relative)
  it, gradient = made(maker), gradient_at(ZERO, "teacher")
  size = 0.4 * (SCALE if relative else 1.0)
  clear = np.abs(gradient) > 1e-6
  assert clear.sum() > 0.9 * BATCH.mask.sum() * 6
  np.testing.assert_allclose(
    it.offset[0][clear], size * np.sign(gradient)[clear], rtol=1e-4
  )
  assert (np.abs(it.offset[0]) <= size * 1.0001).all()
  assert it.stats["norm"] == pytest.approx(0.4, rel=1e-5)


@pytest.mark.parametrize("step_size", [0.1, 0.7])
def test_k_steps_are_steps_and_projections_by_hand(step_size):
  """Long steps leave the ball each time, short ones never."""
  maker = ascend_in_ball(ROLES, 3, 0.4, step_size)
  offset = ZERO
  for _ in range(3):
    way = unit_vector(gradient_at(offset, "teacher"))
    offset = into_ball(offset + step_size * UNIT * way, 0.4 * UNIT)
  np.testing.assert_allclose(
    made(maker).offset[0], offset, rtol=1e-3, atol=1e-4
  )


def test_k_signed_steps_are_clipped_to_the_box():
  maker = ascend_in_ball(ROLES, 3, 0.4, 0.25, norm="linf")
  offset = ZERO
  for _ in range(3):
    way = np.sign(gradient_at(offset, "teacher"))
    offset = np.clip(offset + 0.25 * SCALE * way, -0.4 * SCALE, 0.4 * SCALE)
  got = made(maker).offset[0]
  near = np.isclose(got, offset, rtol=1e-3, atol=1e-4)
  assert near.mean() > 0.99  # A sign may flip where the gradient vanishes.


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_more_steps_climb_higher(norm):
  climbs = [
    ascend_in_ball(ROLES, steps, 1.0, 0.1, norm=norm) for steps in (1, 2, 4, 8)
  ]
  *climbed, noise = offsets_of(*climbs, perturb_at_random(1.0))
  losses = jax.jit(lambda x: losses_at(x, "teacher")[0])
  heights = np.stack([losses(x) for x in (ZERO[None], *climbed)])[:, REAL]
  assert (np.diff(heights, axis=0) > 0).all()
  assert (heights[-1] > losses(noise)[REAL]).all()


def test_the_first_step_runs_no_model():
  runs = []

  def forward(params, inputs, *, key=None):
    runs.append(key)
    return toy.STUDENT.forward(params, inputs)

  def count(maker):
    models = toy.make_models()
    clean = toy.clean_of(models, PLACED)
    runs.clear()
    models = models._replace(
      student=dataclasses.replace(toy.STUDENT, forward=forward),
      teacher=dataclasses.replace(toy.TEACHER, forward=forward),
      student_key=jax.random.key(1),
    )
    jax.eval_shape(
      lambda key: (
        maker.make(key, PLACED, clean, models, jnp.int32(0)).student.embeddings
      ),
      jax.random.key(0),
    )
    return runs

  assert count(ascend_in_ball(ROLES)) == []
  assert count(perturb_at_random()) == []
  # A loop is traced once. The steps do not drop out: their key is None.
  for maker in (
    ascend_in_ball(ROLES, 3),
    ascend_freely(ROLES, 3),
    ascend_from_noise(ROLES, 2),
  ):
    assert set(count(maker)) == {None}


def test_the_first_step_climbs_what_the_clean_batch_ran():
  """Here another linearisation than that of the student as it is."""
  models = toy.make_models()
  clean = toy.clean_of(models, PLACED)
  flipped = clean._replace(pull_back=lambda g: -3.0 * clean.pull_back(g))
  maker = ascend_in_ball(ROLES, epsilon=0.4)
  one, other = (
    maker.make(jax.random.key(0), PLACED, c, models, jnp.int32(0))
    for c in (clean, flipped)
  )
  words = toy.STUDENT_PARAMS["table"][BATCH.tokens][None]
  np.testing.assert_allclose(
    other.student.embeddings - words,
    words - one.student.embeddings,
    rtol=1e-3,
    atol=1e-5,
  )


# -- Rows that have nothing to climb ------------------------------------------


def test_a_row_without_a_gradient_stays_where_it_is():
  it = made(ascend_in_ball(ROLES, 3, 0.4, target="label"))
  still = norms(it.offset[0]) == 0
  np.testing.assert_array_equal(still, ~BATCH.has_label)
  # A teacher that the student equals already.
  twin = toy.make_models()._replace(
    teacher=toy.STUDENT, teacher_params=toy.STUDENT_PARAMS
  )
  clean = toy.clean_of(twin, PLACED)
  answers = jax.tree.map(lambda x: x, clean.student)
  clean = clean._replace(teacher=answers)
  roles = {"teacher": mse()}
  for norm in ("l2", "linf"):
    maker = ascend_in_ball(roles, 1, 0.4, norm=norm)
    view = maker.make(jax.random.key(0), PLACED, clean, twin, jnp.int32(0))
    np.testing.assert_array_equal(
      view.student.embeddings[0], toy.STUDENT_PARAMS["table"][BATCH.tokens]
    )
    assert float(view.stats["norm"][0]) == 0.0


def test_a_direction_is_found_for_gradients_of_any_size():
  rows = np.random.default_rng(0).normal(size=(1, 6, 3, 4)).astype(np.float32)
  sizes = np.float32([1.0, 1e30, 1e-30, 0.0, np.inf, np.nan])
  rows *= np.abs(sizes[None, :, None, None])
  rows[0, 4] = np.inf  # All of them: no sum of two makes it a NaN.
  unit, scaled = (
    np.asarray(f(jnp.asarray(rows))) for f in (by_norm, by_largest)
  )
  np.testing.assert_allclose(norms(unit[0]), [1, 1, 1, 0, 0, 0], rtol=1e-5)
  # Some processors divide by multiplying with a rounded reciprocal.
  np.testing.assert_allclose(
    np.abs(scaled[0]).max((-2, -1)), [1, 1, 1, 0, 0, 0], rtol=1e-6
  )
  np.testing.assert_allclose(
    scaled[0, :3] * np.abs(rows[0, :3]).max((-2, -1), keepdims=True),
    rows[0, :3],
    rtol=1e-5,
  )


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize(
  "maker",
  [
    ascend_in_ball({"teacher": mse()}, 2, 0.3),
    ascend_in_ball({"teacher": mse()}, 2, 0.3, norm="linf"),
    ascend_freely({"teacher": mse()}, 2, 0.3),
  ],
)
def test_a_row_whose_target_explodes_neither_explodes_nor_moves_others(
  maker, bad
):
  def make(key, value):
    models = toy.make_models()
    clean = toy.clean_of(models, PLACED)
    logits = clean.teacher.logits.at[0, 4].set(value)
    clean = clean._replace(teacher=clean.teacher._replace(logits=logits))
    view = maker.make(key, PLACED, clean, models, jnp.int32(0))
    return view.student.embeddings

  make = jax.jit(make)
  fine, other = (make(jax.random.key(0), v) for v in (0.0, bad))
  assert np.isfinite(other).all()
  rows = np.arange(toy.ROWS) != 4
  np.testing.assert_array_equal(fine[:, rows], other[:, rows])
  assert not np.array_equal(fine[:, ~rows], other[:, ~rows])


@pytest.mark.parametrize(
  "maker",
  [
    ascend_in_ball(ROLES, 2, 0.3),
    ascend_freely(ROLES, 2, 0.3),
    ascend_from_noise(ROLES, 1, 0.3),
    perturb_at_random(0.3),
  ],
)
def test_an_offset_depends_on_its_own_row_alone(maker):
  """Not on the batch's size, nor on a weight, nor on another row."""
  rows = np.array([4, 0])
  few = toy.take_rows(BATCH, rows)
  few = few._replace(weight=np.array([1.0, 0.5], np.float32))
  np.testing.assert_allclose(
    made(maker, batch=few).offset,
    made(maker).offset[:, rows],
    rtol=1e-4,
    atol=1e-5,
  )


# -- Targets ------------------------------------------------------------------


@pytest.mark.parametrize("factory", [ascend_in_ball, ascend_freely])
def test_the_target_is_the_teacher_where_there_is_one(factory):
  both = {"teacher": kl(TEMPERATURE), "label": cross_entropy()}
  default, teacher, label, alone = offsets_of(
    factory(both, 2, 0.4),
    factory(both, 2, 0.4, target="teacher"),
    factory(both, 2, 0.4, target="label"),
    factory({"label": cross_entropy()}, 2, 0.4),
  )
  np.testing.assert_array_equal(default, teacher)
  np.testing.assert_array_equal(alone, label)
  assert np.abs(teacher - label).max() > 0.1


# -- At random ----------------------------------------------------------------


def test_random_directions_are_fair_and_belong_to_their_examples():
  maker = perturb_at_random(0.3)
  offsets = np.concatenate([made(maker, seed).offset for seed in range(40)])
  assert (offsets[:, ~BATCH.mask] == 0).all()
  offsets = offsets * np.sqrt(6 * LENGTHS)[:, None, None] / (0.3 * UNIT)
  entries = offsets[:, BATCH.mask]
  assert abs(entries.mean()) < 0.02
  assert entries.var() == pytest.approx(1.0, abs=0.02)
  # Each way as often: a sign alone has no such tail.
  assert np.abs(entries).max() > 2.5
  np.testing.assert_allclose(
    offsets[:, 1, 0] / norms(offsets[:, 1, :1])[:, None],
    offsets[:, 3, 0] / norms(offsets[:, 3, :1])[:, None],
    rtol=1e-4,
  )
  assert np.abs(offsets[:, 1, 0] - offsets[:, 4, 0]).max() > 0.1


# -- FreeLB -------------------------------------------------------------------


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("clean", [True, False])
def test_freelbs_copies_are_the_path_of_its_climb(relative, clean):
  maker = ascend_freely(ROLES, 3, 0.4, 0.3, relative=relative)
  it = made(maker, clean=clean)
  assert it.offset.shape == (3, toy.ROWS, toy.LENGTH, 6)
  unit = UNIT if relative else 1.0
  offset = it.offset[0].astype(np.float64)
  for copy in (1, 2):
    way = unit_vector(gradient_at(offset, "teacher"))
    offset = into_ball(offset + 0.3 * unit * way, 0.4 * unit)
    np.testing.assert_allclose(it.offset[copy], offset, rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(norms(offset)[REAL], 0.4 * unit, rtol=1e-4)


@pytest.mark.parametrize("relative", [True, False])
def test_freelb_starts_anywhere_in_a_cube_within_its_ball(relative):
  maker = ascend_freely(ROLES, 1, 0.4, relative=relative)
  offsets = np.concatenate([made(maker, seed).offset for seed in range(40)])
  assert offsets.shape == (40, toy.ROWS, toy.LENGTH, 6)
  side = 0.4 * (UNIT if relative else 1.0) / np.sqrt(6 * LENGTHS)
  entries = (offsets / side[:, None, None])[:, BATCH.mask]
  assert np.abs(entries).max() <= 1.0001
  assert abs(entries.mean()) < 0.02
  assert entries.var() == pytest.approx(1 / 3, abs=0.01)


def test_freelbs_step_reaches_over_the_ball_in_k_steps():
  one, other = offsets_of(
    ascend_freely(ROLES, 3, 0.3), ascend_freely(ROLES, 3, 0.3, 0.1)
  )
  np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_freelb_needs_neither_a_clean_batch_nor_a_teacher():
  maker = ascend_freely({"label": cross_entropy()}, 2, 0.4)
  (offset,) = offsets_of(maker)
  assert not maker.needs_clean
  models = toy.make_models()._replace(teacher=None, teacher_params=None)

  @jax.jit
  def make(key):
    return maker.make(key, PLACED, None, models, jnp.int32(0))

  view = make(jax.random.key(0))
  assert view.teacher is None
  words = toy.STUDENT_PARAMS["table"][PLACED.tokens][None]
  np.testing.assert_allclose(
    view.student.embeddings - words, offset, rtol=1e-5, atol=1e-6
  )


# -- SMART --------------------------------------------------------------------


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize(("steps", "step_size"), [(1, 0.5), (2, 0.3)])
def test_smart_climbs_from_noise_by_the_largest_entry(
  relative, steps, step_size
):
  maker = ascend_from_noise(ROLES, steps, 0.4, step_size, 0.2, relative)
  # No step at all, and a ball that holds the noise, show where it starts.
  start = made(ascend_from_noise(ROLES, 1, 99.0, 0.0, 0.2, relative)).offset[0]
  offset, unit = start.astype(np.float64), SCALE if relative else 1.0
  for _ in range(steps):
    gradient = gradient_at(offset, "smoothness")
    way = gradient / np.abs(gradient).max((-2, -1), keepdims=True)
    offset = np.clip(offset + step_size * unit * way, -0.4 * unit, 0.4 * unit)
  np.testing.assert_allclose(
    made(maker).offset[0], offset, rtol=1e-3, atol=1e-4
  )
  assert not np.allclose(offset, start, atol=0.1)


def test_smarts_noise_is_normal_with_its_own_deviation():
  maker = ascend_from_noise(ROLES, 1, 99.0, 0.0, 0.2)
  offsets = np.concatenate([made(maker, seed).offset for seed in range(40)])
  entries = offsets[:, BATCH.mask] / (0.2 * SCALE)
  assert abs(entries.mean()) < 0.02
  assert entries.var() == pytest.approx(1.0, abs=0.03)
  assert np.abs(entries).max() > 3


def test_smart_goes_nowhere_without_noise():
  """The divergence from the clean answer has its minimum there."""
  roles = {"smoothness": smoothness()}
  it = made(ascend_from_noise(roles, 3, 0.4, sigma=0.0))
  np.testing.assert_array_equal(it.offset, 0.0)


# -- The view -----------------------------------------------------------------

MAKERS = [
  ascend_in_ball(ROLES, 1, 0.3),
  ascend_in_ball(ROLES, 2, 0.3, norm="linf"),
  ascend_freely(ROLES, 2, 0.3),
  ascend_from_noise(ROLES, 1, 0.3),
  perturb_at_random(0.3),
]


@pytest.mark.parametrize("maker", MAKERS)
def test_label_and_answers_are_those_of_the_clean_text(maker):
  view = made(maker).view
  inputs = Inputs(mask=PLACED.mask[None], tokens=PLACED.tokens[None])
  answers = toy.TEACHER.forward(toy.TEACHER_PARAMS, inputs)
  for copy in range(view.weight.shape[0]):
    np.testing.assert_allclose(
      view.teacher.logits[copy], answers.logits[0], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(view.label[copy], BATCH.label)


@pytest.mark.parametrize("maker", MAKERS)
def test_embeddings_are_live_and_the_offset_is_a_constant(maker):
  def total(params):
    models = toy.make_models(params)
    clean = toy.clean_of(models, PLACED)
    view = maker.make(jax.random.key(0), PLACED, clean, models, jnp.int32(0))
    words = jnp.where(
      view.student.mask[..., None], view.student.embeddings, 0.0
    )
    return jnp.sum(words), view.weight.shape[0]

  grads, copies = jax.jit(jax.grad(total, has_aux=True))(toy.STUDENT_PARAMS)
  count = np.bincount(BATCH.tokens[BATCH.mask], minlength=toy.VOCAB)
  expected = np.tile(int(copies) * count[:, None], (1, 6))
  np.testing.assert_allclose(grads["table"], expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(grads["w"], 0.0)


@pytest.mark.parametrize(
  ("maker", "with_teacher"),
  [
    *((maker, True) for maker in MAKERS),
    (ascend_in_ball({"label": cross_entropy()}, 2, 0.3), False),
    (ascend_freely({"label": cross_entropy()}, 2, 0.3), False),
    (perturb_at_random(0.3), False),
  ],
)
def test_every_ascent_works_in_bfloat16(maker, with_teacher):
  half = toy.network(emb_dim=6, dtype=jnp.bfloat16)
  models = toy.make_models()._replace(student=half)
  if not with_teacher:
    models = models._replace(teacher=None, teacher_params=None)

  @jax.jit
  def make(key):
    clean = toy.clean_of(models, PLACED)
    view = maker.make(key, PLACED, clean, models, jnp.int32(0))
    return view.student.embeddings, view.stats["norm"]

  embeddings, (total, weight) = make(jax.random.key(0))
  assert embeddings.dtype == jnp.bfloat16
  # The table in single precision; a few bits are lost in between.
  single, full = made(maker).view.student.embeddings, embeddings
  wrong = np.abs(np.asarray(full, np.float32) - single) > 0.05
  assert wrong.mean() < 0.05
  # The sum with the words is rounded to 8 bits, so the offset that arrives is.
  assert 0 < float(total) <= 0.303 * float(weight)


# -- The share of tokens replaced ---------------------------------------------


@pytest.mark.parametrize(
  "maker",
  [
    ascend_in_ball(ROLES, epsilon=2.5),
    ascend_freely(ROLES, 2, 3.0),
    perturb_at_random(3.0),
  ],
)
def test_the_sampled_share_of_replaced_tokens_is_that_of_all(maker):
  @jax.jit
  def stats_of(key):
    models = toy.make_models()
    clean = toy.clean_of(models, PLACED)
    whole = project_to_tokens(maker)
    return whole.make(key, PLACED, clean, models, jnp.int32(0)).stats

  shares = []
  for seed in range(80):
    stats = stats_of(jax.random.key(seed))
    (changed, free), (replaced, counted) = stats["changed"], stats["replaced"]
    assert float(free) == float(counted)
    shares.append((float(changed / free), float(replaced / counted)))
  exact, sampled = np.mean(shares, axis=0)
  assert 0.1 < exact < 0.9
  assert sampled == pytest.approx(exact, abs=0.05)
  # A sample, not all of them: that is why it costs little.
  assert any(a != b for a, b in shares)


def test_no_token_is_replaced_by_a_small_offset_and_most_by_a_large_one():
  @jax.jit
  def shares(key):
    models = toy.make_models()
    clean = toy.clean_of(models, PLACED)
    views = [
      perturb_at_random(epsilon).make(key, PLACED, clean, models, jnp.int32(0))
      for epsilon in (0.0, 0.01, 50.0)
    ]
    return [
      total / weight for total, weight in (v.stats["replaced"] for v in views)
    ]

  none, few, most = shares(jax.random.key(0))
  assert none == few == 0.0
  assert most > 0.5


# -- In the step --------------------------------------------------------------


MAKERS_BY_NAME = {
  "ad2": (ascend_in_ball(ROLES, 2, 0.3), "teacher"),
  "freelb": (ascend_freely(ROLES, 2, 0.3), "teacher"),
  "smart": (ascend_from_noise(ROLES, 1, 0.3), "smoothness"),
  "noise": (perturb_at_random(0.3), "teacher"),
}


def method_of(*names):
  clean = (("label", 1.0, ROLES["label"]), ("kl", 1.0, ROLES["teacher"]))
  views = []
  for name in names:
    maker, role = MAKERS_BY_NAME[name]
    views.append(WeightedView(name, maker, ((role, 1.0, ROLES[role]),), mean()))
  base = WeightedView("clean", None, clean, mean())
  return Method("+".join(names), base, tuple(views))


def test_microbatches_make_the_same_ascents():
  method = method_of(*MAKERS_BY_NAME)
  grads, metrics = gradients(method)
  others, same = gradients(method, num_microbatches=4)
  assert_close(others, grads, rtol=1e-4, atol=1e-5)
  assert_close(same, metrics, rtol=1e-4, atol=1e-5)
  for name in MAKERS_BY_NAME:
    assert {f"{name}/norm", f"{name}/replaced"} <= metrics.keys()


def test_a_view_is_learnt_from_where_its_ascent_ended():
  """The step's gradient is that of the losses at the fixed offset."""
  grads, metrics = gradients(method_of("ad2"))
  offset = made(ascend_in_ball(ROLES, 2, 0.3)).offset

  def loss(params):
    words = params["table"][BATCH.tokens][None]
    total = 0.0
    for moved, names in ((words, ("label", "teacher")), (words + offset, "t")):
      inputs = Inputs(mask=PLACED.mask[None], embeddings=moved)
      logits = toy.STUDENT.forward(params, inputs).logits
      answers = toy.TEACHER.forward(
        toy.TEACHER_PARAMS,
        Inputs(mask=PLACED.mask[None], tokens=PLACED.tokens[None]),
      ).logits
      p = jax.nn.softmax(answers / TEMPERATURE)
      q = jax.nn.log_softmax(logits / TEMPERATURE)
      rows = TEMPERATURE**2 * jnp.sum(p * (jnp.log(p) - q), -1)
      if "label" in names:
        cross = -jnp.sum(PLACED.label[None] * jax.nn.log_softmax(logits), -1)
        rows += jnp.where(PLACED.has_label[None], cross, 0.0)
      total += jnp.sum(PLACED.weight[None] * rows)
    return total / BATCH.weight.sum()

  value, expected = jax.jit(jax.value_and_grad(loss))(toy.STUDENT_PARAMS)
  assert_close(grads, expected, rtol=1e-3, atol=1e-4)
  total, weight = metrics["loss"]
  assert float(total / weight) == pytest.approx(float(value), rel=1e-4)


def test_projected_is_the_projection_of_the_view_it_is_given():
  maker = ascend_in_ball(ROLES, epsilon=4.0)
  models, key = toy.make_models(), jax.random.key(0)
  clean = toy.clean_of(models, PLACED)
  one, other = (
    wrap(maker).make(key, PLACED, clean, models, jnp.int32(0)).student.tokens
    for wrap in (lambda m: projected(view=m), project_to_tokens)
  )
  np.testing.assert_array_equal(one, other)
  assert (one[0] != BATCH.tokens).any()
  assert projected(view=maker).needs_clean


# -- What cannot be -----------------------------------------------------------


@pytest.mark.parametrize(
  ("factory", "arguments", "message"),
  [
    (ascend_in_ball, {"steps": 0}, "steps must be at least 1, got 0"),
    (ascend_freely, {"steps": 0}, "steps must be at least 1, got 0"),
    (ascend_from_noise, {"steps": -1}, "steps must be at least 1, got -1"),
    (
      ascend_in_ball,
      {"epsilon": -0.1},
      "epsilon must be a number >= 0, got -0.1",
    ),
    (
      ascend_freely,
      {"epsilon": float("inf")},
      "epsilon must be a number >= 0, got inf",
    ),
    (
      ascend_from_noise,
      {"epsilon": float("nan")},
      "epsilon must be a number >= 0, got nan",
    ),
    (
      ascend_in_ball,
      {"step_size": -1.0},
      "step_size must be a number >= 0, got -1.0",
    ),
    (
      ascend_freely,
      {"step_size": -1.0},
      "step_size must be a number >= 0, got -1.0",
    ),
    (
      ascend_from_noise,
      {"step_size": float("inf")},
      "step_size must be a number >= 0, got inf",
    ),
    (
      ascend_from_noise,
      {"sigma": -1.0},
      "sigma must be a number >= 0, got -1.0",
    ),
    (
      ascend_in_ball,
      {"norm": "l1"},
      "norm must be one of l2, linf, got 'l1'",
    ),
    (
      ascend_in_ball,
      {"target": "smoothness"},
      "target must be teacher or label, got 'smoothness'",
    ),
    (
      ascend_in_ball,
      {"target": "teacher", "roles": {"label": cross_entropy()}},
      "the method must have a term of role 'teacher' to climb, got label",
    ),
    (
      ascend_freely,
      {"roles": {}},
      "the method must have a term of role 'label' to climb, got none",
    ),
    (
      ascend_from_noise,
      {"roles": {"label": cross_entropy(), "teacher": mse()}},
      "the method must have a term of role 'smoothness' to climb, got label, "
      "teacher",
    ),
  ],
)
def test_factories_reject_what_cannot_be(factory, arguments, message):
  with pytest.raises(ValueError) as error:
    factory(**{"roles": ROLES} | arguments)
  assert str(error.value) == message


@pytest.mark.parametrize("epsilon", [-1.0, float("inf"), float("nan")])
def test_the_control_rejects_what_is_no_size(epsilon):
  with pytest.raises(ValueError, match="epsilon must be a number >= 0, got"):
    perturb_at_random(epsilon)


def test_the_recipes_are_these_factories():
  factories = {
    "ad2": (ascend_in_ball, ("teacher",)),
    "freelb": (ascend_freely, ("teacher",)),
    "smart": (ascend_from_noise, ("smoothness",)),
    "noise": (perturb_at_random, ("teacher",)),
    "projected": (projected, ("teacher",)),
  }
  for name, recipe in factories.items():
    assert (RECIPES[name].make, RECIPES[name].with_teacher) == recipe
