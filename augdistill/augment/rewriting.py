"""Views of texts that were rewritten before training: paraphrases and the like.

References:
  Yi et al. 2021, MMEL, ICLR, section 3.3: rewrites by a masked language model;
  Wang et al. 2023, AugPro, arXiv:2210.11768, section 5.1: back translation.
"""

import jax
import jax.numpy as jnp

from augdistill import prng
from augdistill.errors import UsageError
from augdistill.types import Inputs, View, ViewMaker


def take_rewrites(copies: int = 1) -> ViewMaker:
  """Rewrites of each example, in turn from one that is drawn at every step.

  Copy c of an example with m rewrites is the (start + c) mod m-th, start
  uniform. Copies beyond m, which would be there twice, have weight 0, and so
  have all copies of an example without a rewrite.

  Args:
    copies: n >= 1.

  Returns:
    A maker of a view with n copies that enters at tokens, with the label of the
    original. Its statistic "rewritten" is the share of copies that exist.

  Raises:
    ValueError: if `copies` is less than 1.
    UsageError: when a view is made of a batch without rewrites.
  """
  if copies < 1:
    raise ValueError(f"copies must be at least 1, got {copies}")

  def make(key, batch, clean, models, step):
    del clean, step
    rewrites = batch.rewrites
    if rewrites is None:
      raise UsageError(
        "a view of rewrites must have texts that were rewritten before "
        "training, got none; give them to augdistill distill with --rewrites "
        "FILE, or have them made with --generator DIR"
      )
    there = rewrites.weight > 0  # [R, B]
    count = jnp.sum(there, axis=0)
    keys = prng.per_example(prng.stream(key, "start"), batch.example_id)
    start = jax.vmap(
      lambda key, m: jax.random.randint(key, (), 0, jnp.maximum(m, 1))
    )(keys, count)
    copy = jnp.arange(copies, dtype=jnp.int32)[:, None]  # [n, 1]
    number = (start[None] + copy) % jnp.maximum(count, 1)[None]  # [n, B]
    # Those that are there first, in their order.
    order = jnp.argsort(~there, axis=0, stable=True)
    which = jnp.take_along_axis(order, number, axis=0)

    def chosen(x):  # [R, B, L] -> [n, B, L]
      return jnp.take_along_axis(x, which[..., None], axis=0)

    inputs = Inputs(mask=chosen(rewrites.mask), tokens=chosen(rewrites.tokens))
    weight = jnp.where(copy < count[None], batch.weight[None], 0.0)

    def repeated(x):  # [B, ...] -> [n, B, ...]
      return jnp.broadcast_to(x[None], (copies, *x.shape))

    return View(
      student=inputs,
      teacher=inputs if models.teacher else None,
      label=repeated(batch.label),
      has_label=repeated(batch.has_label),
      weight=weight,
      stats={"rewritten": (jnp.sum(weight), copies * jnp.sum(batch.weight))},
    )

  return ViewMaker(make)
