"""How the copies of one example share its weight: f[n, M] -> f[M]."""

import jax.numpy as jnp

from augdistill.types import Reweight


def mean() -> Reweight:
  """Every copy counts alike (MMEL's DA+UNI).

    r_m = (1/n) sum_z w_zm l_zm

  Returns:
    A reweighting in the units of the losses; a row of weight 0 gives 0.
  """

  def reweight(losses, view):
    return jnp.mean(view.weight * losses, axis=0)

  return reweight
