"""The step: a whole batch, cut or not, and the optimizer. Pure functions.

What happens on one microbatch is in `augdistill.training.phases`. Losses are
summed over rows, each divided by the weight of the whole batch, so
microbatches, padding rows and shards do not change the result.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key

from augdistill import prng
from augdistill.augment.mixing import gather_partners
from augdistill.training.phases import (
  check_models,
  draw_all_partners,
  microbatch,
)
from augdistill.types import (
  Batch,
  Lexicon,
  Method,
  Metrics,
  Models,
  Network,
  Params,
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
    ValueError: if `num_microbatches` does not divide B, or if the method needs
      a teacher or a clean batch that is not there.
  """
  models = Models(student, params, teacher, teacher_params, lexicon)
  models = check_models(models, method)
  key = prng.at_step(key, step)
  part = functools.partial(
    microbatch,
    key=key,
    models=models,
    method=method,
    step=step,
    teacher_dropout=teacher_dropout,
    share=1.0 / jnp.maximum(jnp.sum(batch.weight), 1.0),
  )
  rows = {
    name: gather_partners(batch, partners).partner
    for name, partners in draw_all_partners(method, batch, key).items()
  }
  if num_microbatches == 1:
    return part(batch, rows, key)
  return _accumulate(part, batch, rows, key, num_microbatches)


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

  def cut_all(tree, axis):
    return jax.tree.map(lambda x: cut(x, axis), tree)

  cuts = (
    cut_all(batch._replace(rewrites=None), 0)._replace(
      rewrites=cut_all(batch.rewrites, 1)
    ),
    cut_all(rows, 1),
    # Draws that belong to examples are keyed by them; dropout masks are not,
    # so every microbatch needs its own key for those.
    jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(parts)),
  )

  def body(sums, inputs):
    return jax.tree.map(jnp.add, sums, part(*inputs)), None

  shapes = jax.eval_shape(part, *jax.tree.map(lambda x: x[0], cuts))
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  return jax.lax.scan(body, zeros, cuts)[0]


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
  return apply_gradients(state, grads, metrics, optimizer)


def jitted_step(**what) -> Callable[..., tuple[TrainState, Metrics]]:
  """`train_step`, to be compiled, which gives its state away.

  Args:
    **what: keyword arguments of `train_step`.
  """
  return jax.jit(functools.partial(train_step, **what), donate_argnums=0)


def apply_gradients(
  state: TrainState,
  grads: Params,
  metrics: Metrics,
  optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Metrics]:
  """The state after an optimizer's step, and metrics with "gradient_norm"."""
  norm = (optax.tree.norm(grads), jnp.float32(1.0))
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  state = TrainState(state.step + 1, params, opt_state)
  return state, {**metrics, "gradient_norm": norm}
