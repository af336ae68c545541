"""Operations counted by hand, in loops, branches and derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.training.flops import (
  Costs,
  costs_of,
  count_elementwise,
  count_flops,
  mean_of,
  part,
)
from augdistill.training.methods import build_method
from augdistill.training.step import grads_and_metrics
from augdistill.types import TaskKind
from tests import toy

A, B = jnp.ones((3, 5)), jnp.ones((5, 7))
PRODUCT = 2 * 3 * 5 * 7


def test_a_product_of_matrices_is_two_m_k_n():
  assert count_flops(jnp.matmul, A, B) == {"": PRODUCT}
  batched = jnp.ones((4, 3, 5)), jnp.ones((4, 5, 7))
  assert count_flops(jnp.matmul, *batched) == {"": 4 * PRODUCT}
  shapes = jax.ShapeDtypeStruct((3, 5), A.dtype), B
  assert count_flops(jnp.matmul, *shapes) == {"": PRODUCT}
  assert count_flops(lambda x: jnp.tanh(x) + 1, A) == {}


def test_a_convolution_is_a_product_per_output():
  x, kernel = jnp.ones((2, 3, 10)), jnp.ones((4, 3, 5))
  flops = count_flops(
    lambda x, k: jax.lax.conv_general_dilated(x, k, (1,), "VALID"), x, kernel
  )
  assert flops == {"": 2 * (3 * 5) * (2 * 4 * 6)}


def test_the_body_of_a_loop_counts_as_often_as_it_runs():
  square = jnp.ones((5, 5))

  def scanned(x, w):
    return jax.lax.scan(lambda c, _: (c @ w, None), x, length=6)[0]

  def looped(x, w):
    return jax.lax.fori_loop(0, 6, lambda _, c: c @ w, x)

  once = 2 * 3 * 5 * 5
  assert count_flops(scanned, A, square) == {"": 6 * once}
  assert count_flops(looped, A, square) == {"": 6 * once}
  nested = count_flops(
    lambda x, w: jax.lax.scan(lambda c, _: (scanned(c, w), None), x, length=2)[
      0
    ],
    A,
    square,
  )
  assert nested == {"": 12 * once}


def test_what_is_moved_is_what_products_read_and_write():
  def scanned(x, w):
    step = jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, length=6)
    return step[0]

  square = jnp.ones((5, 5))
  costs = costs_of(jax.make_jaxpr(scanned)(A, square))
  assert costs.moved == 6 * 4 * (3 * 5 + 5 * 5 + 3 * 5)
  assert costs.by_dtype == {"float32": 6 * 2 * 3 * 5 * 5}
  half = costs_of(jax.make_jaxpr(scanned)(*map(_half, (A, square))))
  assert half.moved == costs.moved // 2
  assert half.by_dtype == {"bfloat16": costs.by_dtype["float32"]}


def _half(x):
  return x.astype(jnp.bfloat16)


def test_what_goes_element_by_element_is_counted_apart():
  def update(x, i):
    x = jnp.reshape(x + x, (5, 3)) * 2.0  # Two; to reshape is no operation.
    return jnp.sum(x), i + 1  # A sum is one more; a whole number is none.

  assert count_elementwise(update, A, jnp.int32(0)) == 3 * 15
  looped = count_elementwise(
    lambda x: jax.lax.scan(lambda c, _: (c + c, None), x, length=4), A
  )
  assert looped == 4 * 15


def test_a_mean_is_weighted_by_how_often_a_program_runs():
  one = Costs({"a": 4}, {"float32": 4}, 8)
  other = Costs({"b": 8}, {"float32": 8}, 16)
  assert mean_of([(0.75, one), (0.25, other)]) == Costs(
    {"a": 3, "b": 2}, {"float32": 5}, 10
  )


def test_the_costliest_branch_counts():
  def branched(flag, x, y):
    return jax.lax.cond(flag, lambda: (x @ y) @ y.T, lambda: x)

  flops = count_flops(branched, jnp.bool_(True), A, B)
  assert flops == {"": 2 * PRODUCT}


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, jax.vmap])
def test_what_is_wrapped_counts(wrap):
  x, y = (A, B) if wrap is not jax.vmap else (A[None], B[None])
  assert count_flops(wrap(jnp.matmul), x, y).total() == PRODUCT


def test_a_derivative_of_a_product_is_two_more():
  def loss(x, y):
    return jnp.sum(x @ y)

  both = count_flops(jax.value_and_grad(loss, argnums=(0, 1)), A, B)
  assert both.total() == 3 * PRODUCT


def test_parts_are_told_apart_also_in_their_derivatives():
  def loss(x, y):
    with part("clean", "student"), jax.named_scope("layer"):
      h = jax.jit(lambda x, y: jnp.tanh(x @ y))(x, y)
    with part("mixup", "view"):
      return jnp.sum(h.T @ x)

  flops = count_flops(jax.value_and_grad(loss, argnums=(0, 1)), A, B)
  assert flops == {"clean:student": 3 * PRODUCT, "mixup:view": 3 * PRODUCT}


def test_the_outer_part_counts():
  def nested(x, y):
    with part("a", "student"):
      x = jnp.tanh(x)
      with part("b", "view"):
        return x @ y

  assert count_flops(nested, A, B) == {"a:student": PRODUCT}


def test_a_view_pays_for_pulling_back_through_another_part():
  def step(x, y):
    with part("clean", "student"):
      out, pull_back = jax.vjp(jnp.matmul, x, y)
    with part("ad2", "view"):
      return pull_back(out)[0]

  # The cotangent of the other argument is read by nobody.
  made = count_flops(step, A, B)
  assert made == {"clean:student": PRODUCT, "ad2:view": PRODUCT}


def test_parts_do_not_change_what_is_computed():
  def plain(x, y):
    return x @ y

  def named(x, y):
    with part("a", "student"):
      return x @ y

  np.testing.assert_array_equal(jax.jit(plain)(A, B), jax.jit(named)(A, B))


def test_a_step_is_counted_by_view():
  batch = jax.tree.map(jnp.asarray, toy.make_batch())
  flops = count_flops(
    functools.partial(
      grads_and_metrics,
      student=toy.STUDENT,
      teacher=toy.TEACHER,
      method=build_method("kd+augpro_mix", TaskKind.CLASSES),
    ),
    toy.STUDENT_PARAMS,
    toy.TEACHER_PARAMS,
    jax.tree.map(jnp.asarray, toy.LEXICON),
    batch,
    jax.random.key(1),
    jnp.int32(0),
  )
  assert set(flops) == {
    *("clean:student", "clean:teacher"),
    *("augpro_mix:view", "augpro_mix:student", "augpro_mix:teacher"),
  }
  width, rows = 7, toy.ROWS * toy.LENGTH  # In the teacher's space.
  # The projection: every position against every row of the table.
  assert flops["augpro_mix:view"] >= 2 * rows * width * toy.VOCAB
  assert flops["clean:student"] > flops["clean:teacher"]
