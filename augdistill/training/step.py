"""The step, in two phases; pure functions of their arguments.

Phase 1 runs the clean batch once, with an offset of zero added to the
student's embeddings, and keeps the pullback to parameters and offset. The
clean loss pulls back once for both, so a view whose adversary is that loss
has its gradient for nothing; another target pulls back another cotangent
through the same linearisation. Phase 2 makes the other views inside its
differentiated function, where base embeddings stay live. The gradients add.

Losses are summed over rows and divided once by the weight of the whole batch,
so microbatches, padding rows and shards do not change the result.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from augdistill import prng
from augdistill.augment.mixing import gather_partners
from augdistill.losses.objective import summand
from augdistill.types import (
  Batch,
  Clean,
  Inputs,
  Lexicon,
  Method,
  Metrics,
  Models,
  Network,
  Outputs,
  Params,
  View,
)


class TrainState(NamedTuple):
  """All that changes from step to step; no key, no teacher.

  Attributes:
    step: i32[], steps done.
    params: the student's parameters.
    opt_state: the optimizer's state.
  """

  step: Int[Array, ""]
  params: Params
  opt_state: optax.OptState


def clean_view(batch: Batch) -> View:
  """The batch itself as a view of one copy."""
  inputs = Inputs(mask=batch.mask[None], tokens=batch.tokens[None])
  return View(
    student=inputs,
    teacher=inputs,
    label=batch.label[None],
    has_label=batch.has_label[None],
    weight=batch.weight[None],
  )


def grads_and_metrics(
  params: Params,
  teacher_params: Params | None,
  lexicon: Lexicon,
  batch: Batch,
  key: Key[Array, ""],
  step: Int[Array, ""],
  *,
  student: Network,
  teacher: Network | None,
  method: Method,
  teacher_dropout: bool = True,
  num_microbatches: int = 1,
) -> tuple[Params, Metrics]:
  """Gradients of a method's loss on one batch.

  Args:
    params: the student's parameters.
    teacher_params: the teacher's, or None without a teacher.
    lexicon: what the vocabulary allows augmentations to do.
    batch: B rows.
    key: the run's key; the step's key is derived here.
    step: i32[], the step's number.
    student: the student's network.
    teacher: the teacher's network, or None.
    method: what to minimise.
    teacher_dropout: whether the teacher drops out, as AugPro's does.
    num_microbatches: parts into which the batch is cut, to save memory; it
      must divide B. Without dropout the result does not depend on it.

  Returns:
    Gradients like `params`, and metrics as (sum, weight) pairs: "loss" and
    each view's terms and statistics.

  Raises:
    ValueError: if `num_microbatches` does not divide B.
  """
  key = prng.at_step(key, step)
  total = jnp.maximum(jnp.sum(batch.weight), 1.0)
  # Partners come from the whole batch and travel with their microbatch.
  rows = {
    view.name: gather_partners(
      batch,
      view.maker.partners(prng.stream(key, f"{view.name}/partners"), batch),
    ).partner
    for view in method.views
    if view.maker.partners
  }
  part = functools.partial(
    _microbatch,
    params,
    teacher_params,
    lexicon,
    step=step,
    student=student,
    teacher=teacher if method.needs_teacher else None,
    method=method,
    teacher_dropout=teacher_dropout,
  )
  if num_microbatches == 1:
    grads, metrics = part(batch, rows, key)
  else:
    grads, metrics = _accumulate(part, batch, rows, key, num_microbatches)
  grads = jax.tree.map(lambda g: g / total.astype(g.dtype), grads)
  return grads, metrics


def _accumulate(part, batch, rows, key, parts):
  """Sums of `part` over equal cuts of the batch, one after the other."""
  size = batch.weight.shape[0]
  if size % parts:
    raise ValueError(
      f"the number of microbatches must divide the batch size, got {parts} "
      f"and {size}"
    )

  def cut(x, axis):  # Row i goes to microbatch i % parts: shards stay whole.
    shape = (*x.shape[:axis], size // parts, parts, *x.shape[axis + 1 :])
    return jnp.moveaxis(x.reshape(shape), axis + 1, 0)

  cuts = (
    jax.tree.map(lambda x: cut(x, 0), batch),
    jax.tree.map(lambda x: cut(x, 1), rows),
    jnp.arange(parts),
  )

  def one(piece, mates, i):
    # Draws that belong to examples are keyed by them; dropout masks are not,
    # so every microbatch needs its own key for those.
    return part(piece, mates, key, dropout_key=jax.random.fold_in(key, i))

  def body(sums, inputs):
    piece, mates, i = inputs
    result = one(piece, mates, i)
    return jax.tree.map(jnp.add, sums, result), None

  zeros = jax.tree.map(
    lambda s: jnp.zeros(s.shape, s.dtype),
    jax.eval_shape(one, *jax.tree.map(lambda x: x[0], cuts)),
  )
  return jax.lax.scan(body, zeros, cuts)[0]


def _microbatch(
  params,
  teacher_params,
  lexicon,
  batch,
  rows,
  key,
  *,
  step,
  student,
  teacher,
  method,
  teacher_dropout,
  dropout_key=None,
):
  """Gradients and metrics of one microbatch, summed over its rows."""
  dropout_key = key if dropout_key is None else dropout_key

  def ask_teacher(inputs: Inputs | Outputs | None, name: str):
    if teacher is None or inputs is None or isinstance(inputs, Outputs):
      return inputs if teacher is not None else None
    dropout = (
      prng.stream(dropout_key, f"{name}/teacher") if teacher_dropout else None
    )
    outputs = teacher.forward(teacher_params, inputs, key=dropout)
    return jax.lax.stop_gradient(outputs)

  models = Models(student, params, teacher, teacher_params, lexicon)
  grads, loss, metrics, clean = None, 0.0, {}, None
  if method.clean is not None:
    grads, loss, metrics, clean = _phase_one(
      batch, dropout_key, step, models, method, ask_teacher
    )

  def views_loss(params):
    live = models._replace(student_params=params)
    total, metrics = jnp.float32(0.0), {}
    for weighted in method.views:
      mine = batch._replace(partner=rows.get(weighted.name))
      view = weighted.maker.make(
        prng.stream(key, weighted.name), mine, clean, live, step
      )
      outputs = student.forward(
        params,
        view.student,
        key=prng.stream(dropout_key, f"{weighted.name}/student"),
      )
      answers = ask_teacher(view.teacher, weighted.name)
      one, its_metrics = summand(
        weighted, outputs, answers, view, clean, live, step
      )
      total, metrics = total + one, metrics | its_metrics
    return total, metrics

  if method.views:
    (more, its_metrics), more_grads = jax.value_and_grad(
      views_loss, has_aux=True
    )(params)
    grads = (
      more_grads if grads is None else jax.tree.map(jnp.add, grads, more_grads)
    )
    loss, metrics = loss + more, metrics | its_metrics
  return grads, {"loss": (loss, jnp.sum(batch.weight))} | metrics


def _phase_one(batch, dropout_key, step, models, method, ask_teacher):
  """The clean batch: gradients, loss, metrics, and what views may read."""
  student, params = models.student, models.student_params
  view = clean_view(batch)
  answers = ask_teacher(view.teacher, "clean")
  dropout = prng.stream(dropout_key, "clean/student")

  def run(params, offset):
    words = student.embed(params, batch.tokens)[None] + offset
    inputs = Inputs(mask=view.student.mask, embeddings=words)
    return student.forward(params, inputs, key=dropout)

  shape = jax.eval_shape(student.embed, params, batch.tokens)
  offset = jnp.zeros((1, *shape.shape), shape.dtype)
  outputs, pull_back = jax.vjp(run, params, offset)

  def loss_of(outputs):
    return summand(method.clean, outputs, answers, view, None, models, step)

  (loss, metrics), cotangent = jax.value_and_grad(loss_of, has_aux=True)(
    outputs
  )
  grads, gradient = pull_back(cotangent)
  clean = Clean(
    student=jax.lax.stop_gradient(outputs),
    teacher=answers,
    gradient=gradient,
    pull_back=lambda cotangent: pull_back(cotangent)[1],
  )
  return grads, loss, metrics, clean


def train_step(
  state: TrainState,
  teacher_params: Params | None,
  lexicon: Lexicon,
  batch: Batch,
  key: Key[Array, ""],
  *,
  optimizer: optax.GradientTransformation,
  **what,
) -> tuple[TrainState, Metrics]:
  """One step: `grads_and_metrics`, then the optimizer.

  Args:
    state: before the step.
    teacher_params: the teacher's parameters, or None; never donated.
    lexicon: what the vocabulary allows augmentations to do.
    batch: B rows.
    key: the run's key.
    optimizer: an optax transformation.
    **what: keyword arguments of `grads_and_metrics`.

  Returns:
    The state after the step, and metrics, with "gradient_norm".
  """
  grads, metrics = grads_and_metrics(
    state.params, teacher_params, lexicon, batch, key, state.step, **what
  )
  metrics["gradient_norm"] = (optax.global_norm(grads), jnp.float32(1.0))
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  return TrainState(state.step + 1, params, opt_state), metrics
