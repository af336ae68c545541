"""What the step's gradients reach, and what they do not depend on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from augdistill.training.inspection import make_views
from augdistill.training.lookups import with_lookups
from augdistill.training.methods import build_method
from augdistill.training.schedules import ramp
from augdistill.training.step import TrainState, grads_and_metrics, train_step
from augdistill.types import Inputs, Method, TaskKind, Text, WeightedView
from tests import toy
from tests.training.toy_step import (
  KEY,
  LEXICON,
  NETWORKS,
  PARAMS,
  STEP,
  assert_close,
  average,
  batch_of,
  compiled,
  gradients,
)

# What there is but mixed embeddings: a projection that reads the clean batch,
# tokens drawn from partners, and copies.
EVERYTHING = "kd+augpro_fgsm+token_mix*2"


@pytest.mark.parametrize(
  "view", ["mixup", "fgsm", "augpro_mix", "augpro_fgsm", "token_mix"]
)
def test_the_embedding_table_learns_from_every_view(view):
  with_view, _ = gradients(f"kd+{view}")
  without, _ = gradients("kd")
  assert np.abs(with_view["table"] - without["table"]).max() > 1e-3


def test_a_batch_in_which_no_row_counts_has_no_gradient():
  nobody = batch_of()._replace(weight=np.zeros(toy.ROWS, np.float32))
  grads, metrics = gradients("kd+augpro_mix", batch=nobody)
  jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0 * g), grads)
  assert metrics["loss"] == (0.0, 0.0)


def test_the_surroundings_of_words_change_no_step():
  method = "kd+augpro_mix(alpha=1)*2+mmel_hard(view=augpro_mix)*2"
  network, params = NETWORKS["classes"][1], PARAMS["classes"][1]
  lexicon = with_lookups(
    LEXICON, [build_method(method, TaskKind.CLASSES)], network, params
  )
  assert lexicon.surroundings.ids.shape == (toy.VOCAB, 16)
  expected = gradients(method, num_microbatches=2)
  with_them = compiled.__wrapped__(method, num_microbatches=2, lexicon=lexicon)
  grads, metrics = with_them(batch_of(), STEP, *PARAMS["classes"])
  assert_close(grads, expected[0])
  for view in ("augpro_mix", "mmel_hard"):
    stages = ("by_parents", "by_neighbours", "by_search")
    sums = [metrics.pop(f"{view}/{stage}") for stage in stages]
    assert sum(float(total) for total, _ in sums) == float(sums[0][1]) > 0
  assert_close(metrics, expected[1])


def test_only_a_method_that_projects_mixtures_asks_for_surroundings():
  network, params = NETWORKS["classes"][1], PARAMS["classes"][1]
  for text in ("kd", "kd+mixup", "kd+augpro_fgsm", "kd+token_mix"):
    method = build_method(text, TaskKind.CLASSES)
    given = with_lookups(LEXICON, [method], network, params)
    assert given.surroundings is None
  method = build_method("ft+augpro_mix", TaskKind.CLASSES)
  assert with_lookups(LEXICON, [method], None, None) is LEXICON


def test_the_teacher_gets_no_gradient_and_does_not_come_out():
  method = "kd+mixup"
  params, teacher_params = PARAMS["classes"]

  @jax.jit
  @jax.grad
  def of_teacher(teacher_params):
    _, metrics = compiled(method)(batch_of(), STEP, params, teacher_params)
    return metrics["loss"][0]

  for leaf in jax.tree.leaves(of_teacher(teacher_params)):
    np.testing.assert_array_equal(leaf, 0.0)
  grads, metrics = gradients(method)
  assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
  shapes = {x.shape for x in jax.tree.leaves((grads, metrics))}
  assert teacher_params["table"].shape not in shapes


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it():
  student, _ = NETWORKS["classes"]
  params, _ = PARAMS["classes"]
  text = "kd(temperature=4, label_weight=0)+augpro_mix+token_mix"
  grads, metrics = jax.jit(
    functools.partial(
      grads_and_metrics,
      student=student,
      teacher=student,
      method=build_method(text, TaskKind.CLASSES),
    )
  )(params, params, LEXICON, batch_of(), KEY, STEP)
  for view in ("clean", "augpro_mix", "token_mix"):
    assert average(metrics, f"{view}/kl") == pytest.approx(0, abs=1e-6)
  assert_close(grads, jax.tree.map(jnp.zeros_like, params), atol=1e-6)
  assert average(metrics, "clean/label") > 0.1


@pytest.mark.parametrize("method", ["kd", "kd+fgsm+noise"])
def test_a_teacher_with_its_own_vocabulary_reads_its_own_tokens(method):
  """Its answers are those that it gives to these tokens, longer ones too."""
  batch = batch_of()
  rng = np.random.default_rng(3)
  tokens = rng.integers(toy.FIRST_WORD, toy.NO_PIECE, (toy.ROWS, 11))
  text = Text(
    tokens.astype(np.int32), np.arange(11) < rng.integers(3, 12, (8, 1))
  )
  student, teacher = NETWORKS["classes"]
  params, teacher_params = PARAMS["classes"]
  answers = teacher.forward(
    teacher_params,
    Inputs(jnp.asarray(text.mask[None]), jnp.asarray(text.tokens[None])),
  )

  def deaf(params, inputs, *, key=None):
    del params, inputs, key
    return answers

  def run(teacher, batch):
    return jax.jit(
      functools.partial(
        grads_and_metrics,
        student=student,
        teacher=teacher,
        method=build_method(method, TaskKind.CLASSES),
      )
    )(params, teacher_params, LEXICON, batch, KEY, STEP)

  expected = run(dataclasses.replace(teacher, forward=deaf), batch)
  assert_close(run(teacher, batch._replace(teacher=text)), expected)


def test_microbatches_take_the_teachers_tokens_with_them():
  batch = batch_of()
  text = Text(np.roll(batch.tokens, 1, axis=1), batch.mask)
  batch = batch._replace(teacher=text)
  whole = gradients("kd+fgsm", batch=batch)
  assert_close(gradients("kd+fgsm", batch=batch, num_microbatches=2), whole)
  own, _ = gradients("kd+fgsm")
  assert np.abs(whole[0]["table"] - own["table"]).max() > 1e-4


# --- What must not matter ----------------------------------------------------


@pytest.mark.parametrize(
  ("method", "parts"), [("kd+mixup", 2), (EVERYTHING, 4)]
)
def test_microbatches_of_uneven_weight_are_one_batch(method, parts):
  weight = batch_of().weight
  pieces = [weight[i::parts].sum() for i in range(parts)]
  assert len(set(pieces)) > 1
  whole = gradients(method)
  assert_close(gradients(method, num_microbatches=parts), whole)


def test_the_number_of_microbatches_must_divide_the_batch():
  message = "must divide the batch size, got 3 and 8"
  with pytest.raises(ValueError, match=message):
    gradients("kd", num_microbatches=3)


def test_what_stands_in_a_padding_row_changes_nothing():
  junk = toy.other_junk(batch_of())
  assert_close(
    gradients(EVERYTHING, batch=junk), gradients(EVERYTHING), atol=1e-7
  )


def test_a_batch_without_its_padding_rows_is_the_same():
  batch = batch_of()
  real = toy.take_rows(batch, np.flatnonzero(batch.weight))
  assert real.weight.shape == (5,)
  assert_close(gradients("kd+mixup", batch=real), gradients("kd+mixup"))


def test_a_batch_of_padding_rows_alone_has_no_gradient():
  batch = batch_of()
  batch = batch._replace(weight=0 * batch.weight)
  grads, metrics = gradients(EVERYTHING, batch=batch)
  assert_close(grads, jax.tree.map(jnp.zeros_like, grads), atol=0)
  assert metrics["loss"] == (0.0, 0.0)


def test_rows_without_a_label_learn_from_the_teacher_alone():
  batch = batch_of()
  batch = batch._replace(
    has_label=np.zeros(toy.ROWS, bool), label=np.full_like(batch.label, 9.0)
  )
  grads, metrics = gradients("kd+mixup", batch=batch)
  assert metrics["clean/label"][0] == metrics["mixup/label"][0] == 0
  assert metrics["clean/kl"][0] > 0.1
  # The label weighs nothing in the clean batch; in the view, none has one.
  without, _ = gradients("kd(label_weight=0)+mixup", batch=batch)
  assert_close(grads, without)


# --- Weights -----------------------------------------------------------------


def test_weights_may_grow_with_the_step():
  plain, with_view = "kd", "kd+mixup"
  grown = "kd+mixup(weight=ramp(0, 2, 4))"
  for step, weight in ((0, 0.0), (1, 0.5), (3, 1.5), (9, 2.0)):
    step = jnp.int32(step)
    base, _ = gradients(plain, step=step)
    full, _ = gradients(with_view, step=step)
    got, metrics = gradients(grown, step=step)
    part = jax.tree.map(jnp.subtract, full, base)
    expected = optax.tree.add_scale(base, weight, part)
    assert_close(got, expected, atol=2e-6)
    assert metrics["mixup/kl"][0] > 0  # Reported without its weight.


def test_the_weights_of_terms_are_theirs_in_the_clean_batch():
  label, _ = gradients("kd(teacher_weight=0)")
  teacher, _ = gradients("kd(label_weight=0)")
  both, _ = gradients("kd(label_weight=ramp(3, 0, 6), teacher_weight=2)")
  assert_close(both, jax.tree.map(lambda a, b: 1.5 * a + 2 * b, label, teacher))
  assert_close(gradients("ft")[0], label)


def test_a_schedule_weighs_a_whole_summand():
  clean = build_method("kd", TaskKind.CLASSES).clean
  weighted = WeightedView(
    clean.name, None, clean.terms, clean.reweight, ramp(0.0, 1.0, 6)
  )
  grads, _ = gradients(Method("kd", weighted))
  full, _ = gradients("kd")
  assert_close(grads, jax.tree.map(lambda g: g / 2, full))


# --- Methods without a clean batch or a teacher ------------------------------


def test_a_method_may_have_no_clean_batch():
  views = build_method("kd+mixup", TaskKind.CLASSES).views
  grads, metrics = gradients(Method("mixup alone", None, views))
  with_clean, _ = gradients("kd+mixup")
  clean, _ = gradients("kd")
  assert_close(grads, jax.tree.map(jnp.subtract, with_clean, clean), atol=2e-6)
  assert not any(name.startswith("clean") for name in metrics)


def test_a_view_that_reads_the_clean_batch_needs_one():
  views = build_method("kd+fgsm", TaskKind.CLASSES).views
  with pytest.raises(ValueError, match="the view 'fgsm' reads the clean batch"):
    gradients(Method("fgsm alone", None, views))


def test_a_method_that_needs_a_teacher_says_so():
  student, _ = NETWORKS["classes"]
  with pytest.raises(ValueError, match="the method 'kd' needs a teacher"):
    grads_and_metrics(
      PARAMS["classes"][0],
      None,
      LEXICON,
      batch_of(),
      KEY,
      STEP,
      student=student,
      teacher=None,
      method=build_method("kd", TaskKind.CLASSES),
    )


def test_fine_tuning_never_asks_the_teacher():
  params, _ = PARAMS["classes"]
  text = "ft+augpro_mix+fgsm"
  nan = jax.tree.map(lambda x: x * jnp.nan, PARAMS["classes"][1])
  grads, metrics = compiled(text)(batch_of(), STEP, params, nan)
  for leaf in jax.tree.leaves((grads, metrics)):
    assert np.isfinite(leaf).all()


# --- Dropout -----------------------------------------------------------------


@functools.cache
def dropped(method="kd(label_weight=0)", parts=1, **options):
  network = toy.network(6, dropout=0.5)
  return jax.jit(
    functools.partial(
      grads_and_metrics,
      student=network,
      teacher=network,
      method=build_method(method, TaskKind.CLASSES),
      num_microbatches=parts,
      **options,
    )
  )


def run_dropped(step=0, batch=None, **options):
  params = PARAMS["classes"][0]
  batch = batch_of() if batch is None else batch
  step = jnp.int32(step)
  return dropped(**options)(params, params, LEXICON, batch, KEY, step)


def test_dropout_is_a_function_of_the_step():
  one, again, other = (run_dropped(step) for step in (0, 0, 1))
  assert_close(one, again, rtol=0, atol=0)
  assert average(one[1]) != average(other[1])


def test_teacher_student_and_views_drop_apart():
  same = "kd(label_weight=0)+token_mix(lam=1)"
  _, metrics = run_dropped(method=same)
  # One network on the same tokens: only the masks can differ.
  distances = [
    average(metrics, f"{view}/kl") for view in ("clean", "token_mix")
  ]
  _, steady = run_dropped(teacher_dropout=False)
  distances.append(average(steady, "clean/kl"))
  assert min(distances) > 0.01
  assert len(set(distances)) == 3


@pytest.mark.parametrize(
  "method",
  [
    "kd(label_weight=0)",
    # These run the student below the layer at which they enter, too.
    "kd(clean=false)+pooled_mixup(lam=1, label_weight=0)",
    "ft(clean=false)+batch_mixup(points=4)",
  ],
)
def test_microbatches_drop_apart(method):
  # Row i goes to part i % 2: the same rows twice, one part each.
  twice = toy.take_rows(batch_of(), np.repeat(np.arange(4), 2))
  if "batch_mixup" not in method:
    _, metrics = run_dropped(method=method, batch=twice, parts=2)
  alone = []
  for rows in (slice(0, None, 2), slice(1, None, 2)):
    weight = np.zeros(8, np.float32)
    weight[rows] = twice.weight[rows]
    batch = twice._replace(weight=weight)
    alone.append(run_dropped(method=method, batch=batch, parts=2)[1]["loss"])
  assert float(alone[0][0]) != pytest.approx(float(alone[1][0]), rel=1e-3)
  if "batch_mixup" not in method:  # Its points are of the whole microbatch.
    assert average(metrics) == pytest.approx(
      float(alone[0][0] + alone[1][0]) / float(metrics["loss"][1]), rel=1e-4
    )


@pytest.mark.parametrize("view", ["pooled_mixup(lam=1)", "freelb"])
def test_a_teacher_that_a_view_itself_runs_drops_out_as_it_does_elsewhere(view):
  # The student's masks are the same in both: only the teacher's can differ.
  method, name = f"kd(clean=false)+{view}", view.partition("(")[0]
  dropped, steady = (
    average(run_dropped(method=method, teacher_dropout=drop)[1], f"{name}/kl")
    for drop in (True, False)
  )
  assert abs(dropped - steady) > 0.01


# --- The whole step ----------------------------------------------------------


def test_a_step_is_traced_once_and_does_what_the_optimizer_says():
  student, teacher = NETWORKS["classes"]
  params, teacher_params = PARAMS["classes"]
  optimizer, traces = optax.sgd(0.1), []
  method = build_method("kd+augpro_mix", TaskKind.CLASSES)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, batch):
    traces.append(1)
    return train_step(
      state,
      teacher_params,
      LEXICON,
      batch,
      KEY,
      optimizer=optimizer,
      student=student,
      teacher=teacher,
      method=method,
    )

  copy = jax.tree.map(jnp.array, params)
  state, losses = TrainState(jnp.int32(0), copy, optimizer.init(copy)), []
  for i in range(30):
    state, metrics = step(state, batch_of())
    losses.append(average(metrics))
    if i == 0:
      grads, _ = gradients("kd+augpro_mix", step=jnp.int32(0))
      expected = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
      assert_close(state.params, expected)
      norm, weight = metrics["gradient_norm"]
      assert float(norm) == pytest.approx(
        float(optax.tree.norm(grads)), rel=1e-5
      )
      assert weight == 1
  assert len(traces) == 1
  assert int(state.step) == 30
  assert losses[-1] < 0.9 * losses[0]
  assert jax.tree.structure(state.params) == jax.tree.structure(params)


def test_the_views_to_be_looked_at_are_those_that_are_learnt_from():
  student, teacher = NETWORKS["classes"]
  params, teacher_params = PARAMS["classes"]
  views = jax.jit(
    functools.partial(
      make_views,
      student=student,
      teacher=teacher,
      method=build_method(EVERYTHING, TaskKind.CLASSES),
    )
  )(params, teacher_params, LEXICON, batch_of(), KEY, STEP)
  _, metrics = gradients(EVERYTHING)
  assert sorted(views) == ["augpro_fgsm", "token_mix"]
  for name, (view, partners, reading) in views.items():
    np.testing.assert_array_equal(reading.student.tokens, view.student.tokens)
    for stat, pair in view.stats.items():
      assert pair == metrics[f"{name}/{stat}"]
    assert (partners is None) == (name == "augpro_fgsm")
    if partners is not None:
      assert partners.shape == view.weight.shape
  view, partners, _ = views["token_mix"]
  new, old = np.asarray(view.student.tokens), batch_of().tokens
  from_b = (new != old) & (new == old[np.asarray(partners)])
  real = batch_of().weight[:, None] > 0
  assert 0 < (from_b & real).sum() == float(view.stats["from_b"][0])
