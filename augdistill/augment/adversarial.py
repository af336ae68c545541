"""Views that move the student's embeddings once: along a gradient, at random.

References:
  Goodfellow et al. 2015, FGSM, arXiv:1412.6572; Wang et al. 2023, AugPro,
  arXiv:2210.11768, equation 2 and table 6.
"""

import dataclasses

import jax
import jax.numpy as jnp

from augdistill import prng
from augdistill.augment.offsets import (
  by_norm,
  check_size,
  draw_offset,
  moved_view,
  offset_unit,
  table_scale,
)
from augdistill.types import View, ViewMaker

DIRECTIONS = {"ascent": 1.0, "descent": -1.0, "random": None}


def perturb_by_sign(
  delta: float = 0.1, direction: str = "ascent", relative: bool = True
) -> ViewMaker:
  """FGSM: one step of size delta along the sign of the loss gradient.

    x' = x + delta sign(grad_x loss(x))

  The gradient is that of phase 1's own loss, which the step has anyway. The
  teacher's answer is that to the unperturbed text, and so is the label.

  Args:
    delta: size of the step in every dimension, >= 0; in units of the standard
      deviation of the student's embeddings.
    direction: "ascent", "descent" (the minus sign), or "random" (an
      independent fair sign in every dimension, the control of equal size).
    relative: False makes delta absolute, as papers give it.

  Returns:
    A maker of a view that enters the student at its embeddings.

  Raises:
    ValueError: if delta is negative or infinite, or the direction unknown.
  """
  check_size("delta", delta)
  if direction not in DIRECTIONS:
    raise ValueError(
      f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}"
    )

  def make(key, batch, clean, models, step):
    del step
    inputs = models.student.embed(
      models.student_params, batch.tokens[None], batch.mask[None]
    )
    words = inputs.embeddings
    if direction == "random":
      keys = prng.per_example(prng.stream(key, "sign"), batch.example_id)
      way = jax.vmap(lambda k: jax.random.rademacher(k, words.shape[2:]))(keys)
      way = way[None].astype(jnp.float32)
    else:
      way = DIRECTIONS[direction] * jnp.sign(clean.gradient.astype(jnp.float32))
    size = delta * table_scale(models) if relative else delta
    # The gradient at padding is 0 already; a random sign there is not.
    offset = jnp.where(batch.mask[None, ..., None], size * way, 0.0)
    offset = jax.lax.stop_gradient(offset).astype(words.dtype)
    return View(
      student=dataclasses.replace(inputs, embeddings=words + offset),
      teacher=clean.teacher,
      label=batch.label[None],
      has_label=batch.has_label[None],
      weight=batch.weight[None],
    )

  return ViewMaker(make, needs_clean=True)


def perturb_at_random(epsilon: float = 0.3, relative: bool = True) -> ViewMaker:
  """A random direction of a given norm: what an adversary has to beat.

    x' = x + epsilon u / |u|_2,  u ~ N(0, 1) at real positions

  Args:
    epsilon: the norm of each example's whole offset, >= 0; in norms of a
      typical embedding, see `offset_unit`.
    relative: False makes epsilon absolute.

  Returns:
    A maker of a view that enters the student at its embeddings; see
    `moved_view`. With epsilon 0 it is the batch itself.

  Raises:
    ValueError: if epsilon is negative or infinite.
  """
  check_size("epsilon", epsilon)

  def make(key, batch, clean, models, step):
    del step
    stream = prng.stream(key, "direction")
    way = by_norm(draw_offset(stream, batch, models, jax.random.normal))
    unit = offset_unit(models, "l2", relative)
    offset = epsilon * unit * way
    return moved_view(key, batch, clean.teacher, models, offset, unit)

  return ViewMaker(make, needs_clean=True)
