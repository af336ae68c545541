"""Calls are timed after they have warmed up, as often as there is time."""

import jax.numpy as jnp
import pytest

from augdistill.evaluation.latency import latency


class Clock:
  """Time passes in calls alone, each as long as the next of `seconds`."""

  def __init__(self, seconds):
    self.seconds, self.now, self.calls = iter(seconds), 0.0, 0

  def __call__(self):
    return self.now

  def call(self):
    self.calls += 1
    self.now += next(self.seconds, 1.0)
    return jnp.zeros(1)


def timed(took, **limits):
  clock = Clock(took)
  return latency(clock.call, clock=clock, **limits), clock


def test_warming_up_does_not_count():
  found, _ = timed([0.9] * 3 + [0.002] * 20, runs=20)
  assert found == (pytest.approx(2), pytest.approx(2), 20)
  found, clock = timed([9.0] + [0.002] * 20, runs=20)
  assert found == (pytest.approx(2), pytest.approx(2), 20)
  assert clock.calls == 21  # Who takes so long is warm at once.


def test_half_of_the_calls_are_faster_than_p50_and_few_slower_than_p95():
  took = [0.0] * 3 + [i / 1000 for i in range(1, 102)]
  found, _ = timed(took, runs=101, seconds=60.0)
  assert found == (pytest.approx(51), pytest.approx(96), 101)


def test_slow_calls_are_timed_less_often_but_never_too_few_times():
  found, clock = timed([0.5] * 99, runs=40, least_runs=4, seconds=5.0)
  assert (found.runs, clock.calls) == (10, 13)
  found, clock = timed([60.0] * 99, runs=40, least_runs=4, seconds=5.0)
  assert (found.runs, clock.calls) == (4, 5)
