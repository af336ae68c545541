"""Token views without a projection: the controls of AugPro-Mix."""

import jax
import jax.numpy as jnp

from augdistill import prng
from augdistill.augment.mixing import (
  check_lambda,
  draw_partners,
  exchangeable,
  mix_labels,
)
from augdistill.augment.projection import as_token_view
from augdistill.types import Inputs, View, ViewMaker


def mix_tokens(lam: float = 0.5) -> ViewMaker:
  """A random parent at every position: what projecting a midpoint mostly does.

  The nearest token of a midpoint is nearly always one of the two parents, so
  AugPro-Mix owes part of its gain to mixing tokens at all. This view mixes
  them without any embedding and tells how much.

  Args:
    lam: chance in [0, 1] that a position keeps the anchor's token.

  Returns:
    A maker of a view that enters at tokens. Positions that are padding or
    protected in either row keep the anchor's token. Its label is mixed by the
    share of tokens that each parent really gave.

  Raises:
    ValueError: if `lam` is outside [0, 1].
  """
  check_lambda(lam, None)

  def make(key, batch, clean, models, step):
    del clean, step
    free = exchangeable(batch, models.lexicon)
    copies, _, length = free.shape
    take_b = jnp.stack(
      [
        jax.vmap(lambda k: jax.random.uniform(k, (length,)))(
          prng.per_example(key, batch.example_id, copy)
        )
        >= lam
        for copy in range(copies)
      ]
    )
    from_b = free & take_b
    tokens = jnp.where(from_b, batch.partner.tokens, batch.tokens[None])
    words = jnp.sum(batch.mask & ~jnp.take(models.lexicon.protected, batch.tokens), -1)
    share_b = jnp.sum(from_b, -1) / jnp.maximum(words, 1)[None]
    view = View(
      student=Inputs(mask=batch.mask[None], tokens=tokens),
      teacher=Inputs(mask=batch.mask[None], tokens=tokens)
      if models.teacher
      else None,
      label=mix_labels(batch, 1.0 - share_b),
      has_label=batch.has_label[None] & batch.partner.has_label,
      weight=jnp.broadcast_to(batch.weight[None], take_b.shape[:2]),
    )
    return as_token_view(view, batch, tokens, free)

  return ViewMaker(make, draw_partners)
