"""Views against float64 references written from the papers' equations."""

import functools
import itertools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.augment.adversarial import perturb_by_sign, table_scale
from augdistill.augment.copies import repeat
from augdistill.augment.methods import augpro_fgsm, augpro_mix
from augdistill.augment.mixing import gather_partners, mix_embeddings
from augdistill.augment.projection import project_to_tokens
from augdistill.augment.token_mixing import mix_tokens
from augdistill.types import Inputs
from tests import toy
from tests.reference import views as reference

PARTNER = np.array([1, 2, 4, 3, 6, 5, 0, 7], np.int32)
BATCH = toy.make_batch()
STUDENT_TABLE = np.asarray(toy.STUDENT_PARAMS["table"], np.float64)
TEACHER_TABLE = np.asarray(toy.TEACHER_PARAMS["table"], np.float64)
PRODUCIBLE, PROTECTED = toy.LEXICON.producible, np.array([toy.PAD, toy.EOS])
FREE = reference.mixable(
  BATCH.tokens,
  BATCH.mask,
  BATCH.tokens[PARTNER],
  BATCH.mask[PARTNER],
  PROTECTED,
)


def batch_for(maker, batch=BATCH):
  """The batch, on the device, with the partners above if `maker` mixes."""
  batch = jax.tree.map(jnp.asarray, batch)
  if not maker.partners:
    return batch
  return gather_partners(batch, jnp.asarray(PARTNER)[None])


@functools.cache
def view_of(maker, seed=0, with_teacher=True):
  """A view with the partners above, of one jitted call."""

  def make(key, batch):
    models = toy.make_models()
    if not with_teacher:
      models = models._replace(teacher=None, teacher_params=None)
    clean = toy.clean_of(models, batch)
    view = maker.make(key, batch, clean, models, jnp.int32(0))
    return view, clean.gradient, clean.teacher

  view, gradient, teacher = jax.jit(make)(
    jax.random.key(seed), batch_for(maker)
  )
  tokens, embeddings = view.student.tokens, view.student.embeddings
  return types.SimpleNamespace(
    view=view,
    gradient=np.asarray(gradient[0]),
    clean_teacher=teacher,
    tokens=None if tokens is None else np.asarray(tokens[0]),
    embeddings=None if embeddings is None else np.asarray(embeddings[0]),
  )


def assert_mixed(view, batch, partner, share):
  """Both models' embeddings and the label are mixed with `share`."""
  both = (batch.mask & batch.mask[partner])[..., None]
  either = batch.mask | batch.mask[partner]
  for inputs, table in (
    (view.student, STUDENT_TABLE),
    (view.teacher, TEACHER_TABLE),
  ):
    a, b = table[batch.tokens], table[batch.tokens[partner]]
    alone = np.where(batch.mask[..., None], a, b)
    expected = np.where(both, reference.mixup(a, b, share), alone)
    np.testing.assert_array_equal(inputs.mask[0], either)
    embeddings = np.asarray(inputs.embeddings[0])
    np.testing.assert_allclose(
      embeddings[either], expected[either], rtol=1e-5, atol=1e-6
    )
  mixed = reference.mixup(batch.label, batch.label[partner], share)
  np.testing.assert_allclose(view.label[0], mixed, rtol=1e-6, atol=1e-7)


def test_mixup_is_the_reference_in_both_models_and_in_the_label():
  view = view_of(mix_embeddings(0.3)).view
  assert_mixed(view, BATCH, PARTNER, np.full(toy.ROWS, 0.3))


def test_a_lambda_per_row_is_beta_distributed_and_the_same_for_all():
  n, alpha = 2000, 0.4
  half = np.arange(n) % 2 == 0
  batch = BATCH._replace(
    tokens=np.where(half, 5, 6).astype(np.int32)[:, None],
    mask=np.ones((n, 1), bool),
    label=np.stack([half, ~half], -1).astype(np.float32),
    has_label=np.ones(n, bool),
    weight=np.ones(n, np.float32),
    example_id=np.arange(n, dtype=np.int32) // 2 * 3 + half,
  )
  partner = np.arange(n) ^ 1

  @jax.jit
  def make(key, batch):
    mine = gather_partners(batch, jnp.asarray(partner)[None])
    maker = mix_embeddings(alpha=alpha)
    return maker.make(key, mine, None, toy.make_models(), jnp.int32(0))

  view = make(jax.random.key(0), batch)
  share = np.where(half, *np.moveaxis(np.asarray(view.label[0]), -1, 0))
  assert_mixed(view, batch, partner, share)
  assert ((share >= 0) & (share <= 1)).all()
  assert len(set(share.tolist())) > 0.9 * n
  assert share.mean() == pytest.approx(0.5, abs=0.04)
  assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.01)


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_a_parent_of_share_zero_is_not_there(lam):
  view = view_of(mix_embeddings(lam)).view
  rows = PARTNER if lam == 0 else np.arange(toy.ROWS)
  np.testing.assert_array_equal(view.student.mask[0], BATCH.mask[rows])
  real = BATCH.mask[rows]
  np.testing.assert_allclose(
    np.asarray(view.student.embeddings[0])[real],
    STUDENT_TABLE[BATCH.tokens[rows]][real],
    rtol=1e-6,
  )
  np.testing.assert_array_equal(view.label[0], BATCH.label[rows])


@pytest.mark.parametrize(
  ("direction", "sign"), [("ascent", 1), ("descent", -1)]
)
@pytest.mark.parametrize("relative", [True, False])
def test_fgsm_is_the_reference(direction, sign, relative):
  made = view_of(perturb_by_sign(0.7, direction, relative))
  delta = 0.7 * (STUDENT_TABLE[PRODUCIBLE].std() if relative else 1.0)
  words = STUDENT_TABLE[BATCH.tokens]
  expected = reference.fgsm(words, made.gradient, delta, sign)
  np.testing.assert_allclose(made.embeddings, expected, rtol=1e-5, atol=1e-6)
  moved = np.abs(made.embeddings - words).max(-1) > 1e-3
  np.testing.assert_array_equal(moved, BATCH.mask & BATCH.has_label[:, None])


def test_the_unit_of_delta_is_the_spread_of_the_words_that_may_be_produced():
  scale = jax.jit(lambda: table_scale(toy.make_models()))()
  assert float(scale) == pytest.approx(
    STUDENT_TABLE[PRODUCIBLE].std(), rel=1e-5
  )


def test_the_random_direction_has_fgsms_size_and_fair_signs():
  made = view_of(perturb_by_sign(0.7, "random", relative=False))
  offset = made.embeddings - STUDENT_TABLE[BATCH.tokens]
  np.testing.assert_allclose(offset[~BATCH.mask], 0.0, atol=1e-6)
  signs = offset[BATCH.mask] / 0.7
  np.testing.assert_allclose(np.abs(signs), 1.0, rtol=1e-5)
  assert abs(signs.mean()) < 0.2
  # Rows of one example move alike, other rows do not.
  np.testing.assert_allclose(offset[1, :2], offset[3, :2], atol=1e-6)
  assert np.abs(offset[1, :2] - offset[4, :2]).max() > 1


def test_fgsm_keeps_the_teachers_answer_to_the_clean_text():
  made = view_of(perturb_by_sign(0.7))
  np.testing.assert_array_equal(
    made.view.teacher.logits, made.clean_teacher.logits
  )
  np.testing.assert_array_equal(made.view.label[0], BATCH.label)


@pytest.mark.parametrize("lam", [0.5, 0.3])
def test_augpro_mix_is_the_reference_in_the_teachers_table(lam):
  made = view_of(augpro_mix(lam))
  expected = reference.augpro_mix(
    BATCH.tokens,
    BATCH.mask,
    BATCH.tokens[PARTNER],
    BATCH.mask[PARTNER],
    TEACHER_TABLE,
    lam,
    PRODUCIBLE,
    PROTECTED,
  )
  # An unknown word may stay, which the reference does not know.
  known = BATCH.tokens != toy.UNKNOWN
  np.testing.assert_array_equal(made.tokens[known], expected[known])
  np.testing.assert_array_equal(made.view.teacher.tokens[0], made.tokens)
  counts = reference.parent_counts(
    made.tokens,
    BATCH.tokens,
    BATCH.tokens[PARTNER],
    FREE & (BATCH.weight > 0)[:, None],
  )
  shares = {k: float(a / b) for k, (a, b) in made.view.stats.items()}
  assert counts["changed"] > 0.1
  assert shares == pytest.approx(
    {
      "changed": counts["changed"],
      "from_b": counts["from_b"],
      "from_neither": counts["neither"],
    }
  )


def test_without_a_teacher_the_students_table_decides():
  made = view_of(augpro_mix(0.4), with_teacher=False)
  expected = reference.augpro_mix(
    BATCH.tokens,
    BATCH.mask,
    BATCH.tokens[PARTNER],
    BATCH.mask[PARTNER],
    STUDENT_TABLE,
    0.4,
    PRODUCIBLE,
    PROTECTED,
  )
  known = BATCH.tokens != toy.UNKNOWN
  np.testing.assert_array_equal(made.tokens[known], expected[known])
  assert made.view.teacher is None


def test_augpro_fgsm_is_the_reference_in_the_students_table():
  made = view_of(augpro_fgsm(1.5))
  delta = 1.5 * STUDENT_TABLE[PRODUCIBLE].std()
  moved = reference.fgsm(STUDENT_TABLE[BATCH.tokens], made.gradient, delta)
  nearest = reference.project(
    moved.reshape(-1, 6), STUDENT_TABLE, PRODUCIBLE
  ).reshape(BATCH.tokens.shape)
  known = BATCH.mask & ~np.isin(BATCH.tokens, [toy.UNKNOWN, *PROTECTED])
  np.testing.assert_array_equal(made.tokens[known], nearest[known])
  assert (made.tokens != BATCH.tokens).any()
  # The teacher reads the new tokens; its old answer would be about other ones.
  assert isinstance(made.view.teacher, Inputs)


def test_an_unknown_word_stays_only_where_it_is_nearest():
  row, column = np.argwhere(BATCH.tokens == toy.UNKNOWN)[0]
  batch = jax.tree.map(jnp.asarray, BATCH)

  @jax.jit
  def tokens(key):
    models = toy.make_models()
    clean = toy.clean_of(models, batch)
    views = (
      project_to_tokens(perturb_by_sign(delta, "random")).make(
        key, batch, clean, models, jnp.int32(0)
      )
      for delta in (0.01, 50.0)
    )
    return [view.student.tokens[0, row, column] for view in views]

  near, far = map(int, tokens(jax.random.key(0)))
  assert near == toy.UNKNOWN
  assert far != toy.UNKNOWN
  assert PRODUCIBLE[far]


def test_token_mix_takes_each_token_from_one_parent():
  made = view_of(mix_tokens(0.5))
  take_a = made.tokens == BATCH.tokens
  expected = reference.token_mix(
    BATCH.tokens,
    BATCH.mask,
    BATCH.tokens[PARTNER],
    BATCH.mask[PARTNER],
    take_a,
    PROTECTED,
  )
  np.testing.assert_array_equal(made.tokens, expected)
  differ = FREE & (BATCH.tokens != BATCH.tokens[PARTNER])
  assert 0 < (~take_a)[differ].sum() < differ.sum()


def test_token_mix_mixes_labels_by_the_tokens_that_were_really_given():
  lam = 0.2
  labels = BATCH._replace(label=np.eye(8, dtype=np.float32))

  maker = mix_tokens(lam)

  def make(key):
    batch = batch_for(maker, labels)
    return maker.make(key, batch, None, toy.make_models(), jnp.int32(0))

  # Every row's words are its own, so that it shows where a token is from.
  view = jax.jit(make)(jax.random.key(4))
  words = BATCH.mask & ~np.isin(BATCH.tokens, PROTECTED)
  for i in range(toy.ROWS):
    if PARTNER[i] == i:
      continue
    from_b = float(view.label[0, i, PARTNER[i]]) * max(words[i].sum(), 1)
    assert from_b == pytest.approx(round(from_b), abs=1e-4)
    changed = np.asarray(view.student.tokens[0, i]) != BATCH.tokens[i]
    same = FREE[i] & (BATCH.tokens[i] == BATCH.tokens[PARTNER[i]])
    assert changed.sum() <= round(from_b) <= changed.sum() + same.sum()
    assert float(view.label[0, i].sum()) == pytest.approx(1.0)
  assert float(jnp.diagonal(view.label[0]).sum()) < toy.ROWS - 2


def test_token_mix_keeps_the_anchors_token_with_chance_lambda():
  kept = []
  for seed in range(2):
    long = np.arange(200)[None] % 17 + toy.FIRST_WORD
    tokens = np.concatenate([long, (long + 5) % 17 + toy.FIRST_WORD] * 2)
    batch = BATCH._replace(
      tokens=tokens.astype(np.int32),
      mask=np.ones_like(tokens, bool),
      label=np.zeros((4, 1), np.float32),
      has_label=np.ones(4, bool),
      weight=np.ones(4, np.float32),
      example_id=np.arange(4, dtype=np.int32),
    )
    partners = jnp.array([[1, 0, 3, 2]], jnp.int32)
    view = mix_tokens(0.8).make(
      jax.random.key(seed),
      gather_partners(jax.tree.map(jnp.asarray, batch), partners),
      None,
      toy.make_models(),
      jnp.int32(0),
    )
    kept.append((np.asarray(view.student.tokens[0]) == tokens).mean())
  assert np.mean(kept) == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(
  ("maker", "by_table"),
  [
    (mix_embeddings(0.3), "share"),
    (perturb_by_sign(0.7), "ones"),
    (perturb_by_sign(0.7, "random"), "ones"),
  ],
)
def test_base_embeddings_are_live_and_the_perturbation_is_a_constant(
  maker, by_table
):
  def total(params):
    batch = batch_for(maker)
    models = toy.make_models(student_params=params)
    fixed = jax.lax.stop_gradient(params)
    clean = toy.clean_of(models._replace(student_params=fixed), batch)
    view = maker.make(jax.random.key(0), batch, clean, models, jnp.int32(0))
    return jnp.sum(
      jnp.where(view.student.mask[..., None], view.student.embeddings, 0.0)
    )

  grads = jax.jit(jax.grad(total))(toy.STUDENT_PARAMS)
  expected = np.zeros((toy.VOCAB, 6))
  for i in range(toy.ROWS):
    a, b = BATCH.mask[i], BATCH.mask[PARTNER[i]]
    share_a = np.where(a & b, 0.3, a) if by_table == "share" else 1.0 * a
    share_b = np.where(a & b, 0.7, b & ~a) if by_table == "share" else 0.0 * b
    for j in range(toy.LENGTH):
      expected[BATCH.tokens[i, j]] += share_a[j]
      expected[BATCH.tokens[PARTNER[i], j]] += share_b[j]
  np.testing.assert_allclose(grads["table"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  "maker",
  [
    mix_embeddings(0.3),
    perturb_by_sign(0.3),
    perturb_by_sign(0.3, "random"),
    augpro_mix(),
    augpro_fgsm(),
    mix_tokens(),
  ],
)
@pytest.mark.parametrize("with_teacher", [True, False])
def test_every_view_can_be_made_in_bfloat16_and_without_a_teacher(
  maker, with_teacher
):
  half = toy.network(emb_dim=6, dtype=jnp.bfloat16)
  models = toy.make_models()._replace(
    student=half,
    teacher=half if with_teacher else None,
    teacher_params=toy.STUDENT_PARAMS if with_teacher else None,
  )

  def make(key):
    batch = batch_for(maker)
    clean = toy.clean_of(models, batch)
    view = maker.make(key, batch, clean, models, jnp.int32(0))
    return view.student.embeddings, jax.tree.leaves(view.teacher)

  embeddings, teacher = jax.eval_shape(make, jax.random.key(0))
  assert bool(teacher) == with_teacher
  assert embeddings is None or embeddings.dtype == jnp.bfloat16


def test_the_first_copies_do_not_depend_on_how_many_there_are():
  maker = perturb_by_sign(1.0, "random")

  @jax.jit
  def embeddings(key):
    models, batch = toy.make_models(), batch_for(maker)
    clean = toy.clean_of(models, batch)
    return [
      repeat(maker, n)
      .make(key, batch, clean, models, jnp.int32(0))
      .student.embeddings
      for n in (2, 3)
    ]

  two, three = embeddings(jax.random.key(0))
  np.testing.assert_array_equal(two, three[:2])


def test_each_copy_draws_for_itself():
  maker = perturb_by_sign(1.0, "random")

  @jax.jit
  def signs(key):
    models, batch = toy.make_models(), batch_for(maker)
    clean = toy.clean_of(models, batch)
    view = repeat(maker, 3).make(key, batch, clean, models, jnp.int32(0))
    words = models.student.embed(
      models.student_params, batch.tokens[None], batch.mask[None]
    ).embeddings
    return jnp.sign(view.student.embeddings - words)

  # Of rows that count: the others carry the ids of some of these.
  real = BATCH.mask & (BATCH.weight > 0)[:, None]
  signs = np.asarray(signs(jax.random.key(0)))[:, real]
  for one, other in itertools.combinations(signs, 2):
    # Of n fair signs, n / 2 agree; four standard deviations are 2 sqrt(n).
    assert abs(np.sum(one == other) - one.size / 2) < 2 * np.sqrt(one.size)


def test_one_copy_is_the_maker_itself():
  maker = mix_tokens()
  assert repeat(maker, 1) is maker
  with pytest.raises(ValueError, match="copies must be at least 1, got 0"):
    repeat(maker, 0)


@pytest.mark.parametrize(
  ("factory", "arguments", "message"),
  [
    (mix_embeddings, (1.5,), r"lambda must be in \[0, 1\], got 1.5"),
    (mix_embeddings, (-0.1,), r"lambda must be in \[0, 1\], got -0.1"),
    (mix_embeddings, (float("nan"),), r"lambda must be in \[0, 1\], got nan"),
    (mix_embeddings, (0.5, 0.0), "alpha must be positive and finite, got 0.0"),
    (mix_embeddings, (0.5, math.inf), "positive and finite, got inf"),
    (mix_tokens, (2.0,), r"lambda must be in \[0, 1\], got 2.0"),
    (perturb_by_sign, (-1.0,), "delta must be a number >= 0, got -1.0"),
    (perturb_by_sign, (float("nan"),), "delta must be a number >= 0, got nan"),
    (perturb_by_sign, (float("inf"),), "delta must be a number >= 0, got inf"),
    (
      perturb_by_sign,
      (0.1, "up"),
      "direction must be one of ascent, descent, random, got 'up'",
    ),
  ],
)
def test_factories_reject_what_cannot_be(factory, arguments, message):
  with pytest.raises(ValueError, match=message):
    factory(*arguments)
