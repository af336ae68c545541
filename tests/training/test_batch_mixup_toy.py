"""BatchMixUp's figure 1: two Gaussian classes, five shots of each, an MLP.

The paper's figure shows one draw where BatchMixUp separates the classes and
training without it does not. Over many draws that is not what happens here:
beside the clean batch it changes little, and alone its loss, which nothing
bounds from below and which compares with no other class, teaches next to
nothing. These tests say so, and would notice if it changed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from augdistill.training.methods import build_method
from augdistill.training.step import TrainState, train_step
from augdistill.types import Batch, Inputs, Lexicon, Network, Outputs, TaskKind

SHOTS, TEST, SEEDS, WIDTH = 5, 500, 16, 16
CENTRES = np.array([[-2.0, 0.0], [2.0, 0.0]])


def draw(seed, count):
  rng = np.random.default_rng(seed)
  label = np.repeat([0, 1], count)
  points = CENTRES[label] + rng.normal(size=(2 * count, 2))
  return points.astype(np.float32), label


def network():
  """A token is the number of a point; two hidden layers, a linear head."""

  def init(key, points):
    keys = [jax.random.fold_in(key, i) for i in range(3)]
    matrix = jax.random.normal
    return {
      "points": points,
      "first": matrix(keys[0], (2, WIDTH)) / np.sqrt(2),
      "second": matrix(keys[1], (WIDTH, WIDTH)) / np.sqrt(WIDTH),
      "head": matrix(keys[2], (WIDTH, 2)) / np.sqrt(WIDTH),
    }

  def points_of(params, tokens):
    points = jax.lax.stop_gradient(params["points"])
    return jnp.take(points, tokens, axis=0)

  def embed(params, tokens, mask):
    return Inputs(mask, embeddings=points_of(params, tokens))

  def forward(params, inputs, *, key=None):
    pooled = inputs.pooled
    if pooled is None:
      points = inputs.embeddings
      if points is None:
        points = points_of(params, inputs.tokens)
      hidden = jnp.tanh(points[..., 0, :] @ params["first"])
      pooled = jnp.tanh(hidden @ params["second"])
    return Outputs(pooled @ params["head"], pooled)

  return Network(
    init,
    forward,
    embed,
    lambda params: params["points"],
    dict,
    2,
    lambda params: params["head"].T,
  )


@functools.cache
def accuracies(method):
  """Test accuracy of each seed after 100 epochs, each of one batch."""
  model, optimizer = network(), optax.adam(1e-3)
  step = functools.partial(
    train_step,
    optimizer=optimizer,
    student=model,
    teacher=None,
    method=build_method(method, TaskKind.CLASSES),
  )
  rows = 2 * SHOTS
  lexicon = Lexicon(jnp.ones(rows, bool), jnp.zeros(rows, bool))

  def train(key, points, label, test_points, test_label):
    params = model.init(key, points)
    state = TrainState(jnp.int32(0), params, optimizer.init(params))
    batch = Batch(
      tokens=jnp.arange(rows, dtype=jnp.int32)[:, None],
      mask=jnp.ones((rows, 1), bool),
      label=jax.nn.one_hot(label, 2),
      has_label=jnp.ones(rows, bool),
      weight=jnp.ones(rows),
      example_id=jnp.arange(rows, dtype=jnp.int32),
    )
    state = jax.lax.fori_loop(
      0, 100, lambda i, s: step(s, None, lexicon, batch, key)[0], state
    )
    test = Inputs(
      mask=jnp.ones((1, 2 * TEST, 1), bool),
      embeddings=test_points[None, :, None],
    )
    logits = model.forward(state.params, test).logits[0]
    return jnp.mean(jnp.argmax(logits, axis=-1) == test_label)

  shots = [draw(seed, SHOTS) for seed in range(SEEDS)]
  tests = [draw(1000 + seed, TEST) for seed in range(SEEDS)]
  stacked = [
    np.stack(x) for pairs in (shots, tests) for x in zip(*pairs, strict=True)
  ]
  keys = jax.vmap(jax.random.key)(jnp.arange(SEEDS))
  with jax.numpy_dtype_promotion("standard"):
    return np.asarray(jax.jit(jax.vmap(train))(keys, *stacked))


def test_beside_the_clean_batch_batch_mixup_changes_little():
  plain, mixed = accuracies("ft"), accuracies("ft+batch_mixup")
  assert plain.mean() > 0.93  # Of at most 0.977.
  difference = mixed - plain
  assert abs(difference.mean()) < 0.02
  # Figure 1 shows one draw: there are draws of either kind.
  assert difference.min() < 0 < difference.max()


def test_alone_batch_mixup_teaches_next_to_nothing():
  alone = accuracies("ft(clean=false)+batch_mixup")
  assert alone.mean() < accuracies("ft").mean() - 0.1
  # Far more spread over seeds than training with the clean batch.
  assert alone.std() > 3 * accuracies("ft").std()


def test_pairs_mixed_in_the_same_place_do_as_well():
  assert accuracies("ft+pooled_mixup").mean() == pytest.approx(
    accuracies("ft").mean(), abs=0.02
  )
