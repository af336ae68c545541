"""The loop calls its hooks in order, and they tell the truth."""

import jax.numpy as jnp
import pytest

from augdistill.errors import Preempted, RunError
from augdistill.training.loop import average_metrics, every, stop_when, train
from augdistill.training.step import TrainState


def state_at(step):
  return TrainState(jnp.int32(step), {}, ())


def metrics_of(loss, weight=1.0):
  pair = (jnp.float32(loss) * weight, jnp.float32(weight))
  return {"loss": pair, "twice": (2 * pair[0], pair[1])}


def step_with(losses, weights=None):
  """A step whose loss at step s is losses[s]."""

  def step(number, state, batch):
    assert number == int(state.step)
    loss = losses[batch]
    weight = 1.0 if weights is None else weights[batch]
    return state_at(int(state.step) + 1), metrics_of(loss, weight)

  return step


def run(losses, hooks, start=0, weights=None):
  step = step_with(losses, weights)
  return train(state_at(start), step, lambda s: s, len(losses), hooks)


def test_every_step_gets_its_batch_and_its_hooks_in_order():
  seen = []

  def hook(name):
    return lambda step, state, metrics: seen.append(
      (name, step, int(state.step), float(metrics["loss"][0]))
    )

  state = run([10.0, 11.0, 12.0], [hook("a"), hook("b")])
  assert seen == [
    (name, step, step, 9.0 + step) for step in (1, 2, 3) for name in "ab"
  ]
  assert int(state.step) == 3


def test_a_resumed_run_begins_where_it_stopped():
  seen = []
  run([0.0] * 5, [lambda step, *_: seen.append(step)], start=3)
  assert seen == [4, 5]
  assert int(run([0.0] * 5, [lambda *_: 1 / 0], start=5).step) == 5


@pytest.mark.parametrize(
  ("period", "steps"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (7, [5])]
)
def test_a_hook_may_be_called_now_and_then_and_at_the_end(period, steps):
  seen = []
  run([0.0] * 5, [every(period, 5, lambda step, *_: seen.append(step))])
  assert seen == steps


def test_metrics_are_averaged_by_weight_since_the_last_report():
  reports = []
  hook = average_metrics(lambda *report: reports.append(report), 2, 5)
  run([1.0, 4.0, 2.0, 3.0, 7.0], [hook], weights=[3.0, 1.0, 1.0, 1.0, 2.0])
  steps, means = zip(*reports, strict=True)
  assert steps == (2, 4, 5)
  assert [m["loss"] for m in means] == [7 / 4, 5 / 2, 7.0]
  assert [m["twice"] for m in means] == [7 / 2, 5.0, 14.0]


def test_a_metric_of_no_weight_is_zero():
  reports = []
  hook = average_metrics(lambda *report: reports.append(report), 1, 1)
  run([5.0], [hook], weights=[0.0])
  assert reports == [(1, {"loss": 0.0, "twice": 0.0})]


def test_steps_may_have_different_metrics():
  reports = []
  hook = average_metrics(lambda *report: reports.append(report), 3, 3)
  for step in (1, 2, 3):
    extra = {"odd": (jnp.float32(step), jnp.float32(1))} if step % 2 else {}
    hook(step, None, metrics_of(1.0) | extra)
  assert reports == [(3, {"loss": 1.0, "twice": 2.0, "odd": 2.0})]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("period", [1, 2, 4, 10])
def test_the_first_step_with_a_loss_that_is_not_finite_is_named(bad, period):
  reports, seen = [], []
  hook = average_metrics(lambda step, _: reports.append(step), period, 8)
  losses = [1.0, 1.0, 1.0, 1.0, bad, 1.0, bad, bad]
  with pytest.raises(RunError) as error:
    run(losses, [hook, lambda step, *_: seen.append(step)])
  assert f"the loss must stay finite, got {bad} at step 5;" in str(error.value)
  assert "--learning_rate" in str(error.value)
  # What was sound before is reported, nothing after; no later hook sees it.
  assert reports == [step for step in range(1, 5) if step % period == 0]
  assert period != 1 or seen == [1, 2, 3, 4]


def test_a_stopped_run_is_saved_first():
  saved, asked = [], iter([False, False, True])
  hook = stop_when(
    lambda step: next(asked),
    lambda step, state, metrics: saved.append((step, int(state.step))),
  )
  with pytest.raises(Preempted, match="stopped after step 3, which is saved"):
    run([0.0] * 5, [hook])
  assert saved == [(3, 3)]


def test_a_run_that_nobody_stops_is_not_saved_by_that_hook():
  run([0.0] * 3, [stop_when(lambda step: False, lambda *_: 1 / 0)])
