"""The loop, and the hooks that watch it."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import jax

from augdistill.errors import Preempted, RunError
from augdistill.training.step import TrainState
from augdistill.types import Batch, Metrics


@runtime_checkable
class Hook(Protocol):
  """Called after each step with the number of steps done."""

  def __call__(
    self, step: int, state: TrainState, metrics: Metrics
  ) -> None: ...


def train(
  state: TrainState,
  step_fn: Callable[[int, TrainState, Batch], tuple[TrainState, Metrics]],
  batch_at: Callable[[int], Batch],
  num_steps: int,
  hooks: Sequence[Hook] = (),
) -> TrainState:
  """Runs steps `state.step` to `num_steps` - 1.

  Args:
    state: where to begin.
    step_fn: (step, state, batch) -> (state, metrics), compiled. It is told
      the step's number, since reading it from the state would wait for it.
    batch_at: the batch of a step, a pure function of its number.
    num_steps: steps of the whole run.
    hooks: called in order after each step.

  Returns:
    The state after the last step.
  """
  for step in range(int(state.step), num_steps):
    state, metrics = step_fn(step, state, batch_at(step))
    for hook in hooks:
      hook(step + 1, state, metrics)
  return state


def every(period: int, num_steps: int, hook: Hook) -> Hook:
  """`hook`, every `period` steps and after the last one."""

  def periodic(step, state, metrics):
    if step % period == 0 or step == num_steps:
      hook(step, state, metrics)

  return periodic


def average_metrics(
  report: Callable[[int, dict[str, float]], None], period: int, num_steps: int
) -> Hook:
  """Reports each metric's mean since the last report, every `period` steps.

  Only then are metrics fetched, so that steps are dispatched without waiting.

  Args:
    report: (steps done, name -> mean).
    period: steps between reports.
    num_steps: the last step is reported too.

  Returns:
    A hook. It raises RunError where the loss is not finite.
  """
  pending: list[Metrics] = []

  def hook(step, state, metrics):
    del state
    pending.append(metrics)
    if step % period and step != num_steps:
      return
    fetched = jax.device_get(pending)
    pending.clear()
    for done, metrics in enumerate(fetched, step - len(fetched) + 1):
      _check_finite(done, float(metrics["loss"][0]))
    # Steps of different policies have different metrics.
    names = dict.fromkeys(name for metrics in fetched for name in metrics)
    means = {}
    for name in names:
      pairs = [metrics[name] for metrics in fetched if name in metrics]
      total = sum(float(total) for total, _ in pairs)
      weight = sum(float(weight) for _, weight in pairs)
      means[name] = total / weight if weight else 0.0
    report(step, means)

  return hook


def _check_finite(step: int, loss: float) -> None:
  if not math.isfinite(loss):
    raise RunError(
      f"the loss must stay finite, got {loss} at step {step}; the last "
      "checkpoint is intact. Try a smaller --learning_rate, or gradient "
      "clipping."
    )


def stop_when(asked: Callable[[int], bool], save: Hook) -> Hook:
  """Saves and raises Preempted once `asked(steps done)` says so."""

  def hook(step, state, metrics):
    if asked(step):
      save(step, state, metrics)
      raise Preempted(
        f"stopped after step {step}, which is saved; run the same command "
        "again to go on"
      )

  return hook
