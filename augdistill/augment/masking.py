"""Which tokens of a text are hidden from a masked language model.

References:
  Devlin et al. 2019, BERT, arXiv:1810.04805, section 3.1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from augdistill import prng
from augdistill.augment.places import below
from augdistill.types import Batch, Lexicon


class Drawn(NamedTuple):
  """Some positions of each row, in random order.

  Attributes:
    positions: i32[B, P], all different.
    chosen: bool[B, P] True at the first so many; the rest means nothing.
    at: bool[B, L] the chosen positions again, where they are.
  """

  positions: Int[Array, "B P"]
  chosen: Bool[Array, "B P"]
  at: Bool[Array, "B L"]


def draw_positions(
  keys: Key[Array, "B"], free: Bool[Array, "B L"], rate: float
) -> Drawn:
  """A share of each row's free positions, at least one where there is one.

  Args:
    keys: of each row.
    free: what may be drawn.
    rate: the share in (0, 1]; the number is rounded to the nearest.

  Returns:
    The draw, with P = round(rate L).
  """
  length = free.shape[1]
  most = max(1, math.floor(rate * length + 0.5))
  there = jnp.sum(free, axis=1)
  wanted = jnp.floor(rate * there.astype(jnp.float32) + 0.5).astype(jnp.int32)
  count = jnp.clip(wanted, jnp.minimum(there, 1), most)[:, None]  # [B, 1]
  score = jax.vmap(lambda k: jax.random.uniform(k, (length,)))(keys)
  order = jnp.argsort(jnp.where(free, score, jnp.inf), axis=1)
  rank = jnp.argsort(order, axis=1)
  chosen = jnp.arange(most)[None] < count
  return Drawn(order[:, :most].astype(jnp.int32), chosen, rank < count)


class Masked(NamedTuple):
  """A batch as a masked language model learns from it.

  Attributes:
    tokens: i32[B, L] what it sees, where nothing is hidden.
    hidden: bool[B, L] where it sees that a token is hidden.
    positions: i32[B, P] where it is asked.
    target: i32[B, P] the right answers.
    weight: f32[B, P] 1 where the question counts, else 0.
  """

  tokens: Int[Array, "B L"]
  hidden: Bool[Array, "B L"]
  positions: Int[Array, "B P"]
  target: Int[Array, "B P"]
  weight: Float[Array, "B P"]


Mask = Callable[[Key[Array, ""], Batch, Lexicon], Masked]


def mask_tokens(
  rate: float = 0.15, hidden_share: float = 0.8, random_share: float = 0.1
) -> Mask:
  """BERT's masking: of the tokens asked for, most are hidden.

  Some are replaced at random and the rest is left, so that a token that is
  seen has to be understood, too.

  Args:
    rate: the share of a row's tokens that are asked for, in (0, 1].
    hidden_share: the share of those that are hidden; 1 for all.
    random_share: the share of those that are replaced by any token.

  Returns:
    (key, batch, lexicon) -> Masked. What is drawn for a row is a function of
    the key and the row's example id. Padding and the end of a sentence are
    never asked for, and nothing that is not producible is put in.

  Raises:
    ValueError: if a share is not in its range, or both together exceed 1.
  """
  if not 0.0 < rate <= 1.0:
    raise ValueError(f"the masking rate must be in (0, 1], got {rate}")
  shares = (hidden_share, random_share)
  if min(shares) < 0.0 or sum(shares) > 1.0 + 1e-9:
    raise ValueError(
      "the shares of hidden and of random tokens must be >= 0 and at most 1 "
      f"together, got {hidden_share} and {random_share}"
    )

  def mask(key, batch, lexicon):
    free = batch.mask & ~jnp.take(lexicon.protected, batch.tokens)
    ids, length = batch.example_id, batch.tokens.shape[1]

    def draws(name):
      keys = prng.per_example(prng.stream(key, name), ids)
      return jax.vmap(lambda k: jax.random.uniform(k, (length,)))(keys)

    position_keys = prng.per_example(prng.stream(key, "positions"), ids)
    drawn, fate = draw_positions(position_keys, free, rate), draws("fate")
    hidden = drawn.at & (fate < hidden_share)
    replaced = drawn.at & ~hidden & (fate < hidden_share + random_share)
    other = producible_at(draws("tokens"), lexicon)
    target = jnp.take_along_axis(batch.tokens, drawn.positions, axis=1)
    counts = drawn.chosen & (batch.weight > 0)[:, None]
    return Masked(
      tokens=jnp.where(replaced, other, batch.tokens),
      hidden=hidden,
      positions=drawn.positions,
      target=target,
      weight=counts.astype(jnp.float32),
    )

  return mask


def producible_at(
  uniform: Float[Array, "B L"], lexicon: Lexicon
) -> Int[Array, "B L"]:
  """Producible ids, from numbers in [0, 1): equal parts of it for each id."""
  count = jnp.sum(lexicon.producible)
  ids = jnp.argsort(~lexicon.producible, stable=True).astype(jnp.int32)
  return jnp.take(ids, below(uniform, count))
