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
    other = batch.partner
    free = exchangeable(batch, models.lexicon)
    keys = prng.per_example(key, batch.example_id)
    draw = jax.vmap(lambda k: jax.random.uniform(k, batch.tokens.shape[1:]))
    from_b = free & (draw(keys)[None] >= lam)
    tokens = jnp.where(from_b, other.tokens, batch.tokens[None])
    words = batch.mask & ~jnp.take(models.lexicon.protected, batch.tokens)
    count = jnp.maximum(jnp.sum(words, axis=-1), 1)
    share_a = 1.0 - jnp.sum(from_b, axis=-1) / count[None]
    inputs = Inputs(mask=batch.mask[None], tokens=tokens)
    view = View(
      student=inputs,
      teacher=inputs if models.teacher else None,
      label=mix_labels(batch, share_a),
      has_label=batch.has_label[None] & other.has_label,
      weight=jnp.broadcast_to(batch.weight[None], share_a.shape),
    )
    return as_token_view(view, batch, tokens, free)

  return ViewMaker(make, draw_partners)
