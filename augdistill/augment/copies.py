"""n copies of a view per example, each with its own randomness."""

import jax
import jax.numpy as jnp

from augdistill import prng
from augdistill.types import ViewMaker


def repeat(maker: ViewMaker, copies: int) -> ViewMaker:
  """`copies` independent draws of `maker`'s view, stacked on the copy axis.

  Args:
    maker: of a view with one copy.
    copies: n >= 1.

  Returns:
    A maker of a view with n copies, [n, M, ...] throughout.

  Raises:
    ValueError: if `copies` is less than 1.
  """
  if copies < 1:
    raise ValueError(f"copies must be at least 1, got {copies}")
  if copies == 1:
    return maker

  def stack(trees):
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *trees)

  def copy_key(key, copy):
    return prng.stream(key, f"copy {copy}")

  def partners(key, batch):
    return stack(
      [maker.partners(copy_key(key, i), batch) for i in range(copies)]
    )

  def make(key, batch, clean, models, step):
    def one(i):
      partner = jax.tree.map(lambda x: x[i : i + 1], batch.partner)
      mine = batch._replace(partner=partner)
      return maker.make(copy_key(key, i), mine, clean, models, step)

    views = [one(i) for i in range(copies)]
    stats = {
      name: tuple(map(sum, zip(*(v.stats[name] for v in views), strict=True)))
      for name in views[0].stats
    }
    return stack([v._replace(stats={}) for v in views])._replace(stats=stats)

  return ViewMaker(
    make, partners if maker.partners else None, maker.needs_clean
  )
