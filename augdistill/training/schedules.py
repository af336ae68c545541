"""Numbers that change with the step: weights and learning rates."""

import math

import jax.numpy as jnp
import optax

from augdistill.errors import UsageError, suggest
from augdistill.types import Schedule


def ramp(start: float, end: float, steps: int) -> Schedule:
  """From `start` at step 0 straight to `end` at `steps`, then constant.

  Args:
    start: value at step 0.
    end: value from step `steps` on.
    steps: length of the ramp, >= 1.

  Returns:
    A schedule.

  Raises:
    ValueError: if `steps` is less than 1.
  """
  if steps < 1:
    raise ValueError(f"a ramp's steps must be at least 1, got {steps}")

  def schedule(step):
    share = jnp.minimum(step.astype(jnp.float32) / steps, 1.0)
    return start + (end - start) * share

  return schedule


# Share of the peak that is left, from the share of the decay that is done.
DECAYS = {
  "cosine": lambda share: (1.0 + jnp.cos(jnp.pi * share)) / 2.0,
  "linear": lambda share: 1.0 - share,
  "constant": jnp.ones_like,
}


def warmup_then(
  decay: str, peak: float, num_steps: int, warmup_fraction: float = 0.05
) -> optax.Schedule:
  """A linear warm-up to `peak`, then a decay to 0 at `num_steps`.

  Args:
    decay: "cosine", "linear" or "constant".
    peak: the largest learning rate.
    num_steps: steps of the whole run.
    warmup_fraction: share of the steps spent warming up, in [0, 1); of whole
      steps, the nearest number.

  Returns:
    An optax schedule.

  Raises:
    UsageError: for an unknown decay, a peak that is not positive, or a
      fraction outside [0, 1).
  """
  if decay not in DECAYS:
    raise UsageError(
      f"the decay must be one of {', '.join(DECAYS)}, got {decay!r}."
      + suggest(decay, DECAYS)
    )
  if not 0 < peak < math.inf:
    raise UsageError(f"the learning rate must be positive, got {peak}")
  if not 0 <= warmup_fraction < 1:
    raise UsageError(
      f"the warm-up's share must be in [0, 1), got {warmup_fraction}"
    )
  warmup = round(warmup_fraction * num_steps)
  rest = max(num_steps - warmup, 1)

  def schedule(step):
    step = jnp.asarray(step, jnp.float32)
    risen = jnp.minimum(step / warmup, 1.0) if warmup else 1.0
    share = jnp.clip((step - warmup) / rest, 0.0, 1.0)
    return peak * risen * DECAYS[decay](share)

  return schedule
