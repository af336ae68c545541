"""Views that take some of their tokens from a partner, without embeddings.

References:
  Harris et al. 2020, FMix, arXiv:2002.12047, section 4; Yun et al. 2019,
  CutMix, arXiv:1905.04899.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from augdistill import prng
from augdistill.augment.masks import (
  check_decay,
  take_at_random,
  take_low_frequencies,
  take_spans,
)
from augdistill.augment.mixing import (
  check_lambda,
  draw_lambda,
  draw_partners,
  exchangeable,
  mix_labels,
)
from augdistill.augment.projection import as_token_view
from augdistill.types import Inputs, View, ViewMaker

# (key, free, share) of one row -> the positions that the partner fills.
TakeMask = Callable[
  [Key[Array, ""], Bool[Array, "L"], Float[Array, ""]], Bool[Array, "L"]
]


def mix_tokens(lam: float = 0.5) -> ViewMaker:
  """A random parent at every position: what projecting a midpoint mostly does.

  The nearest token of a midpoint is nearly always one of the two parents, so
  AugPro-Mix owes part of its gain to mixing tokens at all. This view mixes
  them without any embedding and tells how much.

  Args:
    lam: chance in [0, 1] that a position keeps the anchor's token.

  Returns:
    A maker of a view that enters at tokens, as `take_from_partner` makes it.

  Raises:
    ValueError: if `lam` is outside [0, 1].
  """
  check_lambda(lam, None)
  return take_from_partner(take_at_random, lam)


def mix_spans(
  lam: float | None = None, alpha: float | None = None
) -> ViewMaker:
  """CutMix in one dimension: a span of the partner, the rest is the anchor's.

  Of the positions that may change, one span of a share 1 - lambda is the
  partner's, wherever it fits. (The paper's rectangles may stick out of the
  image and then shrink.)

  Args:
    lam: lambda in [0, 1], the anchor's share.
    alpha: if given, lambda is drawn from Beta(alpha, alpha) per row instead;
      without either it is drawn from Beta(1, 1), the paper's choice.

  Returns:
    A maker of a view that enters at tokens, as `take_from_partner` makes it.

  Raises:
    ValueError: if `lam` is outside [0, 1], or `alpha` is not
      positive and finite.
  """
  return take_from_partner(take_spans, *uniform_unless_given(lam, alpha))


def mix_pieces(
  lam: float | None = None, alpha: float | None = None, decay: float = 3.0
) -> ViewMaker:
  """FMix in one dimension: pieces of the partner, of random number and size.

    x' = m x_a + (1 - m) x_b,  mean m = lambda

  among the positions that may change, with m from low-frequency noise.

  Args:
    lam: lambda in [0, 1], the anchor's share.
    alpha: if given, lambda is drawn from Beta(alpha, alpha) per row instead;
      without either it is drawn from Beta(1, 1), the paper's choice.
    decay: delta >= 0, the power by which the noise falls with the frequency;
      the larger, the fewer pieces. The paper's is 3.

  Returns:
    A maker of a view that enters at tokens, as `take_from_partner` makes it.

  Raises:
    ValueError: if `lam` is outside [0, 1], `alpha` not positive and
      finite, or `decay` negative or infinite.
  """
  check_decay(decay)
  take = functools.partial(take_low_frequencies, decay=decay)
  return take_from_partner(take, *uniform_unless_given(lam, alpha))


def take_from_partner(
  take: TakeMask, lam: float, alpha: float | None = None
) -> ViewMaker:
  """The anchor's tokens, and the partner's where a mask takes them.

  Args:
    take: draws the mask of one row, of a share 1 - lambda of the positions
      that may change.
    lam: lambda, the anchor's share, already checked.
    alpha: if given, lambda is drawn from Beta(alpha, alpha) per row instead.

  Returns:
    A maker of a view that enters at tokens. Positions that are padding or
    protected in either row keep the anchor's token, and so do those where the
    partner's is none that an augmentation may produce, as an unknown one. Its
    label is mixed by the share of tokens that each parent really gave.
  """

  def make(key, batch, clean, models, step):
    del clean, step
    other = batch.partner
    producible = jnp.take(models.lexicon.producible, other.tokens)
    free = exchangeable(batch, models.lexicon)
    share = draw_lambda(prng.stream(key, "lambda"), batch, lam, alpha)
    keys = prng.per_example(key, batch.example_id)
    from_b = jax.vmap(take)(keys, (free & producible)[0], 1 - share[0])[None]
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


def uniform_unless_given(
  lam: float | None, alpha: float | None
) -> tuple[float, float | None]:
  """Checked lambda and alpha; without either, lambda is uniform in [0, 1].

  Raises:
    ValueError: if `lam` is outside [0, 1], or `alpha` is not
      positive and finite.
  """
  if lam is None:
    lam, alpha = 0.5, 1.0 if alpha is None else alpha
  check_lambda(lam, alpha)
  return lam, alpha
