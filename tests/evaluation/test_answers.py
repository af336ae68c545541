"""What a teacher answers, with dropout or without: a function of the text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill import prng
from augdistill.evaluation.answers import answers_of
from augdistill.evaluation.predict import logits_of
from tests import toy

NETWORK = toy.network(6, dropout=0.5)
PARAMS = jax.jit(NETWORK.init)(jax.random.key(0))


def asked(batch, draws):
  return np.asarray(answers_of(NETWORK, PARAMS, batch, draws))


def test_without_dropout_there_is_one_answer():
  batch = toy.make_batch()
  answers = asked(batch, None)
  assert answers.shape == (toy.ROWS, 1, toy.CLASSES)
  np.testing.assert_array_equal(
    answers[:, 0], logits_of(NETWORK, PARAMS, batch)
  )


def test_draws_are_others_for_each_text_and_number():
  answers = asked(toy.make_batch(), 4)
  assert answers.shape == (toy.ROWS, 4, toy.CLASSES)
  assert len(np.unique(answers[0], axis=0)) == 4
  texts = toy.batch_of([[5, 6, 7]] * 7 + [[7, 6, 5]])
  same = asked(texts, 4)
  np.testing.assert_array_equal(same[0], same[6])
  assert np.abs(same[0] - same[7]).max() > 1e-3


def test_a_draw_depends_on_no_other_row_and_no_other_draw():
  batch = toy.make_batch()
  order = np.array([3, 0, 1, 2, 7, 6, 5, 4])
  moved = jax.tree.map(lambda x: x[order], batch)
  answers = asked(batch, 4)
  np.testing.assert_allclose(asked(moved, 4), answers[order], atol=1e-6)
  np.testing.assert_allclose(asked(batch, 2), answers[:, :2], atol=1e-6)


def test_draws_are_those_of_dropout():
  batch = toy.batch_of([[5, 6, 7]] + [[i, i + 1] for i in range(5, 12)])
  answers = asked(batch, 400)[0]
  steady = asked(batch, None)[0, 0]
  error = answers.std(axis=0) / 20
  # Dropout before the last product: its mean is the answer without.
  assert np.all(np.abs(answers.mean(axis=0) - steady) < 4 * error + 1e-6)
  assert answers.std(axis=0).min() > 0.01


@pytest.mark.parametrize("columns", [0, 3])
def test_a_texts_key_is_of_its_real_tokens(columns):
  key, batch = prng.run_key(1), jax.tree.map(jnp.asarray, toy.make_batch())
  junk = jax.tree.map(jnp.asarray, toy.pad(batch, columns))
  junk = junk._replace(tokens=jnp.where(junk.mask, junk.tokens, 9))
  data = [
    jax.random.key_data(prng.per_text(key, b.tokens, b.mask))
    for b in (batch, junk)
  ]
  np.testing.assert_array_equal(data[0], data[1])
  assert len(np.unique(data[0], axis=0)) == toy.ROWS
  copy = jax.random.key_data(prng.per_text(key, batch.tokens, batch.mask, 1))
  assert np.all(np.any(copy != data[0], axis=-1))
