"""Views that mix rows inside the networks, against the NumPy references."""

import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.augment.batch_mixing import mix_batch
from augdistill.augment.hidden_mixing import (
  mix_hidden,
  mix_pooled,
  mix_pooled_per_dimension,
)
from augdistill.augment.mixing import gather_partners
from augdistill.errors import UsageError
from augdistill.models.enct5 import enct5
from augdistill.types import Inputs
from tests import encoders, toy
from tests.reference import batch_mixup as batch_reference
from tests.reference import hidden_mixing as reference

PARTNER = np.array([1, 2, 4, 3, 6, 5, 0, 7], np.int32)
MATES = jnp.asarray(PARTNER)[None]
BATCH = jax.tree.map(jnp.asarray, toy.make_batch())
REAL = np.asarray(BATCH.weight) > 0


def close(got, expected):
  np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)


# Once each, since every maker is compiled.
HIDDEN, POOLED = mix_hidden(lam=0.3), mix_pooled(lam=0.25)
PER_DIMENSION = mix_pooled_per_dimension(alpha=0.7)

NETWORKS = {
  "student": (encoders.STUDENT, encoders.STUDENT_PARAMS),
  "teacher": (encoders.TEACHER, encoders.TEACHER_PARAMS),
}


def view_of(maker, models=None):
  batch = gather_partners(BATCH, MATES) if maker.partners else BATCH
  models = models or encoders.models()
  return maker.make(jax.random.key(0), batch, None, models, jnp.int32(0))


def seen(maker, read=lambda view: view):
  """What is read of a view; nothing else of it is compiled."""
  return jax.jit(lambda: read(view_of(maker)))()


def traced(maker, models=None):
  """A view of which nothing is computed: its layers can be read."""
  views = []
  jax.eval_shape(lambda: views.append(view_of(maker, models)))
  return views[0]


@functools.cache
def outputs_of_parents():
  """Of both networks: what they say of rows and of their partners."""

  def run(network, params):
    a = Inputs(mask=BATCH.mask[None], tokens=BATCH.tokens[None])
    b = jax.tree.map(lambda x: x[:, PARTNER], a)
    return network.forward(params, a), network.forward(params, b)

  return {
    name: jax.jit(run, static_argnums=0)(*n) for name, n in NETWORKS.items()
  }


@functools.cache
def made(maker):
  """A view, both networks' outputs on it and on the two parents."""

  def make():
    view = view_of(maker)
    return view, {
      name: network.forward(params, getattr(view, name))
      for name, (network, params) in NETWORKS.items()
    }

  view, mixed = jax.jit(make)()
  parents = outputs_of_parents()
  return types.SimpleNamespace(
    view=view, **{name: (mixed[name], *parents[name]) for name in NETWORKS}
  )


def parents():
  mask_a, mask_b = np.asarray(BATCH.mask), np.asarray(BATCH.mask)[PARTNER]
  return mask_a, mask_b


def test_tmix_is_the_mixture_of_hidden_states_in_the_middle():
  it = made(HIDDEN)
  mask_a, mask_b = parents()
  for name, layer in (("student", 1), ("teacher", 2)):
    inputs = getattr(it.view, name)
    assert inputs.layer == layer
    assert inputs.tokens is inputs.embeddings is inputs.pooled is None
    _, a, b = getattr(it, name)
    a, b = (np.asarray(x.hidden[layer][0]) for x in (a, b))
    expected = reference.mix_hidden(a, b, 0.3, mask_a & mask_b)
    only_b = (mask_b & ~mask_a)[..., None]
    expected = np.where(only_b, b, expected)
    seen = (mask_a | mask_b)[..., None]
    np.testing.assert_array_equal(inputs.mask[0], mask_a | mask_b)
    close(np.where(seen, inputs.hidden[0], 0), np.where(seen, expected, 0))


@pytest.mark.parametrize(
  ("layers", "entries"), [((0, 0), (0, 0)), ((2, 4), (2, 4))]
)
def test_tmix_mixes_between_chosen_layers(layers, entries):
  view = traced(mix_hidden(*layers))
  assert (view.student.layer, view.teacher.layer) == entries


def test_tmix_with_lambda_1_is_the_batch_itself():
  it = made(mix_hidden(lam=1.0))
  for name in ("student", "teacher"):
    mixed, alone, _ = getattr(it, name)
    close(mixed.logits[0, REAL], alone.logits[0, REAL])
  np.testing.assert_array_equal(it.view.label[0], BATCH.label)


def test_pooled_mixup_mixes_what_the_head_reads():
  it = made(POOLED)
  for name, params in (
    ("student", encoders.STUDENT_PARAMS),
    ("teacher", encoders.TEACHER_PARAMS),
  ):
    mixed, a, b = getattr(it, name)
    head = np.asarray(params["head"]["kernel"]).T
    pooled, label, logits = reference.pooled_mixup(
      a.pooled[0],
      b.pooled[0],
      BATCH.label,
      BATCH.label[PARTNER],
      0.25,
      head,
      params["head"]["bias"],
    )
    close(mixed.pooled[0], pooled)
    close(mixed.logits[0], logits)
    close(it.view.label[0], label)


def test_nonlinear_mixup_has_a_lambda_per_dimension_and_its_mean_for_labels():
  it = made(PER_DIMENSION)
  mixed, a, b = it.student
  # A row that only fills the shape is its own partner.
  a, b, mixed = (np.asarray(x.pooled[0, REAL], float) for x in (a, b, mixed))
  lam = (mixed - b) / (a - b)
  assert lam.min() >= -1e-3
  assert lam.max() <= 1 + 1e-3
  assert lam.std(axis=-1).min() > 0.05  # of its own in every dimension
  mean = np.asarray(jnp.mean(jnp.asarray(lam), axis=-1))
  share = np.asarray(it.view.label[0, REAL])
  _, label, _ = reference.nonlinear_mixup(
    a, b, BATCH.label[REAL], BATCH.label[PARTNER][REAL], lam, np.zeros((3, 8))
  )
  np.testing.assert_allclose(share, label, atol=2e-3)
  # The teacher mixes by the mean.
  mixed, a, b = (np.asarray(x.pooled[0, REAL]) for x in it.teacher)
  np.testing.assert_allclose(
    mixed, reference.mix(a, b, mean), rtol=2e-3, atol=2e-3
  )


def test_a_mixture_has_a_label_where_both_parents_do():
  has = np.asarray(BATCH.has_label)
  for maker in (HIDDEN, POOLED, PER_DIMENSION):
    has_label = made(maker).view.has_label
    np.testing.assert_array_equal(has_label, (has & has[PARTNER])[None])
  alone = encoders.models(with_teacher=False)
  assert traced(mix_pooled(), alone).teacher is None


def test_what_is_below_the_mixing_learns_from_it():
  def loss(params, maker):
    models = encoders.models()._replace(student_params=params)
    return squares(params, models, view_of(maker, models).student)

  for maker in (mix_hidden(), mix_pooled(), mix_batch()):
    grads = jax.jit(jax.grad(loss), static_argnums=1)(
      encoders.STUDENT_PARAMS, maker
    )
    assert np.abs(grads["token_embedder"]["embedding"]).max() > 0
    assert np.abs(grads["encoder"]["layers_0"]["mlp"]["wo"]["kernel"]).max() > 0


def squares(params, models, inputs):
  return jnp.sum(jnp.square(models.student.forward(params, inputs).logits))


@jax.jit
def gradient_of(tokens, mask):
  def loss(params):
    return squares(params, encoders.models(), Inputs(mask, tokens))

  return jax.grad(loss)(encoders.STUDENT_PARAMS)


@pytest.mark.parametrize("factory", [mix_hidden, mix_pooled])
@pytest.mark.parametrize(("lam", "rows"), [(1.0, np.arange(8)), (0.0, PARTNER)])
def test_a_mixture_of_one_parent_alone_teaches_what_that_one_does(
  factory, lam, rows
):
  def loss(params):
    models = encoders.models()._replace(student_params=params)
    return squares(params, models, view_of(factory(lam=lam), models).student)

  got = jax.jit(jax.grad(loss))(encoders.STUDENT_PARAMS)
  expected = gradient_of(BATCH.tokens[None, rows], BATCH.mask[None, rows])
  for x, y in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factory", [mix_hidden, mix_pooled])
@pytest.mark.parametrize("drops", ["student", "teacher"])
def test_two_parents_of_one_text_drop_apart_in_the_model_that_drops(
  factory, drops
):
  models = encoders.models()._replace(
    student=enct5(encoders.shape(2, 8, 2, dropout_rate=0.5)),
    teacher=enct5(encoders.shape(4, 12, 3, dropout_rate=0.5)),
    **{f"{drops}_key": jax.random.key(5)},
  )
  itself = gather_partners(BATCH, jnp.arange(8)[None])

  @jax.jit
  def both():
    given = jax.random.key(0), itself, None, models, jnp.int32(0)
    return [factory(lam=lam).make(*given) for lam in (1.0, 0.0)]

  one, other = both()
  for name in ("student", "teacher"):
    a, b = (
      x.pooled if x.hidden is None else x.hidden
      for x in (getattr(one, name), getattr(other, name))
    )
    assert np.allclose(a, b, atol=1e-6) == (name != drops)


def test_half_of_an_odd_number_of_layers_is_rounded_down():
  student = enct5(encoders.shape(3, 8, 2))
  models = encoders.models(with_teacher=False)._replace(
    student=student, student_params=jax.jit(student.init)(jax.random.key(1))
  )
  view = traced(mix_hidden(), models)
  assert view.student.layer == 1


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_batch_mixup_follows_equations_3_and_4(alpha, monkeypatch):
  policies = []
  from augdistill.augment import batch_mixing

  draw = batch_mixing._policy

  def spying(*args):
    policies.append(draw(*args))
    return policies[-1]

  monkeypatch.setattr(batch_mixing, "_policy", spying)
  models = encoders.models()
  view = mix_batch(5, alpha).make(
    jax.random.key(3), BATCH, None, models, jnp.int32(0)
  )
  rows = Inputs(mask=BATCH.mask[None], tokens=BATCH.tokens[None])
  pooled = models.student.forward(models.student_params, rows).pooled[0]
  policy = np.asarray(policies[0])  # [B, n, D]
  assert policy.shape == (8, 5, 8)
  assert 0 <= policy.min() < policy.max() <= 1
  points, vectors, losses = batch_reference.batch_mixup(
    pooled,
    BATCH.label,
    BATCH.has_label,
    BATCH.weight,
    models.student.class_vectors(models.student_params),
    np.moveaxis(policy, 0, -1),
  )
  close(view.student.pooled[0], points)
  close(view.label_vectors[0], vectors)
  from augdistill.losses.terms import negative_dot_product

  outputs = models.student.forward(models.student_params, view.student)
  close(
    negative_dot_product()(outputs, None, view, None, models)[0],
    losses,
  )
  assert view.student.mask.shape == (1, 5, 1)
  assert float(view.weight.sum()) == float(BATCH.weight.sum())


def test_the_heads_rows_learn_from_the_labels_of_points():
  def total(params):
    models = encoders.models()._replace(student_params=params)
    view = mix_batch(5).make(
      jax.random.key(0), BATCH, None, models, jnp.int32(0)
    )
    return jnp.sum(view.label_vectors)

  # In every dimension shares and labels sum to 1, so a point holds one row.
  grads = jax.jit(jax.grad(total))(encoders.STUDENT_PARAMS)
  close(grads["head"]["kernel"].sum(-1), 5.0)


def test_batch_mixup_makes_as_many_points_as_rows_unless_told():
  for points, number in ((None, 8), (3, 3)):
    weight = seen(mix_batch(points), lambda view: view.weight)
    # All together weigh as much as the five real rows.
    close(weight, np.full((1, number), 5 / number))


def test_a_batch_without_labels_has_no_point():
  batch = BATCH._replace(has_label=jnp.zeros(8, bool))
  view = mix_batch(4).make(
    jax.random.key(0), batch, None, encoders.models(), jnp.int32(0)
  )
  assert not np.asarray(view.has_label).any()
  assert np.isfinite(view.student.pooled).all()
  assert np.isfinite(view.label_vectors).all()


def test_batch_mixup_does_not_depend_on_what_fills_the_shape():
  other = jax.tree.map(jnp.asarray, toy.other_junk(toy.make_batch()))
  make = jax.jit(
    lambda batch: mix_batch(4).make(
      jax.random.key(0), batch, None, encoders.models(), jnp.int32(0)
    )
  )
  one, two = make(BATCH), make(other)
  close(one.student.pooled, two.student.pooled)
  close(one.label_vectors, two.label_vectors)


@pytest.mark.parametrize(
  ("factory", "given", "said"),
  [
    (mix_hidden, {"lam": 1.5}, r"lambda must be in \[0, 1\], got 1.5"),
    (mix_hidden, {"student_layer": -1}, "student_layer must be >= 0, got -1"),
    (mix_hidden, {"teacher_layer": -2}, "teacher_layer must be >= 0, got -2"),
    (mix_pooled, {"alpha": 0.0}, "alpha must be positive and finite, got 0"),
    (mix_pooled, {"lam": -0.1}, r"lambda must be in \[0, 1\], got -0.1"),
    (mix_pooled_per_dimension, {"alpha": -1.0}, "alpha must be positive"),
    (mix_pooled_per_dimension, {"alpha": math.inf}, "and finite, got inf"),
    (mix_batch, {"alpha": math.inf}, "and finite, got inf"),
    (mix_batch, {"points": 0}, "points must be at least 1, got 0"),
    (mix_batch, {"alpha": 0.0}, "alpha must be positive and finite, got 0"),
  ],
)
def test_wrong_hyper_parameters_are_refused(factory, given, said):
  with pytest.raises(ValueError, match=said):
    factory(**given)


def test_a_layer_that_a_model_does_not_have_is_refused():
  message = "teacher_layer must be at most 4, the model's number of layers"
  with pytest.raises(UsageError, match=message):
    view_of(mix_hidden(teacher_layer=5))
  with pytest.raises(UsageError, match=r"student_layer .* at most 2, .* got 3"):
    view_of(mix_hidden(student_layer=3))
