"""EDA on the device: words replaced, inserted, swapped and deleted.

A row is edited by comparisons and gathers, not by a loop over its positions: a
loop would be as many small kernels one after the other as a text has words,
which an accelerator spends its time on starting; only edits, of which there are
few, are drawn one after the other. Every operation is done to every row, with
no edits where it is another operation's turn.

References:
  Wei & Zou 2019, EDA, arXiv:1901.11196, section 2.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from augdistill import prng
from augdistill.augment.mixing import exchangeable
from augdistill.augment.places import (
  below,
  draw_pairs,
  draw_places,
  place_of,
  put,
  running_count,
)
from augdistill.augment.replacement import (
  check_neighbours,
  check_rate,
  draw_neighbours,
)
from augdistill.types import Inputs, View, ViewMaker

OPERATIONS = ("synonym", "insert", "swap", "delete")
_SEEKING = {"synonym", "insert"}  # They put in neighbours.
_PADDING = 0  # What a word that is deleted leaves; masked, so never read.


def edit_tokens(
  rate: float = 0.1,
  operations: str = "all",
  k: int = 15,
  exact: bool = False,
) -> ViewMaker:
  """EDA: one operation per row, at random among those asked for.

  A row of n words is edited max(1, floor(rate n)) times, as EDA's authors
  round its n, and not at all at rate 0:

    synonym: so many of its words become one of their k nearest neighbours,
      as `replace_by_neighbours` chooses it, in the place of WordNet's;
    insert: such a neighbour of so many of its words is put anywhere;
    swap: so many pairs of its words change places, no word twice;
    delete: every word goes with chance `rate`.

  Words are the tokens that are neither padding nor protected. Protected ones,
  such as ends of sentences and separators, stay, and between them is a
  segment: insertions are inside of one, swaps are within one, and each keeps
  at least one of its words.

  Args:
    rate: EDA's alpha in [0, 1].
    operations: "synonym", "insert", "swap" or "delete"; several, in the words
      that a method may hold, as in "swap.delete"; or "all".
    k: neighbours to choose from.
    exact: find all k on a TPU, too, as in `nearest_neighbours`.

  Returns:
    A maker of a view that enters at tokens, with the row's own label. L stays:
    where a row has no room for all its insertions, the rest are left out.
    Its statistics are, for each operation asked for, the share of all words
    that it touched, and "no_room", the share of insertions left out.

  Raises:
    ValueError: if `rate` is outside [0, 1], an operation unknown or there
      twice, or `k` less than 1.
    UsageError: when a view is made, if the vocabulary has no more than k rows.
  """
  check_rate(rate)
  check_neighbours(k)
  names = OPERATIONS if operations == "all" else tuple(operations.split("."))
  if not set(names) <= set(OPERATIONS) or len(set(names)) < len(names):
    raise ValueError(
      f"operations must be all or some of {', '.join(OPERATIONS)}, each once "
      f"and joined by dots, got {operations!r}"
    )

  def make(key, batch, clean, models, step):
    del clean, step
    length = batch.tokens.shape[-1]
    num_edits = _num_edits(rate, length)
    slots = num_edits[-1]
    keys = prng.per_example(prng.stream(key, "edits"), batch.example_id)
    size = 1 + max(length, 3 * slots)
    draws = jax.vmap(lambda key: jax.random.uniform(key, (size,)))(keys)
    # A row has one operation, so all the other draws are for that one.
    turn, draws = below(draws[:, 0], len(names)), draws[:, 1:]
    of_slots = draws[:, : 3 * slots].reshape(len(draws), slots, 3)
    # Both operations with neighbours share one search.
    seeking = of_slots if _SEEKING & {*names} else of_slots[:, :0]

    def now(name):  # bool[B], whose turn it is.
      return turn == names.index(name) if name in names else turn < 0

    words = exchangeable(batch, models.lexicon)[0]
    times = jnp.take(jnp.array(num_edits), jnp.sum(words, axis=-1))
    there = jnp.arange(slots)[None] < times[:, None]
    places = jax.vmap(draw_places)(seeking[..., 0], words)
    at = jnp.minimum(places, length - 1)
    old = jnp.take_along_axis(batch.tokens, at, axis=-1)
    new, exists = draw_neighbours(seeking[..., 1], old, models, k, exact)
    exists &= there[:, : exists.shape[-1]]
    replaced = exists & now("synonym")[:, None]
    wanted = exists & now("insert")[:, None]
    inserted = wanted & (jnp.cumsum(wanted, -1) <= _room(batch.mask)[:, None])
    gaps = jax.vmap(_gaps)(seeking[..., 2], words)
    swapped = there & now("swap")[:, None]
    source = jax.vmap(_swaps)(of_slots[..., :2], words, swapped)
    chance = jnp.where(now("delete"), jnp.float32(rate), 0.0)
    deleted = jax.vmap(_deletions)(draws[:, :length], words, chance)

    places = jnp.where(replaced, places, length)
    tokens = jax.vmap(put)(batch.tokens, places, new)
    tokens = jnp.take_along_axis(tokens, source, axis=-1)
    tokens, mask = jax.vmap(_lay_out)(
      tokens, batch.mask, deleted, new, gaps, inserted
    )

    def count(edits):  # Of all rows: f32[].
      return jnp.sum(jnp.where(edits, batch.weight[:, None], 0.0))

    touched = {
      "synonym": replaced,
      "insert": inserted,
      "swap": source != jnp.arange(source.shape[-1])[None],
      "delete": deleted,
    }
    stats = {n: (count(touched[n]), count(words)) for n in names}
    if "insert" in names:
      stats["no_room"] = (count(wanted & ~inserted), count(wanted))
    inputs = Inputs(mask=mask[None], tokens=tokens[None])
    return View(
      student=inputs,
      teacher=inputs if models.teacher else None,
      label=batch.label[None],
      has_label=batch.has_label[None],
      weight=batch.weight[None],
      stats=stats,
    )

  return ViewMaker(make, num_neighbours=k if set(names) & _SEEKING else 0)


def _num_edits(rate: float, length: int) -> list[int]:
  """How often a row of 0, 1, ... L words is edited.

  Made before it runs: in float32 a product may fall short of a whole number.
  """
  if not rate:
    return [0] * (length + 1)
  return [min(max(int(rate * n), 1), n) for n in range(length + 1)]


def _room(mask: Bool[Array, "B L"]) -> Int[Array, "B"]:
  """How many positions there are after the last real one."""
  number = jnp.arange(1, mask.shape[-1] + 1)[None]
  return mask.shape[-1] - jnp.max(jnp.where(mask, number, 0), axis=-1)


# What follows is of one row.


def _gaps(
  draws: Float[Array, "*slots"], words: Bool[Array, "L"]
) -> Int[Array, "*slots"]:
  """Where to insert, before these positions: beside words, all as likely."""
  beside = jnp.pad(words, (0, 1)) | jnp.pad(words, (1, 0))
  count = running_count(beside)
  return place_of(count, below(draws, count[-1]))


def _swaps(
  draws: Float[Array, "slots 2"],
  words: Bool[Array, "L"],
  swapped: Bool[Array, "*slots"],
) -> Int[Array, "L"]:
  """Where each position's token is from after these swaps, or all there are."""
  pairs = draw_pairs(draws, words)
  pairs = jnp.where(swapped[:, None], pairs, words.size)
  index = jnp.arange(words.size, dtype=jnp.int32)
  return put(index, pairs.ravel(), pairs[:, ::-1].ravel())


def _deletions(
  draws: Float[Array, "L"], words: Bool[Array, "L"], chance: Float[Array, ""]
) -> Bool[Array, "L"]:
  """Every word with a chance, but one of each segment that is left."""
  last = jnp.where(words, draws, -1.0)
  segment = jnp.arange(1, words.size + 1) - running_count(words)
  same = segment[:, None] == segment[None]
  # The last that would go stays, if all others do.
  last = jnp.max(jnp.where(same, last[:, None], -1.0), axis=0)
  return words & (draws < chance) & (draws < last)


def _lay_out(
  tokens: Int[Array, "L"],
  mask: Bool[Array, "L"],
  deleted: Bool[Array, "L"],
  new: Int[Array, "*slots"],
  gaps: Int[Array, "*slots"],
  inserted: Bool[Array, "*slots"],
) -> tuple[Int[Array, "L"], Bool[Array, "L"]]:
  """The row without some tokens and with new ones in the gaps, and its mask."""
  index = jnp.arange(tokens.size, dtype=jnp.int32)
  slot = jnp.arange(new.size, dtype=jnp.int32)
  gap = jnp.where(inserted, gaps, tokens.size)
  earlier = gap[:, None] < gap[None]
  earlier |= (gap[:, None] == gap[None]) & (slot[:, None] < slot[None])
  place = gap + jnp.sum(inserted[:, None] & earlier, axis=0, dtype=jnp.int32)
  # What is not new is from as many places before as new ones are before it.
  before = jnp.sum(place[:, None] < index[None], axis=0, dtype=jnp.int32)
  origin = place_of(running_count(~deleted), index - before)
  tokens = tokens.at[origin].get(mode="fill", fill_value=_PADDING)
  mask = mask.at[origin].get(mode="fill", fill_value=False)
  return put(tokens, place, new), put(mask, place, inserted)
