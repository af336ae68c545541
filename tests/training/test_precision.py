"""bfloat16 in student, teacher and step: the numbers of float32, nearly."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill import prng
from augdistill.models.bert_config import BertConfig
from augdistill.models.enct5 import EncT5Config
from augdistill.models.networks import network
from augdistill.models.precision import cast_matrices
from augdistill.training.methods import build_method
from augdistill.training.optimizers import make_optimizer
from augdistill.training.step import TrainState, grads_and_metrics, train_step
from augdistill.types import TaskKind
from tests import toy

# Not AugPro-FGSM: where a gradient is nearly 0, its sign, and so a token of the
# view, is another one in bfloat16.
METHOD = "kd+augpro_mix+fgsm"
SHAPES = {
  "enct5": EncT5Config(toy.VOCAB, toy.CLASSES, 16, 32, 1, 2, 8),
  "bert": BertConfig(toy.VOCAB, toy.CLASSES, 16, 32, 1, 2, 64),
}
LEXICON = jax.tree.map(jnp.asarray, toy.LEXICON)


@functools.cache
def params(family):
  init = jax.jit(network(SHAPES[family]).init)
  return tuple(init(jax.random.key(seed)) for seed in (0, 1))


@functools.cache
def gradients(family, student="float32", teacher="float32", **options):
  """Gradients as one vector, and the loss."""
  shapes = [
    dataclasses.replace(SHAPES[family], dtype=dtype, dropout_rate=0.0)
    for dtype in (student, teacher)
  ]
  mine, theirs = params(family)
  step = functools.partial(
    grads_and_metrics,
    student=network(shapes[0]),
    teacher=network(shapes[1]),
    method=build_method(METHOD, TaskKind.CLASSES),
    **options,
  )
  grads, metrics = jax.jit(step)(
    mine,
    cast_matrices(theirs, teacher),
    LEXICON,
    toy.make_batch(),
    prng.run_key(3),
    jnp.int32(2),
  )
  leaves = jax.tree.leaves(grads)
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
  loss, weight = metrics["loss"]
  return np.concatenate([np.ravel(x) for x in leaves]), float(loss / weight)


@pytest.mark.parametrize(
  ("family", "student", "teacher"),
  [
    ("enct5", "bfloat16", "float32"),
    ("enct5", "float32", "bfloat16"),
    ("enct5", "bfloat16", "bfloat16"),
    ("bert", "bfloat16", "bfloat16"),
  ],
)
def test_bfloat16_learns_what_float32_learns(family, student, teacher):
  exact, loss = gradients(family)
  near, its_loss = gradients(family, student, teacher)
  # Eight bits of a mantissa: 2^-8 = 0.4 % of every number.
  assert its_loss == pytest.approx(loss, rel=0.01)
  apart = np.linalg.norm(near - exact) / np.linalg.norm(exact)
  assert 0 < apart < 0.03


def test_microbatches_in_bfloat16_are_one_batch():
  halves = "enct5", "bfloat16", "bfloat16"
  whole, loss = gradients(*halves)
  cut, its_loss = gradients(*halves, num_microbatches=2)
  assert its_loss == pytest.approx(loss, rel=1e-3)
  apart = np.linalg.norm(cut - whole) / np.linalg.norm(whole)
  assert apart < 0.01


def test_what_the_optimizer_keeps_is_float32():
  shape = dataclasses.replace(SHAPES["enct5"], dtype="bfloat16")
  mine, theirs = params("enct5")
  for name in ("adamw", "adafactor"):
    optimizer = make_optimizer(name, num_steps=10)
    state = TrainState(jnp.int32(0), mine, optimizer.init(mine))
    step = functools.partial(
      train_step,
      optimizer=optimizer,
      student=network(shape),
      teacher=network(shape),
      method=build_method(METHOD, TaskKind.CLASSES),
    )
    given = LEXICON, toy.make_batch(), prng.run_key(3)
    with jax.numpy_dtype_promotion("standard"):  # Optax needs it.
      after, _ = jax.eval_shape(
        step, state, cast_matrices(theirs, "bfloat16"), *given
      )
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} <= {
      jnp.dtype("float32"),
      jnp.dtype("int32"),
    }


def test_matrices_are_cast_and_vectors_are_not():
  theirs = params("enct5")[1]
  cast = cast_matrices(theirs, "bfloat16")
  for before, after in zip(
    jax.tree.leaves(theirs), jax.tree.leaves(cast), strict=True
  ):
    matrix = before.ndim > 1
    assert after.dtype == (jnp.bfloat16 if matrix else jnp.float32)
    np.testing.assert_allclose(after.astype("float32"), before, rtol=2**-8)
  shapes = jax.eval_shape(lambda: theirs)
  assert jax.eval_shape(lambda: cast) == cast_matrices(shapes, "bfloat16")
