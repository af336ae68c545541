"""The two phases of a step, on one microbatch.

Phase 1 runs the clean batch once, with an offset of zero added to the
student's embeddings, and keeps the pullback to parameters and offset. The
clean loss pulls back once for both, so a view whose adversary is that loss
has its gradient for nothing; another target pulls back another cotangent
through the same linearisation. Phase 2 makes the other views inside its
differentiated function, where base embeddings stay live. The gradients add.
"""

import dataclasses
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from augdistill import prng
from augdistill.errors import UsageError, said_of
from augdistill.losses.objective import summand
from augdistill.training.flops import part
from augdistill.types import (
  Batch,
  Clean,
  Inputs,
  Method,
  Metrics,
  Models,
  Network,
  Params,
  View,
  WeightedView,
  clean_view,
)


def check_models(models: Models, method: Method) -> Models:
  """The models as a method may use them: without teacher if it needs none.

  Raises:
    ValueError: if it needs a teacher or a clean batch that is not there.
  """
  if method.needs_teacher and models.teacher is None:
    raise ValueError(f"the method {method.name!r} needs a teacher, got None")
  for view in method.views:
    if view.maker.needs_clean and method.clean is None:
      raise ValueError(
        f"the view {view.name!r} reads the clean batch, which the method "
        f"{method.name!r} does not have"
      )
  if method.needs_teacher:
    return models
  return models._replace(teacher=None, teacher_params=None)


def draw_all_partners(
  method: Method, batch: Batch, key: Key[Array, ""]
) -> dict[str, Int[Array, "n B"]]:
  """View -> the row that each row is mixed with, where a view mixes rows.

  Args:
    method: whose views they are for.
    batch: all B rows of the step, before it is cut into microbatches.
    key: the step's key.

  Returns:
    i32[n, B] under the name of each view that mixes rows.
  """
  return {
    view.name: view.maker.partners(
      prng.stream(key, f"{view.name}/partners"), batch
    )
    for view in method.views
    if view.maker.partners
  }


def phase_one(
  batch: Batch,
  dropout_key: Key[Array, ""],
  step: Int[Array, ""],
  models: Models,
  method: Method,
  teacher_dropout: bool,
  share: Float[Array, ""] | float = 1.0,
) -> tuple[Params, Array, Metrics, Clean]:
  """The clean batch: gradients, loss, metrics, and what views may read.

  Args:
    batch: the rows.
    dropout_key: of the dropout masks of this microbatch.
    step: i32[], the step's number.
    models: the student and the teacher.
    method: what to minimise; it has a clean summand.
    teacher_dropout: whether the teacher drops out.
    share: the gradients are of the loss times this number.

  Returns:
    Gradients; loss and metrics, summed over rows; and the `Clean`.
  """
  student, params = models.student, models.student_params
  view = clean_view(batch)
  with part("clean", "teacher"):
    answers = models.ask_teacher(
      view.teacher, _teacher_key(dropout_key, "clean", teacher_dropout)
    )
  if answers is not None and batch.answers is not None:
    # Where nobody reads its layers, jit then leaves the teacher out.
    answers = answers._replace(logits=batch.answers[None])
  dropout = prng.stream(dropout_key, "clean/student")

  def run(params, offset):
    inputs = student.embed(params, view.student.tokens, view.student.mask)
    moved = inputs.embeddings + offset
    inputs = dataclasses.replace(inputs, embeddings=moved)
    return student.forward(params, inputs, key=dropout)

  words = jax.eval_shape(
    lambda params: (
      student.embed(params, view.student.tokens, view.student.mask).embeddings
    ),
    params,
  )
  offset = jnp.zeros(words.shape, words.dtype)
  with part("clean", "student"):
    outputs, pull_back = jax.vjp(run, params, offset)

  def loss_of(outputs):
    said = summand(method.clean, outputs, answers, view, None, models, step)
    return share * said[0], said

  cotangent, (loss, metrics) = jax.grad(loss_of, has_aux=True)(outputs)
  with part("clean", "student"):
    grads, gradient = pull_back(cotangent)
  clean = Clean(
    student=jax.lax.stop_gradient(outputs),
    teacher=answers,
    gradient=gradient / jnp.asarray(share, gradient.dtype),
    pull_back=lambda cotangent: pull_back(cotangent)[1],
    view=view,
  )
  return grads, loss, metrics, clean


def make_view(
  weighted: WeightedView,
  batch: Batch,
  key: Key[Array, ""],
  step: Int[Array, ""],
  clean: Clean | None,
  models: Models,
) -> View:
  """A view of `batch`, which has its partners, with the step's key.

  Raises:
    UsageError: if it does not fit the networks or the batch.
  """
  key = prng.stream(key, weighted.name)
  if batch.teacher is not None:
    models = models._replace(teacher=_unasked(models.teacher))
  with said_of(f"view {weighted.name!r}"):
    view = weighted.maker.make(key, batch, clean, models, step)
    if batch.teacher is not None and isinstance(view.teacher, Inputs):
      _refuse()
    return view


def _unasked(teacher: Network | None) -> Network | None:
  """A teacher that has read the batch and reads nothing that a view makes."""
  if teacher is None:
    return None
  return dataclasses.replace(
    teacher, forward=_refuse, embed=_refuse, table=_refuse
  )


def _refuse(*given: Any, **named: Any) -> NoReturn:
  """Raises UsageError: the teacher knows no token of the student's."""
  del given, named
  raise UsageError(
    "the teacher is shown what the view makes, so both models must read with "
    "one vocabulary; take views that move the student's embeddings alone, such "
    "as ad2, fgsm or noise, or leave out --vocab and --init"
  )


def microbatch(
  batch: Batch,
  rows: dict[str, Batch],
  dropout_key: Key[Array, ""],
  *,
  key: Key[Array, ""],
  models: Models,
  method: Method,
  step: Int[Array, ""],
  teacher_dropout: bool,
  share: Float[Array, ""],
) -> tuple[Params, Metrics]:
  """Both phases on one microbatch.

  Args:
    batch: its rows.
    rows: the partners of its rows, for each view that mixes rows.
    dropout_key: of its dropout masks.
    key: the step's key, of all draws that belong to examples.
    models: the student and the teacher.
    method: what to minimise.
    step: i32[], the step's number.
    teacher_dropout: whether the teacher drops out.
    share: the gradients are of the loss times this number: what is multiplied
      there costs nothing, and the quotient of each parameter's gradient is
      written to memory once more.

  Returns:
    Gradients; and metrics, summed over rows.
  """
  metrics: Metrics = {"loss": (jnp.float32(0.0), jnp.sum(batch.weight))}
  grads, clean = None, None
  if method.clean is not None:
    grads, loss, its_metrics, clean = phase_one(
      *(batch, dropout_key, step, models, method, teacher_dropout, share)
    )
    metrics = _add(metrics, loss, its_metrics)

  def views_loss(params):
    live, total, metrics = models._replace(student_params=params), 0.0, {}
    for weighted in method.views:
      mine = batch._replace(partner=rows.get(weighted.name))
      below = _lower_layers(live, weighted.name, dropout_key, teacher_dropout)
      with part(weighted.name, "view"):
        view = make_view(weighted, mine, key, step, clean, below)
      dropout = prng.stream(dropout_key, f"{weighted.name}/student")
      with part(weighted.name, "student"):
        outputs = models.student.forward(params, view.student, key=dropout)
      its_key = _teacher_key(dropout_key, weighted.name, teacher_dropout)
      with part(weighted.name, "teacher"):
        answers = live.ask_teacher(view.teacher, its_key)
      with part(weighted.name, "student"):
        loss, its_metrics = summand(
          weighted, outputs, answers, view, clean, live, step
        )
      total, metrics = total + loss, metrics | its_metrics
    return share * total, (total, metrics)

  if method.views:
    more, (loss, its_metrics) = jax.grad(views_loss, has_aux=True)(
      models.student_params
    )
    metrics = _add(metrics, loss, its_metrics)
    grads = more if grads is None else jax.tree.map(jnp.add, grads, more)
  return grads, metrics


def _add(metrics: Metrics, loss, more: Metrics) -> Metrics:
  total, weight = metrics["loss"]
  return metrics | more | {"loss": (total + loss, weight)}


def _lower_layers(
  models: Models, view: str, dropout_key: Key[Array, ""], teacher_dropout: bool
) -> Models:
  """The models with keys for the layers that a view runs by itself.

  They belong to the microbatch, as those of the layers above do.
  """
  key = prng.stream(dropout_key, f"{view}/lower layers")
  return models._replace(
    student_key=prng.stream(key, "student"),
    teacher_key=prng.stream(key, "teacher") if teacher_dropout else None,
  )


def _teacher_key(
  dropout_key: Key[Array, ""], view: str, teacher_dropout: bool
) -> Key[Array, ""] | None:
  """Of the teacher's dropout masks on a view; None: no dropout."""
  if not teacher_dropout:
    return None
  return prng.stream(dropout_key, f"{view}/teacher")
