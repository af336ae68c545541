"""EDA on the device: words replaced, inserted, swapped and deleted.

A row is edited by comparisons and gathers, not by a loop over its positions: a
loop would be as many small kernels one after the other as a text has words,
which an accelerator spends its time on starting. So every operation is done
to every row, with no edits where it is another operation's turn; and what
shortens and lengthens a row changes the places by which it is ordered at the
end.

References:
  Wei & Zou 2019, EDA, arXiv:1901.11196, section 2.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from augdistill import prng
from augdistill.augment.masks import in_order, largest
from augdistill.augment.mixing import exchangeable
from augdistill.augment.replacement import (
  check_neighbours,
  check_rate,
  draw_neighbours,
  draw_positions,
  num_slots,
  put,
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

    def keys(name):
      return prng.per_example(prng.stream(key, name), batch.example_id)

    def each(name, function, *rows):
      return jax.vmap(function)(keys(name), *rows)

    words = exchangeable(batch, models.lexicon)[0]
    total = jnp.sum(words, axis=-1)
    turn = each("turn", lambda key: jax.random.randint(key, (), 0, len(names)))

    def now(name):  # bool[B], whose turn it is.
      return turn == names.index(name) if name in names else turn < 0

    times = jnp.take(_num_edits(rate, words.shape[-1]), total)
    # Both operations with neighbours share one search.
    slots = num_slots(rate, words.shape[-1]) if _SEEKING & {*names} else 0
    positions = each(
      "positions", lambda key, free: draw_positions(key, free, slots), words
    )
    old = jnp.take_along_axis(batch.tokens, positions, axis=-1)
    new, exists = draw_neighbours(keys("neighbour"), old, models, k, exact)
    exists &= jnp.arange(slots)[None] < times[:, None]
    replaced = exists & now("synonym")[:, None]
    wanted = exists & now("insert")[:, None]
    inserted = wanted & (jnp.cumsum(wanted, -1) <= _room(batch.mask)[:, None])
    gaps = each("gaps", lambda key, free: _gaps(key, free, slots), words)
    source = each("swap", _swaps, words, jnp.where(now("swap"), times, 0))
    chance = jnp.where(now("delete"), jnp.float32(rate), 0.0)
    deleted = each("delete", _deletions, words, chance)

    tokens = jax.vmap(put)(batch.tokens, positions, new, replaced)
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


def _num_edits(rate: float, length: int) -> Int[Array, "*lengths"]:
  """How often a row of 0, 1, ... L words is edited.

  Made before it runs: in float32 a product may fall short of a whole number.
  """
  counts = [min(max(int(rate * n), 1), n) for n in range(length + 1)]
  return jnp.array(counts if rate else [0] * len(counts), jnp.int32)


def _room(mask: Bool[Array, "B L"]) -> Int[Array, "B"]:
  """How many positions there are after the last real one."""
  number = jnp.arange(1, mask.shape[-1] + 1)[None]
  return mask.shape[-1] - jnp.max(jnp.where(mask, number, 0), axis=-1)


# What follows is of one row.


def _gaps(
  key: Key[Array, ""], words: Bool[Array, "L"], slots: int
) -> Int[Array, "*slots"]:
  """Where to insert, before these positions: beside words, all as likely."""
  beside = jnp.pad(words, (0, 1)) | jnp.pad(words, (1, 0))
  number = jnp.cumsum(beside)
  which = jax.random.randint(key, (slots,), 0, number[-1])
  return jnp.searchsorted(number, which, side="right").astype(jnp.int32)


def _same_segment(words: Bool[Array, "L"]) -> Bool[Array, "L L"]:
  """Which two are words with nothing but words between them."""
  segment = jnp.cumsum(~words)
  both = words[:, None] & words[None]
  return both & (segment[:, None] == segment[None])


def _swaps(
  key: Key[Array, ""], words: Bool[Array, "L"], count: Int[Array, ""]
) -> Int[Array, "L"]:
  """Where each position's token is from after `count` swaps, or all there are.

  The words of every segment are paired off at random, and so many pairs of
  all are swapped.
  """
  index = jnp.arange(words.size, dtype=jnp.int32)
  score = jax.random.uniform(prng.stream(key, "order"), words.shape)
  same = _same_segment(words)
  before = score[None] < score[:, None]
  before |= (score[None] == score[:, None]) & (index[None] < index[:, None])
  number = jnp.sum(same & before, axis=-1)  # within the segment
  is_mate = same & (number[None] == (number ^ 1)[:, None])
  mate = jnp.max(jnp.where(is_mate, index[None], -1), axis=-1)
  first = (mate >= 0) & (number % 2 == 0)
  score = jax.random.uniform(prng.stream(key, "pairs"), words.shape)
  swapped = largest(score, first, count)
  swapped |= (mate >= 0) & jnp.take(swapped, mate)
  return jnp.where(swapped, mate, index)


def _deletions(
  key: Key[Array, ""], words: Bool[Array, "L"], chance: Float[Array, ""]
) -> Bool[Array, "L"]:
  """Every word with a chance, but one of each segment that is left."""
  draw = jax.random.uniform(key, words.shape)
  # The last that would go stays, if all others do.
  last = jnp.where(_same_segment(words), draw[None], -1.0)
  return words & (draw < chance) & (draw < jnp.max(last, axis=-1))


def _lay_out(
  tokens: Int[Array, "L"],
  mask: Bool[Array, "L"],
  deleted: Bool[Array, "L"],
  new: Int[Array, "*slots"],
  gaps: Int[Array, "*slots"],
  inserted: Bool[Array, "*slots"],
) -> tuple[Int[Array, "L"], Bool[Array, "L"]]:
  """The row without some tokens and with new ones in the gaps, and its mask."""
  end = 2 * tokens.size  # Behind everything else.
  index = jnp.arange(tokens.size, dtype=jnp.int32)
  place = jnp.concatenate(
    [jnp.where(deleted, end, 2 * index), jnp.where(inserted, 2 * gaps - 1, end)]
  )
  order = in_order(place, tokens.size)
  tokens = jnp.concatenate([jnp.where(deleted, _PADDING, tokens), new])
  mask = jnp.concatenate([mask & ~deleted, inserted])
  return tokens[order], mask[order]
