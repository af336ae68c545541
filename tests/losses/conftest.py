"""Outputs and views made of logits and labels alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.types import Inputs, Models, Outputs, View


def outputs_of(logits):
  """Outputs with these logits [n, M, C]."""
  logits = jnp.asarray(logits)
  return Outputs(logits, pooled=jnp.zeros((*logits.shape[:-1], 1)))


def view_of(shape, label=None, has_label=None, weight=None, stats=None):
  """A view of `shape` [n, M]; by default all rows count and have a label."""

  def or_ones(x, dtype):
    return jnp.ones(shape, dtype) if x is None else jnp.asarray(x, dtype)

  inputs = Inputs(mask=jnp.ones((*shape, 1), bool))
  return View(
    student=inputs,
    teacher=inputs,
    label=None if label is None else jnp.asarray(label),
    has_label=or_ones(has_label, bool),
    weight=or_ones(weight, jnp.float32),
    stats=stats or {},
  )


@pytest.fixture(scope="session")
def make_outputs():
  return outputs_of


@pytest.fixture(scope="session")
def make_view():
  return view_of


@pytest.fixture(scope="session")
def models():
  """What terms without parameters of their own never read."""
  return Models(None, {}, None, None, None)


@pytest.fixture(scope="session")
def evaluate():
  """(term, student, teacher=None, label=None, has_label=None) -> [n, M]."""

  @functools.partial(jax.jit, static_argnums=0)
  def evaluate(term, student, teacher=None, label=None, has_label=None):
    shape = np.shape(student)[:-1]
    return term(
      outputs_of(student),
      None if teacher is None else outputs_of(teacher),
      view_of(shape, label, has_label),
      None,
      None,
    )

  return evaluate
