"""Views that climb a loss in the space of the student's embeddings.

    delta = argmax over |delta| <= epsilon of loss(S(x + delta))

by steps along the gradient, each followed by a projection onto the ball. Every
example has its own ball and the gradient of its own loss, so its offset depends
on no other row. `offset_unit` says in which units sizes are given.

References:
  Madry et al. 2018, PGA, arXiv:1706.06083; Zhang et al. 2022, AD2: Adversarial
  Data Augmentation for Task-Specific Knowledge Distillation of Pre-trained
  Transformers, algorithm 1; Zhu et al. 2020, FreeLB, arXiv:1909.11764,
  algorithm 1; Jiang et al. 2020, SMART, arXiv:1911.03437, algorithm 1.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from augdistill import prng
from augdistill.augment.offsets import (
  at_words,
  by_largest,
  by_norm,
  check_size,
  draw_offset,
  moved_view,
  num_entries,
  offset_unit,
  project,
)
from augdistill.types import (
  Batch,
  Clean,
  LossTerm,
  Models,
  Outputs,
  View,
  ViewMaker,
  clean_view,
)

# The steepest way up, of norm 1.
STEEPEST = {"l2": by_norm, "linf": lambda x: jnp.sign(by_largest(x))}


def ascend_in_ball(
  roles: Mapping[str, LossTerm],
  steps: int = 1,
  epsilon: float = 0.3,
  step_size: float | None = None,
  norm: str = "l2",
  relative: bool = True,
  target: str | None = None,
) -> ViewMaker:
  """AD2: K steps of projected gradient ascent, away from the teacher.

    delta_0 = 0
    delta_k = project(delta_k-1 + step_size g / |g|_2)     (l2)
    delta_k = project(delta_k-1 + step_size sign(g))       (linf)
    g = gradient of target(S(x + delta_k-1), T(x)) with respect to x

  The first step pulls the target back through the clean batch's own
  linearisation, dropout included, and runs nothing; each of the others runs
  the student there and back, without dropout.

  Args:
    roles: the terms that a target may name.
    steps: K >= 1.
    epsilon: radius of the ball of each example's whole offset, >= 0; in norms
      of a typical embedding, see `offset_unit`.
    step_size: length of a step, >= 0; None for epsilon, so that a single step
      reaches the boundary.
    norm: "l2" or "linf".
    relative: False makes epsilon and step_size absolute, as the paper gives
      them: 1e-5 and 1e-3, for BERT.
    target: "teacher", the distance to the teacher's answer to the clean text,
      or "label"; None for the teacher where there is one.

  Returns:
    A maker of a view that enters the student at its embeddings; see
    `moved_view`. With epsilon 0 it is the batch itself, and a row whose
    gradient is 0 (one without a label, say) stays where it is.

  Raises:
    ValueError: if steps < 1, a size is negative or infinite, the norm or the
      target unknown, or the target's term is not there.
  """
  term = _target_term(roles, target)
  step_size = epsilon if step_size is None else step_size
  _check_steps(steps, epsilon=epsilon, step_size=step_size)
  if norm not in STEEPEST:
    raise ValueError(f"norm must be one of {', '.join(STEEPEST)}, got {norm!r}")

  def make(key, batch, clean, models, step):
    del step
    fixed = _constant(models)
    loss = _sum_of(term, clean.teacher, clean.view, clean, fixed)
    unit = offset_unit(fixed, norm, relative)

    def climb(offset, gradient):
      way = STEEPEST[norm](at_words(batch, gradient))
      return project(offset + step_size * unit * way, epsilon * unit, norm)

    first = clean.pull_back(jax.grad(loss)(clean.student))
    offset = climb(jnp.zeros(first.shape), first)
    if steps > 1:
      gradient_at = _gradient_of(loss, batch, fixed)
      offset = jax.lax.fori_loop(
        1, steps, lambda _, x: climb(x, gradient_at(x)), offset
      )
    return moved_view(key, batch, clean.teacher, models, offset, unit, norm)

  return ViewMaker(make, needs_clean=True)


def ascend_freely(
  roles: Mapping[str, LossTerm],
  steps: int = 3,
  epsilon: float = 0.3,
  step_size: float | None = None,
  relative: bool = True,
  target: str | None = None,
) -> ViewMaker:
  """FreeLB: every point of a climb from a random start is a copy.

    delta_0 = epsilon u / sqrt(real positions * D),  u ~ U(-1, 1)
    delta_t = project(delta_t-1 + step_size g / |g|_2),  t = 1 ... K - 1
    g = gradient of target(S(x + delta_t-1), .) with respect to x

  K copies, x + delta_0 to x + delta_K-1, which share their example's weight.
  FreeLB trains on nothing else; here that is a base with `clean=false`. (It
  takes both gradients, of x and of the parameters, from one pass. A view is
  made before it is learnt from, so the K - 1 steps of the climb are passes of
  their own, without dropout.)

  Args:
    roles: the terms that a target may name.
    steps: K >= 1, the number of copies.
    epsilon: radius of the l2 ball of each example's whole offset, >= 0; in
      norms of a typical embedding, see `offset_unit`.
    step_size: length of a step, >= 0; None for epsilon / K.
    relative: False makes epsilon and step_size absolute, as the paper does.
    target: "teacher", the distance to the teacher's answer to the clean text,
      or "label", FreeLB's; None for the teacher where there is one.

  Returns:
    A maker of a view of K copies that enters the student at its embeddings;
    see `moved_view`. With epsilon 0 they are the batch itself.

  Raises:
    ValueError: if steps < 1, a size is negative or infinite, the target
      unknown, or the target's term is not there.
  """
  term = _target_term(roles, target)
  _check_steps(steps, epsilon=epsilon)
  step_size = epsilon / steps if step_size is None else step_size
  check_size("step_size", step_size)

  def make(key, batch, clean, models, step):
    del step
    fixed = _constant(models)
    itself = clean_view(batch)
    if clean is None:
      answers = fixed.ask_teacher(itself.teacher, fixed.teacher_key)
    else:
      answers = clean.teacher
    loss = _sum_of(term, answers, itself, clean, fixed)
    gradient_at = _gradient_of(loss, batch, fixed)
    unit = offset_unit(fixed, "l2", relative)
    uniform = functools.partial(jax.random.uniform, minval=-1.0)
    noise = draw_offset(prng.stream(key, "start"), batch, fixed, uniform)
    start = epsilon * unit * noise / jnp.sqrt(num_entries(batch, fixed))

    def climb(offset, _):
      way = by_norm(at_words(batch, gradient_at(offset)))
      offset = project(offset + step_size * unit * way, epsilon * unit, "l2")
      return offset, offset[0]

    _, others = jax.lax.scan(climb, start, length=steps - 1)
    offset = jnp.concatenate([start, others])
    return moved_view(key, batch, answers, models, offset, unit)

  return ViewMaker(make)


def ascend_from_noise(
  roles: Mapping[str, LossTerm],
  steps: int = 1,
  epsilon: float = 0.1,
  step_size: float = 10.0,
  sigma: float = 0.1,
  relative: bool = True,
) -> ViewMaker:
  """SMART: where near the text does the student answer most differently?

    delta_0 = sigma u,  u ~ N(0, 1)
    delta_k = project(delta_k-1 + step_size g / |g|_inf)
    g = gradient of smoothness(S(x + delta_k-1), S(x)) with respect to x

  The target has no slope at delta = 0, hence the noise. The term is SMART's
  symmetrised divergence from the student's own answer to the clean text.
  (SMART's code divides by the largest entry of each position, its paper by
  that of the example, as here.) Neither answer drops out.

  Args:
    roles: has the term "smoothness".
    steps: K >= 1.
    epsilon: largest entry of an offset, >= 0; in standard deviations of the
      embeddings.
    step_size: that of a step, >= 0. Defaults are in SMART's proportions,
      1 : 100 : 1: nearly every entry ends at the ball's face.
    sigma: standard deviation of the noise, >= 0.
    relative: False makes the three absolute, as the paper gives them: 1e-5,
      1e-3 and 1e-5.

  Returns:
    A maker of a view that enters the student at its embeddings; see
    `moved_view`. With epsilon 0 it is the batch itself.

  Raises:
    ValueError: if steps < 1, a size is negative or infinite, or there is no
      term "smoothness".
  """
  term = _term_of(roles, "smoothness")
  _check_steps(steps, epsilon=epsilon, step_size=step_size, sigma=sigma)

  def make(key, batch, clean, models, step):
    del step
    fixed = _constant(models)
    loss = _sum_of(term, clean.teacher, clean.view, clean, fixed)
    gradient_at = _gradient_of(loss, batch, fixed)
    unit = offset_unit(fixed, "linf", relative)
    stream = prng.stream(key, "start")
    noise = draw_offset(stream, batch, fixed, jax.random.normal)

    def climb(_, offset):
      way = by_largest(at_words(batch, gradient_at(offset)))
      return project(offset + step_size * unit * way, epsilon * unit, "linf")

    offset = jax.lax.fori_loop(0, steps, climb, sigma * unit * noise)
    return moved_view(key, batch, clean.teacher, models, offset, unit, "linf")

  return ViewMaker(make, needs_clean=True)


def _sum_of(
  term: LossTerm,
  answers: Outputs | None,
  view: View,
  clean: Clean | None,
  models: Models,
) -> Callable[[Outputs], Float[Array, ""]]:
  """A term as a function of the student's outputs, summed: rows stay apart."""
  return lambda outputs: jnp.sum(term(outputs, answers, view, clean, models))


def _gradient_of(
  loss: Callable[[Outputs], Float[Array, ""]], batch: Batch, models: Models
) -> Callable[[Float[Array, "1 B L D"]], Float[Array, "1 B L D"]]:
  """The gradient of `loss` at an offset: one pass of the student, and back."""
  clean = models.student.embed(
    models.student_params, batch.tokens[None], batch.mask[None]
  )

  def loss_at(offset):
    moved = clean.embeddings + offset.astype(clean.embeddings.dtype)
    inputs = dataclasses.replace(clean, embeddings=moved)
    return loss(models.student.forward(models.student_params, inputs))

  return jax.grad(loss_at)


def _constant(models: Models) -> Models:
  """The models with a student that takes no gradient from an adversary."""
  params = jax.lax.stop_gradient(models.student_params)
  return models._replace(student_params=params)


def _target_term(roles: Mapping[str, LossTerm], target: str | None) -> LossTerm:
  """The term to climb; None: the teacher's, or without a teacher the label's.

  Raises:
    ValueError: if there is none of that name.
  """
  if target is None:
    target = "teacher" if "teacher" in roles else "label"
  if target not in ("teacher", "label"):
    raise ValueError(f"target must be teacher or label, got {target!r}")
  return _term_of(roles, target)


def _term_of(roles: Mapping[str, LossTerm], role: str) -> LossTerm:
  if role not in roles:
    raise ValueError(
      f"the method must have a term of role {role!r} to climb, got "
      f"{', '.join(roles) or 'none'}"
    )
  return roles[role]


def _check_steps(steps: int, **sizes: float) -> None:
  """Raises ValueError unless steps >= 1 and the sizes are numbers >= 0."""
  if steps < 1:
    raise ValueError(f"steps must be at least 1, got {steps}")
  for name, size in sizes.items():
    check_size(name, size)
