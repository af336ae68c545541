"""Offsets of the student's embeddings: units, norms, and the view they make.

An offset is f32[n, B, L, D], 0 at padding. Its size is that of an example's
whole offset, all positions together, in the l2 or the linf norm.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from augdistill import prng
from augdistill.augment.projection import estimate_replaced
from augdistill.types import Batch, Models, Outputs, View


def table_scale(models: Models) -> Float[Array, ""]:
  """Standard deviation of the student's producible embeddings, per dimension.

  The unit in which perturbations are given by default: a delta that fits one
  table then fits another.
  """
  table = models.student.table(models.student_params).astype(jnp.float32)
  return jnp.std(table, where=models.lexicon.producible[:, None])


def num_entries(batch: Batch, models: Models) -> Float[Array, "1 B 1 1"]:
  """Real positions times D: entries of each text's embeddings, at least 1."""
  emb_dim = models.student.table(models.student_params).shape[-1]
  entries = emb_dim * jnp.sum(batch.mask, axis=-1)
  return jnp.maximum(entries, 1).astype(jnp.float32)[None, :, None, None]


def offset_unit(models: Models, norm: str, relative: bool) -> Float[Array, ""]:
  """How far an offset of size 1 reaches.

  A relative size is in standard deviations of the student's table for "linf",
  which bounds every entry, and for "l2" in

    table_scale sqrt(D)

  the norm of one typical embedding. So a number means the same to tables of
  every scale and width. A ball of this kind is as large for a long text as for
  a short one, and harms it as much: attention reads few positions, so that the
  gradient of a longer text is, if anything, the larger one.

  Args:
    models: for the student's table.
    norm: "l2" or "linf".
    relative: False gives 1: sizes are absolute, as papers give them.

  Returns:
    f32[].
  """
  if not relative:
    return jnp.float32(1.0)
  scale = jax.lax.stop_gradient(table_scale(models))
  emb_dim = models.student.table(models.student_params).shape[-1]
  return scale * math.sqrt(emb_dim) if norm == "l2" else scale


def draw_offset(
  key: Key[Array, ""],
  batch: Batch,
  models: Models,
  draw: Callable[..., Float[Array, "L D"]],
) -> Float[Array, "1 B L D"]:
  """Independent entries for each example, 0 at padding.

  Args:
    key: of this draw.
    batch: the rows.
    models: for the width of the student's table.
    draw: (key, shape) -> f32[L, D].
  """
  emb_dim = models.student.table(models.student_params).shape[-1]
  shape = (batch.tokens.shape[-1], emb_dim)
  keys = prng.per_example(key, batch.example_id)
  drawn = jax.vmap(lambda k: draw(k, shape))(keys)
  return at_words(batch, drawn[None])


def at_words(
  batch: Batch, x: Float[Array, "n B L D"]
) -> Float[Array, "n B L D"]:
  """x in float32, and 0 at padding."""
  return jnp.where(batch.mask[None, ..., None], x.astype(jnp.float32), 0.0)


def norm_of(
  offset: Float[Array, "n B L D"], norm: str
) -> Float[Array, "n B 1 1"]:
  """The "l2" or "linf" norm of each example's whole offset."""
  if norm == "linf":
    return jnp.max(jnp.abs(offset), axis=(-2, -1), keepdims=True)
  square = jnp.sum(jnp.square(offset), axis=(-2, -1), keepdims=True)
  return jnp.sqrt(square)


def by_largest(x: Float[Array, "n B L D"]) -> Float[Array, "n B L D"]:
  """x / |x|_inf for each example; 0 if it is 0 or not finite."""
  largest = norm_of(x, "linf")
  fine = (largest > 0) & jnp.isfinite(largest)
  return jnp.where(fine, x / jnp.where(fine, largest, 1.0), 0.0)


def by_norm(x: Float[Array, "n B L D"]) -> Float[Array, "n B L D"]:
  """x / |x|_2 for each example; 0 if it is 0 or not finite."""
  x = by_largest(x)  # So that no square over- or underflows.
  norm = norm_of(x, "l2")
  return x / jnp.where(norm > 0, norm, 1.0)


def project(
  offset: Float[Array, "n B L D"], radius: Float[Array, ""], norm: str
) -> Float[Array, "n B L D"]:
  """The nearest point of each example's ball, "l2" or "linf"."""
  if norm == "linf":
    return jnp.clip(offset, -radius, radius)
  size = norm_of(offset, norm)
  outside = size > radius
  return (
    jnp.where(outside, radius / jnp.where(outside, size, 1.0), 1.0) * offset
  )


def moved_view(
  key: Key[Array, ""],
  batch: Batch,
  answers: Outputs | None,
  models: Models,
  offset: Float[Array, "n B L D"],
  unit: Float[Array, ""],
  norm: str = "l2",
) -> View:
  """The batch with the student's embeddings moved, n times.

  Args:
    key: of the sample of tokens in the statistics.
    batch: the rows.
    answers: the teacher's outputs on them, n = 1, or None.
    models: the student, whose embeddings stay live.
    offset: by how much; a constant, 0 at padding.
    unit: in which its size is reported.
    norm: that size, "l2" or "linf".

  Returns:
    A view that enters the student at its embeddings, with the label and the
    teacher's answer of the batch. "norm" is the mean size of the offset
    that arrived, "replaced" the share of tokens that are nearest to another
    one by now.
  """
  clean = models.student.embed(
    models.student_params, batch.tokens[None], batch.mask[None]
  )
  words = clean.embeddings
  moved = words + jax.lax.stop_gradient(offset).astype(words.dtype)
  # What is left of a tiny offset where embeddings are large: it is rounded.
  arrived = moved.astype(jnp.float32) - words.astype(jnp.float32)
  size = norm_of(jax.lax.stop_gradient(arrived), norm)
  size = size / jnp.where(unit > 0, unit, 1.0)

  def copies(x):
    return jnp.broadcast_to(x, (offset.shape[0], *x.shape[1:]))

  inputs = jax.tree.map(copies, dataclasses.replace(clean, embeddings=None))
  weight = copies(batch.weight[None])
  sizes = jnp.where(weight > 0, size[..., 0, 0], 0.0)
  sample = prng.stream(key, "replaced")
  return View(
    student=dataclasses.replace(inputs, embeddings=moved),
    teacher=jax.tree.map(copies, answers),
    label=copies(batch.label[None]),
    has_label=copies(batch.has_label[None]),
    weight=weight,
    stats={
      "norm": (jnp.sum(sizes), jnp.sum(weight)),
      "replaced": estimate_replaced(sample, moved, batch, models),
    },
  )


def check_size(name: str, size: float) -> None:
  """Raises ValueError unless `size` is a number >= 0."""
  if not 0 <= size < math.inf:
    raise ValueError(f"{name} must be a number >= 0, got {size}")
