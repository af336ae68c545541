"""Copies: n draws of a view per example, and the original beside them.

References:
  Yi et al. 2021, MMEL, arXiv:2103.08933: B(x) holds x itself (equation 1).
"""

import dataclasses

import jax
import jax.numpy as jnp

from augdistill import prng
from augdistill.errors import UsageError
from augdistill.types import (
  Batch,
  Inputs,
  Models,
  Network,
  Outputs,
  Params,
  View,
  ViewMaker,
)


def repeat(maker: ViewMaker, copies: int) -> ViewMaker:
  """`copies` independent draws of `maker`'s view, stacked on the copy axis.

  Args:
    maker: of a view with one copy.
    copies: n >= 1.

  Returns:
    A maker of a view with n copies, [n, M, ...] throughout.

  Raises:
    ValueError: if `copies` is less than 1.
  """
  if copies < 1:
    raise ValueError(f"copies must be at least 1, got {copies}")
  if copies == 1:
    return maker

  def stack(trees):
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *trees)

  def copy_key(key, copy):
    return prng.stream(key, f"copy {copy}")

  def partners(key, batch):
    return stack(
      [maker.partners(copy_key(key, i), batch) for i in range(copies)]
    )

  def make(key, batch, clean, models, step):
    def one(i):
      partner = jax.tree.map(lambda x: x[i : i + 1], batch.partner)
      mine = batch._replace(partner=partner)
      return maker.make(copy_key(key, i), mine, clean, models, step)

    views = [one(i) for i in range(copies)]
    stats = {
      name: tuple(map(sum, zip(*(v.stats[name] for v in views), strict=True)))
      for name in views[0].stats
    }
    return stack([v._replace(stats={}) for v in views])._replace(stats=stats)

  return dataclasses.replace(
    maker, make=make, partners=partners if maker.partners else None
  )


def with_original(view: ViewMaker) -> ViewMaker:
  """The set B(x) of MMEL: the example itself as copy 0, then its copies.

  Args:
    view: makes the copies, which enter at tokens or at embeddings.

  Returns:
    A maker of a view with one copy more. Copy 0 has the example's label; the
    others have theirs, or none.

  Raises:
    UsageError: when a view is made, if it enters at hidden states.
  """

  def make(key, batch, clean, models, step):
    made = view.make(key, batch, clean, models, step)
    original = _original(batch, models, made)
    label, has_label = made.label, made.has_label
    if label is None:
      label = jnp.zeros((*has_label.shape, batch.label.shape[-1]))
      has_label = jnp.zeros_like(has_label)
    rest = made._replace(label=label, has_label=has_label, stats={})
    joined = jax.tree.map(lambda *xs: jnp.concatenate(xs), original, rest)
    return joined._replace(stats=made.stats)

  return dataclasses.replace(view, make=make)


def without_original(view: ViewMaker) -> ViewMaker:
  """The set B(x) of MMEL-soft: the copies alone.

  Args:
    view: makes the copies.

  Returns:
    The same maker.
  """
  return view


def _original(batch: Batch, models: Models, beside: View) -> View:
  """The example as a view that enters where `beside` does."""

  def inputs(like: Inputs, network: Network, params: Params) -> Inputs:
    tokens, mask = batch.tokens[None], batch.mask[None]
    if like.tokens is not None:
      return Inputs(mask=mask, tokens=tokens)
    if like.embeddings is not None:
      return network.embed(params, tokens, mask)
    raise UsageError(
      "the original stands only beside a view that enters at tokens or at "
      "embeddings, got one that enters at hidden states"
    )

  teacher = beside.teacher
  if isinstance(teacher, Outputs):  # To the original, for every copy.
    teacher = jax.tree.map(lambda x: x[:1], teacher)
  elif teacher is not None:
    teacher = inputs(teacher, models.teacher, models.teacher_params)
  return View(
    student=inputs(beside.student, models.student, models.student_params),
    teacher=teacher,
    label=batch.label[None],
    has_label=batch.has_label[None],
    weight=batch.weight[None],
  )
