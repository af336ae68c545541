"""Optimizers by name: AdamW step by step, what decays, what is clipped."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from augdistill.errors import UsageError
from augdistill.training.optimizers import (
  OPTIMIZERS,
  clip_by_global_norm,
  make_optimizer,
)
from tests.reference import schedules_optim as reference

STEPS = 6


@pytest.fixture(autouse=True)
def optax_promotes_types():
  """optax itself mixes types, so strictness is relaxed here only."""
  with jax.numpy_dtype_promotion("standard"):
    yield


@pytest.fixture
def params():
  rng = np.random.default_rng(0)
  return {
    "kernel": np.float32(rng.normal(size=(3, 4))),
    "deep": {"scale": np.float32(rng.uniform(0.5, 1.5, 4))},
  }


def descend(optimizer, params, grads):
  """Parameters after each of the gradients."""

  @jax.jit
  def step(params, state, grad):
    updates, state = optimizer.update(grad, state, params)
    return optax.apply_updates(params, updates), state

  state, path = optimizer.init(params), []
  for grad in grads:
    params, state = step(params, state, grad)
    path.append(params)
  return path


def random_grads(params, sizes):
  rng = np.random.default_rng(1)
  return [
    jax.tree.map(lambda p: np.float32(size * rng.normal(size=p.shape)), params)  # noqa: B023
    for size in sizes
  ]


@pytest.mark.parametrize(
  ("decay", "clip_norm"), [("cosine", 1.0), ("linear", None)]
)
def test_adamw_takes_the_steps_of_the_reference(params, decay, clip_norm):
  optimizer = make_optimizer(
    "adamw",
    learning_rate=0.1,
    num_steps=STEPS,
    decay=decay,
    warmup_fraction=1 / 3,
    weight_decay=0.3,
    clip_norm=clip_norm,
  )
  # Norms on both sides of the one that is clipped at.
  grads = random_grads(params, [3.0, 0.1, 0.02, 10.0, 1.0, 0.3])
  rate = getattr(reference, f"linear_warmup_{decay}_decay")
  expected = {"kernel": params["kernel"], "scale": params["deep"]["scale"]}
  moments = dict.fromkeys(expected, (0.0, 0.0))
  for step, got in enumerate(descend(optimizer, params, grads)):
    grad = grads[step]
    if clip_norm is not None:
      grad, _ = reference.global_norm_clip(grad, clip_norm)
    flat = {"kernel": grad["kernel"], "scale": grad["deep"]["scale"]}
    for name in expected:
      expected[name], *moments[name] = reference.adamw_step(
        expected[name],
        flat[name],
        *(np.broadcast_to(m, flat[name].shape) for m in moments[name]),
        t=step + 1,
        lr=rate(step, 0.1, 2, STEPS),
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        weight_decay=0.3 if name == "kernel" else 0.0,
      )
    np.testing.assert_allclose(
      got["kernel"], expected["kernel"], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
      got["deep"]["scale"], expected["scale"], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_shrinks_matrices_by_the_learning_rate_times_itself(
  params, name
):
  optimizer = make_optimizer(
    name,
    learning_rate=0.1,
    num_steps=4,
    decay="linear",
    warmup_fraction=0.0,
    weight_decay=0.5,
  )
  still = jax.tree.map(np.zeros_like, params)
  path = descend(optimizer, params, [still] * 5)
  expected = params["kernel"]
  for step, got in enumerate(path):
    expected = expected * (1 - 0.5 * 0.1 * max(1 - step / 4, 0))
    np.testing.assert_allclose(got["kernel"], expected, rtol=1e-6)
    np.testing.assert_array_equal(got["deep"]["scale"], params["deep"]["scale"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_weight_decay_nothing_moves_without_a_gradient(params, name):
  optimizer = make_optimizer(name, weight_decay=0.0, warmup_fraction=0.0)
  still = jax.tree.map(np.zeros_like, params)
  (got,) = descend(optimizer, params, [still])
  jax.tree.map(np.testing.assert_array_equal, got, params)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_descends(params, name):
  optimizer = make_optimizer(name, 0.1, 100, weight_decay=0.0)
  target = jax.tree.map(lambda p: p + 1.0, params)

  def loss(params):
    return sum(
      jnp.sum(jnp.square(p - t))
      for p, t in zip(
        jax.tree.leaves(params), jax.tree.leaves(target), strict=True
      )
    )

  def step(carry, _):
    params, state = carry
    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return (optax.apply_updates(params, updates), state), None

  run = jax.jit(functools.partial(jax.lax.scan, step, length=100))
  (end, _), _ = run((params, optimizer.init(params)))
  assert loss(end) < 0.05 * loss(params)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_after_the_last_step_nothing_moves(params, name):
  optimizer = make_optimizer(name, 0.1, num_steps=3, weight_decay=0.1)
  path = descend(optimizer, params, random_grads(params, [1.0] * 5))
  assert not np.array_equal(path[2]["kernel"], path[1]["kernel"])
  for later in path[3:]:
    jax.tree.map(np.testing.assert_array_equal, later, path[2])


def test_clipping_keeps_the_types_of_gradients():
  grads = {"kernel": jnp.full((2, 2), 3, jnp.bfloat16), "bias": jnp.zeros(2)}
  clipped, _ = clip_by_global_norm(1.0).update(grads, optax.EmptyState())
  assert clipped["kernel"].dtype == jnp.bfloat16
  assert clipped["bias"].dtype == jnp.float32


@pytest.mark.parametrize("size", [0.0, 0.9, 1.0, 1.1, 1e30, np.nan])
def test_clipping_is_optaxs(params, size):
  grads = random_grads(params, [1.0])[0]
  norm = optax.tree.norm(grads)
  grads = jax.tree.map(lambda g: g * np.float32(size / norm), grads)
  ours, theirs = (
    clip(1.0).update(grads, optax.EmptyState())[0]
    for clip in (clip_by_global_norm, optax.clip_by_global_norm)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-6), ours, theirs
  )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradient_is_clipped_by_the_norm_of_all_parameters(params, name):
  make = functools.partial(make_optimizer, name, 0.1, 10, warmup_fraction=0.0)
  grads = random_grads(params, [50.0, 0.01])
  short = [reference.global_norm_clip(g, 1.0)[0] for g in grads]
  short = [jax.tree.map(np.float32, g) for g in short]
  clipped = descend(make(clip_norm=1.0), params, grads)[-1]
  by_hand = descend(make(clip_norm=None), params, short)[-1]
  free = descend(make(clip_norm=None), params, grads)[-1]
  np.testing.assert_allclose(clipped["kernel"], by_hand["kernel"], rtol=1e-5)
  assert not np.allclose(clipped["kernel"], free["kernel"], rtol=1e-3)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"name": "adam"}, "adamw, adafactor, got 'adam'. Did you mean 'adamw'"),
    ({"clip_norm": 0.0}, "clip at must be positive, got 0.0"),
    ({"clip_norm": float("nan")}, "clip at must be positive, got nan"),
    ({"weight_decay": -0.1}, "weight decay must be >= 0, got -0.1"),
    ({"weight_decay": float("nan")}, "weight decay must be >= 0, got nan"),
    ({"learning_rate": 0.0}, "learning rate must be positive, got 0.0"),
    ({"decay": "cos"}, "the decay must be one of"),
  ],
)
def test_an_optimizer_that_cannot_be_is_an_error(arguments, message):
  with pytest.raises(UsageError, match=message):
    make_optimizer(**arguments)
