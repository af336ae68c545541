"""T5X's trainer with our step, and a frozen teacher beside the train state."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from t5x import trainer, utils

from augdistill.augment.methods import written_out
from augdistill.data.features import as_batch
from augdistill.errors import UsageError
from augdistill.t5x_plugin.model import EncT5Model, averages
from augdistill.training.policies import build_policy
from augdistill.training.rehearsal import rehearse
from augdistill.training.step import grads_and_metrics


class DistillTrainer(trainer.Trainer):
  """Trains by a method, in the grammar of `augdistill.augment.grammar`.

  The teacher's parameters are an argument of the compiled step: sharded by
  T5X's partitioner, not donated, in no checkpoint.

  Args:
    *args: as T5X gives them.
    method: such as "kd+augpro_mix".
    teacher: of the student's vocabulary; None for a method without one.
    teacher_checkpoint: where its parameters are; their dtype is kept.
    teacher_dropout: whether it drops out, as AugPro's does.
    **kwargs: as T5X gives them.

  Raises:
    UsageError: if method, student and teacher do not fit each other.
  """

  def __init__(
    self,
    *args: Any,
    method: str,
    teacher: EncT5Model | None = None,
    teacher_checkpoint: utils.RestoreCheckpointConfig | None = None,
    teacher_dropout: bool = True,
    **kwargs: Any,
  ):
    super().__init__(*args, **kwargs)
    self._method = _method(method, self._model, teacher)
    self._teacher, self._teacher_dropout = teacher, teacher_dropout
    self._frozen = self._frozen_axes = None
    if self._method.needs_teacher:
      source = teacher, teacher_checkpoint, self._partitioner
      self._frozen, self._frozen_axes = _restore(*source)

  @functools.cached_property
  def _partitioned_train_step(self) -> Callable[..., Any]:
    student, teacher = self._model.network, self._teacher

    def step(state, features, frozen, lexicon):
      key = jax.random.wrap_key_data(self._base_rng)
      grads, metrics = grads_and_metrics(
        *(state.params, frozen, lexicon, as_batch(features), key, state.step),
        student=student,
        teacher=teacher and teacher.network,
        method=self._method,
        teacher_dropout=self._teacher_dropout,
        num_microbatches=self._num_microbatches or 1,
      )
      return trainer.apply_grads(
        *(state, grads, averages(metrics), self._learning_rate_fn(state.step)),
        self._weight_metrics_computer,
      )

    axes, spec = self._train_state_axes, self._partitioner.data_partition_spec
    partitioned = self._partitioner.partition(
      step,
      in_axis_resources=(axes, spec, self._frozen_axes, None),
      out_axis_resources=(axes, None),
      donate_argnums=(0,),
    )
    return _With(partitioned, (self._frozen, self._model.data.vocab.lexicon))


class _With:
  """A function of (state, batch), called or compiled, of one of more."""

  def __init__(self, fn: Any, more: tuple[Any, ...]):
    self._fn, self._more = fn, more

  def __call__(self, state: Any, batch: Any) -> Any:
    return self._fn(state, batch, *self._more)

  def lower(self, state: Any, batch: Any) -> "_With":
    return _With(self._fn.lower(state, batch, *self._more), self._more)

  def compile(self) -> "_With":
    return _With(self._fn.compile(), self._more)


def _method(text: str, student: EncT5Model, teacher: EncT5Model | None) -> Any:
  """The loss of every step, which fits the networks."""
  policy = build_policy(written_out(text), student.data.task.kind)
  if len(policy.methods) > 1 or policy.needs_projections:
    raise UsageError(
      "T5X's trainer has one step, and no parameters but the model's, while "
      f"{policy.name!r} takes turns, or projects hidden states; for the latter "
      "set project=false, or train by augdistill distill"
    )
  if policy.needs_teacher and teacher is None:
    raise UsageError(f"the method {text!r} needs a teacher: bind TEACHER_MODEL")
  (method,), theirs = policy.methods, teacher and teacher.network
  if teacher and teacher.task is not student.task:
    raise UsageError("student and teacher must have one Task: bind one name")
  rehearse(method, student.network, theirs, student.data.vocab.size)
  return method


def _restore(
  teacher: EncT5Model, config: utils.RestoreCheckpointConfig, partitioner: Any
) -> tuple[Any, Any]:
  """The teacher's parameters, where the partitioner puts them; their axes."""
  initializer = utils.TrainStateInitializer(
    optimizer_def=None,
    init_fn=teacher.get_initial_variables,
    input_shapes={},
    partitioner=partitioner,
  )
  state, _ = utils.create_checkpoint_manager_and_restore(
    *(initializer, partitioner, config, config.path, None), use_orbax=True
  )
  return state.params, initializer.train_state_axes.params
