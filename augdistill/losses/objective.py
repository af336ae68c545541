"""From a view and its outputs to one number: the only sum over rows.

The step divides it once by the weight of the whole batch, so the package has
one mean, and it is masked: a row of weight 0 changes neither side.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from augdistill.errors import said_of
from augdistill.types import (
  Clean,
  Metrics,
  Models,
  Outputs,
  Schedule,
  View,
  WeightedView,
)

LABEL = "label"  # The name of the term that compares with the label.


def at(value: Schedule, step: Int[Array, ""]) -> Float[Array, ""]:
  """The value of a number or of a schedule at `step`."""
  result = value(step) if callable(value) else value
  return jnp.asarray(result, jnp.float32)


def summand(
  weighted: WeightedView,
  student: Outputs,
  teacher: Outputs | None,
  view: View,
  clean: Clean | None,
  models: Models,
  step: Int[Array, ""],
) -> tuple[Float[Array, ""], Metrics]:
  """One summand of the loss, summed over rows.

    w(step) * sum_m reweight_z [ sum_k c_k(step) term_k(z) ]_m

  Args:
    weighted: its terms, their coefficients, its reweighting and weight w.
    student: the student's outputs on the view.
    teacher: the teacher's, or None.
    view: the view.
    clean: what phase 1 learnt, or None in phase 1.
    models: student and teacher, for terms with parameters.
    step: the step, for schedules.

  Returns:
    The sum over rows, and for each term its un-weighted (sum, weight), named
    "view/term".

  Raises:
    UsageError: if a term does not fit the networks or the view.
  """
  total = jnp.zeros_like(view.weight)
  metrics = {}
  for name, coefficient, term in weighted.terms:
    with said_of(f"term {name!r} on view {weighted.name!r}"):
      losses = term(student, teacher, view, clean, models)
    # Not a product: what a row of weight 0 holds may be infinite.
    losses = jnp.where(view.weight > 0, losses, 0.0)
    total = total + at(coefficient, step) * losses
    # A row without a label has no distance to it.
    counted = view.weight
    if name == LABEL:
      counted = jnp.where(view.has_label, counted, 0.0)
    metrics[f"{weighted.name}/{name}"] = (
      jnp.sum(view.weight * losses),
      jnp.sum(counted),
    )
  rows = weighted.reweight(total, view)
  metrics |= {f"{weighted.name}/{k}": v for k, v in view.stats.items()}
  return at(weighted.weight, step) * jnp.sum(rows), metrics
