"""The step of pretraining, on a model that one can see through."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from augdistill import prng
from augdistill.augment.masking import Masked, mask_tokens
from augdistill.evaluation.masked import fill_in_scores
from augdistill.models.enct5 import EncT5Config
from augdistill.models.masked_t5 import masked_t5
from augdistill.training import mesh as meshes
from augdistill.training.pretraining import guess, pretrain_step
from augdistill.training.step import TrainState
from augdistill.types import MaskedLM
from tests import toy

KEY, LEXICON = prng.run_key(3), jax.tree.map(jnp.asarray, toy.LEXICON)
ROWS = np.arange(toy.ROWS)


def bigrams():
  """logits = table[token on the left]: params {"table": [V, V]}."""

  def logits(params, tokens, hidden, mask, positions, *, key=None):
    del hidden, mask, key
    before = jnp.roll(tokens, 1, axis=-1)
    left = jnp.take_along_axis(before, positions, axis=-1)
    return jnp.take(params["table"], left, axis=0)

  shape = (toy.VOCAB, toy.VOCAB)
  return MaskedLM(
    lambda key: {"table": jax.random.normal(key, shape)},
    logits,
    lambda: {"table": ("vocab", "embed")},
  )


BIGRAMS = bigrams()
PARAMS = BIGRAMS.init(jax.random.key(0))


def log_p(params, left):
  table = np.float64(params["table"])[left]
  return table - np.log(np.exp(table).sum(-1, keepdims=True))


def questions(masked):
  """(row, position, answer) of all that counts."""
  for row, column in np.argwhere(np.asarray(masked.weight) > 0):
    yield row, masked.positions[row, column], masked.target[row, column]


def masked_at(batch, step, mask):
  key = prng.stream(prng.at_step(KEY, step), "masking")
  return jax.device_get(jax.jit(mask)(key, batch, LEXICON))


def step_fn(model, mask, optimizer):
  return jax.jit(
    functools.partial(
      pretrain_step, model=model, mask=mask, optimizer=optimizer
    )
  )


def first_state(params, optimizer):
  return TrainState(jnp.int32(0), params, optimizer.init(params))


def test_loss_and_accuracy_are_those_of_the_questions():
  batch, mask = toy.make_batch(), mask_tokens(0.5, 1.0, 0.0)
  masked = masked_at(batch, 0, mask)
  step = step_fn(BIGRAMS, mask, optax.sgd(0.0))
  _, metrics = step(first_state(PARAMS, optax.sgd(0.0)), LEXICON, batch, KEY)
  losses, right = [], []
  for row, position, answer in questions(masked):
    scores = log_p(PARAMS, masked.tokens[row, position - 1])
    losses.append(-scores[answer])
    right.append(scores.argmax() == answer)
  metrics = jax.device_get(metrics)
  total, count = metrics["loss"]
  assert count == len(losses)
  np.testing.assert_allclose(total, np.sum(losses), rtol=1e-5)
  assert metrics["masked_accuracy"] == (np.sum(right), count)
  free = batch.mask & ~toy.LEXICON.protected[batch.tokens]
  assert metrics["masked"] == (count, free[batch.weight > 0].sum())


def test_the_gradient_is_that_of_the_mean_over_questions():
  batch, mask = toy.make_batch(), mask_tokens(0.5, 1.0, 0.0)
  masked = masked_at(batch, 0, mask)
  want, count = np.zeros((toy.VOCAB, toy.VOCAB)), 0
  for row, position, answer in questions(masked):
    left = masked.tokens[row, position - 1]
    want[left] += np.exp(log_p(PARAMS, left))
    want[left, answer] -= 1
    count += 1
  optimizer = optax.sgd(1.0)
  step = step_fn(BIGRAMS, mask, optimizer)
  state, _ = step(first_state(PARAMS, optimizer), LEXICON, batch, KEY)
  got = PARAMS["table"] - state.params["table"]
  np.testing.assert_allclose(got, want / count, atol=1e-6)
  assert state.step == 1


def test_a_row_that_only_fills_the_shape_changes_nothing():
  batch, optimizer = toy.make_batch(), optax.sgd(1.0)
  step = step_fn(BIGRAMS, mask_tokens(0.5), optimizer)
  one, other = (
    step(first_state(PARAMS, optimizer), LEXICON, rows, KEY)
    for rows in (batch, toy.other_junk(batch))
  )
  assert jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_each_step_asks_for_other_tokens():
  batch, mask = toy.make_batch(), mask_tokens(0.5)
  hidden = [masked_at(batch, step, mask).hidden for step in range(3)]
  assert not np.array_equal(hidden[0], hidden[1])
  optimizer = optax.sgd(0.0)
  step = step_fn(BIGRAMS, mask, optimizer)
  state, losses = first_state(PARAMS, optimizer), []
  for _ in range(3):
    state, metrics = step(state, LEXICON, batch, KEY)
    losses.append(float(metrics["loss"][0]))
  assert len(set(losses)) == 3


def test_the_model_drops_out_anew_in_each_step():
  def logits(*args, key=None):
    whole = BIGRAMS.logits(*args)
    if key is None:
      return whole
    return jnp.where(jax.random.bernoulli(key, 0.5, whole.shape), whole, 0.0)

  def losses_of(model):
    # All is asked and all of it hidden, so that no two steps differ in this.
    step = step_fn(model, mask_tokens(1.0, 1.0, 0.0), optimizer)
    state, losses = first_state(PARAMS, optimizer), []
    for _ in range(3):
      state, metrics = step(state, LEXICON, toy.make_batch(), KEY)
      losses.append(metrics["loss"][0])
    return np.array(losses)

  optimizer = optax.sgd(0.0)
  assert np.ptp(losses_of(BIGRAMS)) < 1e-3
  dropping = losses_of(dataclasses.replace(BIGRAMS, logits=logits))
  assert np.abs(dropping - np.roll(dropping, 1)).min() > 1e-2


SHAPE = EncT5Config(toy.VOCAB, 1, 8, 16, 1, 4, 4)


def test_eight_devices_compute_what_one_does():
  network, optimizer = masked_t5(SHAPE), optax.sgd(0.1)
  params = jax.jit(network.init)(jax.random.key(0))
  step, results = step_fn(network, mask_tokens(0.4), optimizer), []
  mesh = meshes.make_mesh("x4")
  whole = meshes.replicated(mesh)
  for placed in (False, True):
    lexicon, key, batch = LEXICON, KEY, toy.make_batch()
    mine = params
    if placed:
      mine = jax.device_put(params, meshes.param_shardings(network, mesh))
      lexicon, key = jax.device_put((lexicon, key), whole)
      batch = meshes.place_batch(batch, mesh)
    results.append(
      jax.device_get(step(first_state(mine, optimizer), lexicon, batch, key))
    )
  for one, other in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_it_learns_what_follows_what():
  # Each word is followed by the next one: nothing to guess once learnt.
  words = toy.FIRST_WORD + (ROWS[:, None] + np.arange(toy.LENGTH)) % 8
  batch = toy.make_batch()._replace(
    tokens=words.astype(np.int32),
    mask=np.ones(words.shape, bool),
    weight=np.ones(toy.ROWS, np.float32),
    example_id=ROWS.astype(np.int32),
  )
  mask, optimizer = mask_tokens(0.15, 1.0, 0.0), optax.sgd(5.0)
  step = step_fn(BIGRAMS, mask, optimizer)
  state = first_state(PARAMS, optimizer)
  for _ in range(60):
    state, _ = step(state, LEXICON, batch, KEY)
  before, after = (
    fill_in_scores(BIGRAMS, params, [batch], mask, KEY, LEXICON)
    for params in (PARAMS, state.params)
  )
  assert after["masked_accuracy"] > 0.8 > before["masked_accuracy"]
  assert after["masked_loss"] < before["masked_loss"] / 2


# --- scores on a data set ----------------------------------------------------


def test_scores_are_means_over_all_batches():
  batches = [toy.make_batch(seed) for seed in range(3)]
  mask = mask_tokens(0.5, 1.0, 0.0)
  found = fill_in_scores(BIGRAMS, PARAMS, batches, mask, KEY, LEXICON)
  losses, right = [], []
  for batch in batches:
    masked = jax.device_get(jax.jit(mask)(KEY, batch, LEXICON))
    for row, position, answer in questions(masked):
      scores = log_p(PARAMS, masked.tokens[row, position - 1])
      losses.append(-scores[answer])
      right.append(scores.argmax() == answer)
  assert list(found) == ["masked_accuracy", "masked_loss", "perplexity"]
  assert found["masked_accuracy"] == pytest.approx(np.mean(right))
  assert found["masked_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
  assert found["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)


def test_a_hopeless_model_has_a_finite_perplexity():
  hopeless = {"table": 1e4 * jnp.ones_like(PARAMS["table"])}
  hopeless["table"] = hopeless["table"].at[:, toy.PAD].set(1e6)
  found = fill_in_scores(
    BIGRAMS, hopeless, [toy.make_batch()], mask_tokens(), KEY, LEXICON
  )
  assert np.isfinite(found["perplexity"])


def test_a_question_that_does_not_count_has_neither_loss_nor_guess():
  batch = toy.make_batch()
  masked = masked_at(batch, 0, mask_tokens(0.5))
  none = Masked(*masked[:4], jnp.zeros_like(masked.weight))
  losses, right = guess(BIGRAMS, PARAMS, batch, none)
  assert not losses.any()
  assert not right.any()
