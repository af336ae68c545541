"""FMix on embeddings: a mask over positions and dimensions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.augment.embedding_pieces import mix_embedding_pieces
from augdistill.augment.mixing import gather_partners
from tests import toy

BATCH = toy.make_batch()
PARTNER = np.array([1, 2, 4, 3, 6, 5, 0, 7], np.int32)
TABLES = {
  "student": np.asarray(toy.STUDENT_PARAMS["table"]),
  "teacher": np.asarray(toy.TEACHER_PARAMS["table"]),
}
BOTH = BATCH.mask & BATCH.mask[PARTNER]
ONLY_B = BATCH.mask[PARTNER] & ~BATCH.mask


maker = functools.cache(mix_embedding_pieces)


def mixed(maker, seed=0, batch=BATCH, partners=PARTNER):
  return toy.view_of(maker, batch, seed, partners)


def origin(view, model, batch=BATCH, partners=PARTNER):
  """Whether each entry is the partner's, bool[B, L, D]; junk at padding."""
  table = TABLES[model]
  a, b = table[batch.tokens], table[batch.tokens[partners]]
  made = np.asarray(getattr(view, model).embeddings[0])
  real = (batch.mask | batch.mask[partners])[..., None]
  assert ((made == a) | (made == b) | ~real).all()
  return made != a, a != b


@pytest.mark.parametrize("model", TABLES)
@pytest.mark.parametrize("lam", [0.2, 0.5])
def test_a_share_of_the_entries_that_both_have_is_the_partners(model, lam):
  from_b, differ = origin(mixed(maker(lam)), model)
  for i in np.flatnonzero((BATCH.tokens != BATCH.tokens[PARTNER]).any(-1)):
    both = from_b[i][BOTH[i]]
    # A token that both have does not show whose it is.
    equal = (~differ[i][BOTH[i]]).sum()
    assert (1 - lam) * both.size - 1 - equal < both.sum()
    assert both.sum() < (1 - lam) * both.size + 1


@pytest.mark.parametrize("model", TABLES)
def test_past_the_end_of_the_shorter_text_the_longer_stands_alone(model):
  view = mixed(maker(0.5))
  from_b, differ = origin(view, model)
  assert ONLY_B.any()
  np.testing.assert_array_equal(from_b[ONLY_B], differ[ONLY_B])
  assert not from_b[BATCH.mask & ~BATCH.mask[PARTNER]].any()
  for inputs in (view.student, view.teacher):
    either = BATCH.mask | BATCH.mask[PARTNER]
    np.testing.assert_array_equal(inputs.mask[0], either)


def test_the_label_is_mixed_by_the_entries_that_the_student_really_got():
  # Two texts without a common word, of 8 and of 5 tokens.
  batch = toy.batch_of([list(range(3, 11)), list(range(11, 16))])
  partner = np.array([1, 0])
  for seed in range(5):
    view = mixed(maker(), seed, batch, partner)
    from_b, differ = origin(view, "student", batch, partner)
    assert differ.all()
    share = from_b.mean((1, 2))
    # Both views are 8 long; the second's last three are its partner's.
    np.testing.assert_allclose(view.label[0, 0, 1], share[0], rtol=1e-5)
    np.testing.assert_allclose(view.label[0, 1, 0], share[1], rtol=1e-5)
    assert share[1] >= 3 / 8


def test_lambda_is_the_same_in_both_models_and_the_label():
  text = list(range(3, 11))
  batch = toy.batch_of([text, [t + 8 for t in text]] * 20)
  partner = np.arange(40) ^ 1
  view = mixed(maker(), 0, batch, partner)
  shares = [origin(view, m, batch, partner)[0].mean((1, 2)) for m in TABLES]
  # One entry of 8 x 6, and one of 8 x 7.
  np.testing.assert_allclose(shares[0], shares[1], atol=1 / 48 + 1 / 56)
  assert np.ptp(shares[0]) > 0.7
  assert np.mean(shares[0]) == pytest.approx(0.5, abs=0.17)


def test_a_parent_of_share_zero_is_not_there():
  view = mixed(maker(0.0))
  np.testing.assert_array_equal(view.student.mask[0], BATCH.mask[PARTNER])
  real = BATCH.mask[PARTNER]
  words = TABLES["student"][BATCH.tokens[PARTNER]]
  np.testing.assert_array_equal(view.student.embeddings[0][real], words[real])
  np.testing.assert_array_equal(view.label[0], BATCH.label[PARTNER])


def test_pieces_are_connected_in_both_directions():
  text = [3] * toy.LENGTH
  batch = toy.batch_of([text, [4] * toy.LENGTH] * 50)
  partner = np.arange(100) ^ 1

  def edges(decay):
    view = mixed(maker(0.5, decay=decay), 0, batch, partner)
    from_b, _ = origin(view, "student", batch, partner)
    mask = from_b.astype(int)
    return [np.abs(np.diff(mask, axis=axis)).mean() for axis in (1, 2)]

  for smooth, rough in zip(edges(3.0), edges(0.0), strict=True):
    assert rough == pytest.approx(0.5, abs=0.06)
    assert smooth < 0.3


def test_base_embeddings_are_live_and_the_mask_is_a_constant():
  pieces = maker(0.4)

  def total(params):
    batch = jax.tree.map(jnp.asarray, BATCH)
    batch = gather_partners(batch, jnp.asarray(PARTNER)[None])
    models = toy.make_models(student_params=params)
    view = pieces.make(jax.random.key(0), batch, None, models, jnp.int32(0))
    real = view.student.mask[..., None]
    return jnp.sum(jnp.where(real, view.student.embeddings, 0.0)), view

  grads, view = jax.jit(jax.grad(total, has_aux=True))(toy.STUDENT_PARAMS)
  from_b, _ = origin(view, "student")
  expected = np.zeros((toy.VOCAB, 6))
  real = BATCH.mask | BATCH.mask[PARTNER]
  for i, j in np.argwhere(real):
    expected[BATCH.tokens[i, j]] += ~from_b[i, j]
    expected[BATCH.tokens[PARTNER[i], j]] += from_b[i, j]
  np.testing.assert_allclose(grads["table"], expected, atol=1e-5)


def test_without_a_teacher_there_is_none():
  view = toy.view_of(
    mix_embedding_pieces(), BATCH, partners=PARTNER, with_teacher=False
  )
  assert view.teacher is None


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"lam": 1.5}, r"lambda must be in \[0, 1\], got 1.5"),
    ({"alpha": -1.0}, "alpha must be positive and finite, got -1.0"),
    ({"decay": float("inf")}, "decay must be a number >= 0, got inf"),
  ],
)
def test_the_factory_rejects_what_cannot_be(arguments, message):
  with pytest.raises(ValueError, match=message):
    mix_embedding_pieces(**arguments)
