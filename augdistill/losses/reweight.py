"""How the copies of one example share its weight: f[n, M] -> f[M]."""

import math

import jax
import jax.numpy as jnp

from augdistill.types import Reweight


def mean() -> Reweight:
  """Every copy counts alike (MMEL's DA+UNI).

    r_m = (1/n_m) sum_z w_zm l_zm

  over the n_m copies that are there, those with weight > 0.

  Returns:
    A reweighting in the units of the losses; a row without copies gives 0.

  References:
    Yi et al. 2021, MMEL, ICLR 2021, equation 1.
  """

  def reweight(losses, view):
    there = jnp.sum(view.weight > 0, axis=0).astype(losses.dtype)
    total = jnp.sum(view.weight * losses, axis=0)
    return total / jnp.maximum(there, 1.0)

  return reweight


def maximal_expected_loss(lambda_p: float = 1.0) -> Reweight:
  """MMEL: the worst way in which the copies could share the weight.

    r = max_P  sum_z P_z l_z - lambda KL(P || U)
      = sum_z P_z l_z - lambda sum_z P_z log(n P_z),
        P = softmax_z(l_z / lambda)                      (equations 5 and 6)

  over the n copies that are there, those with weight > 0; U is uniform over
  them. Harder copies get more weight: a large lambda gives the mean of the
  losses, a small one their maximum, and none less than the mean. At the
  maximum the derivative by P is 0 along all distributions (Danskin's
  theorem), so P is a constant to the gradient, which is sum_z P_z dl_z.

  Where the weights w of the copies are not 0 or 1, U is w / sum_z w, so that a
  copy of weight 2 counts as two, and r is multiplied by the mean of the
  weights that are > 0. With a large lambda this is `mean` over those copies.

  Args:
    lambda_p: lambda > 0, in the units of the losses; the paper uses 1.

  Returns:
    A reweighting in the units of the losses; a row without copies gives 0.

  Raises:
    ValueError: if `lambda_p` is not positive and finite.

  References:
    Yi et al. 2021, MMEL, ICLR 2021, theorem 1.
  """
  if not 0 < lambda_p < math.inf:
    raise ValueError(f"lambda_p must be positive and finite, got {lambda_p}")

  def reweight(losses, view):
    there = view.weight > 0
    # Not a product: the loss of a copy that is not there may be infinite.
    losses = jnp.where(there, losses, 0.0)
    weight = jnp.where(there, view.weight, 0.0)
    total = jnp.sum(weight, axis=0, keepdims=True)
    uniform = weight / jnp.where(total > 0, total, 1.0)
    log_ratio = _log_ratio(jax.lax.stop_gradient(losses), uniform, lambda_p)
    p = uniform * jnp.exp(log_ratio)
    # P = 0 beside an infinite logarithm: 0 log 0 = 0.
    divergence = jnp.sum(p * jnp.where(p > 0, log_ratio, 0.0), axis=0)
    count = jnp.maximum(jnp.sum(there, axis=0), 1).astype(total.dtype)
    objective = jnp.sum(p * losses, axis=0) - lambda_p * divergence
    return total[0] / count * objective

  return reweight


def _log_ratio(losses, uniform, lambda_p):
  """log(P / U) of P = U e^(l / lambda) / sum_z U_z e^(l_z / lambda).

  Its rounding error is relative, also where a large lambda makes it tiny.
  """
  there = uniform > 0
  worst = jnp.max(jnp.where(there, losses, -jnp.inf), axis=0, keepdims=True)
  below = jnp.where(there, losses - worst, 0.0) / lambda_p
  mean = jnp.sum(uniform * jnp.expm1(below), axis=0, keepdims=True)
  return below - jnp.log1p(mean)
