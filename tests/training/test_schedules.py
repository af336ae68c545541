"""Schedules, at their joints and between them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.errors import UsageError
from augdistill.training.schedules import ramp, warmup_then
from tests.reference import schedules_optim as reference

PEAK, STEPS, WARMUP = 0.3, 40, 8


def values(schedule, steps):
  """The schedule at each step, compiled, as the step sees it."""
  steps = jnp.asarray(steps, jnp.int32)
  return np.asarray(jax.jit(jax.vmap(schedule))(steps))


@pytest.mark.parametrize("decay", ["cosine", "linear"])
@pytest.mark.parametrize("warmup", [0, WARMUP])
def test_warmup_and_decay_are_those_of_the_reference(decay, warmup):
  expected = getattr(reference, f"linear_warmup_{decay}_decay")
  steps = range(STEPS + 5)
  np.testing.assert_allclose(
    values(warmup_then(decay, PEAK, STEPS, warmup / STEPS), steps),
    [expected(step, PEAK, warmup, STEPS) for step in steps],
    rtol=1e-5,
    atol=1e-7,
  )


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
def test_the_joints_are_exact(decay):
  schedule = warmup_then(decay, PEAK, STEPS, WARMUP / STEPS)
  start, half, peak = values(schedule, [0, WARMUP // 2, WARMUP])
  assert start == 0
  np.testing.assert_allclose([half, peak], [PEAK / 2, PEAK], rtol=1e-6)
  last, end, beyond = values(schedule, [STEPS - 1, STEPS, 10 * STEPS])
  assert last > 0
  expected = np.float32(PEAK) if decay == "constant" else 0
  assert end == expected and beyond == expected


def test_a_warmup_is_on_by_default_and_a_twentieth_of_the_run():
  schedule = warmup_then("constant", PEAK, 200)
  np.testing.assert_allclose(
    values(schedule, [0, 9, 10, 11]), [0, 0.9 * PEAK, PEAK, PEAK], rtol=1e-6
  )


@pytest.mark.parametrize(
  ("fraction", "num_steps", "warmup"), [(0.29, 100, 29), (0.28, 10, 3)]
)
def test_a_warmup_is_of_the_nearest_number_of_steps(
  fraction, num_steps, warmup
):
  # 0.29 * 100 is a little less than 29 in floating point.
  schedule = warmup_then("constant", PEAK, num_steps, fraction)
  np.testing.assert_allclose(
    values(schedule, [warmup - 1, warmup]),
    [PEAK * (warmup - 1) / warmup, PEAK],
    rtol=1e-6,
  )


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
def test_a_run_of_one_step_learns_at_the_peak(decay):
  assert values(warmup_then(decay, PEAK, 1), [0]) == np.float32(PEAK)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (
      ("cosin", PEAK, STEPS),
      "cosine, linear, constant, .*Did you mean 'cosine'",
    ),
    (("cosine", 0.0, STEPS), "must be positive, got 0.0"),
    (("cosine", -1.0, STEPS), "must be positive, got -1.0"),
    (("cosine", float("nan"), STEPS), "must be positive, got nan"),
    (("cosine", float("inf"), STEPS), "must be positive, got inf"),
    (("cosine", PEAK, STEPS, 1.0), r"must be in \[0, 1\), got 1.0"),
    (("cosine", PEAK, STEPS, -0.1), r"must be in \[0, 1\), got -0.1"),
  ],
)
def test_a_schedule_that_cannot_be_is_an_error(arguments, message):
  with pytest.raises(UsageError, match=message):
    warmup_then(*arguments)


@pytest.mark.parametrize(("start", "end"), [(0.0, 2.0), (1.0, 0.0)])
def test_a_ramp_goes_straight_from_start_to_end_and_stays(start, end):
  got = values(ramp(start, end, 10), [0, 5, 10, 11, 1000])
  np.testing.assert_allclose(got, [start, (start + end) / 2, end, end, end])


def test_a_ramp_without_steps_is_an_error():
  with pytest.raises(ValueError, match="at least 1, got 0"):
    ramp(0.0, 1.0, 0)
