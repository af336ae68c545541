"""Places of a row, drawn one after the other from those that are marked.

A place is drawn as its number among the marks, and found by counting. So each
takes L comparisons, where all of a row in random order take L x L; what is
drawn here is a few edits of a text.

Every function is of one row, and is mapped over rows with `jax.vmap`. The
padded length L moves nothing.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num


def running_count(marks: Bool[Array, "L"]) -> Int[Array, "L"]:
  """How many marks there are up to each place, its own included.

  As a product, which takes CPUs half as long as XLA's cumulative sum.
  """
  ones = jnp.triu(jnp.ones((marks.size, marks.size), jnp.float32))
  return (marks.astype(jnp.float32) @ ones).astype(jnp.int32)


def below(
  draws: Float[Array, "*shape"], count: Int[Array, "*#shape"] | int
) -> Int[Array, "*shape"]:
  """Whole numbers in [0, count), all as likely; 0 where count is not positive.

  Args:
    draws: f32[...] in [0, 1), uniform.
    count: i32[...], far below 2^23.
  """
  count = jnp.maximum(jnp.asarray(count, jnp.float32), 0.0)
  return (draws * count).astype(jnp.int32)


def place_of(
  count: Int[Array, "L"], number: Int[Array, "*shape"]
) -> Int[Array, "*shape"]:
  """Where the mark of a number is: that which has so many before it.

  Args:
    count: i32[L], how many marks there are up to each place.
    number: i32[...], from 0.

  Returns:
    i32[...], L where there are no more marks.
  """
  count = jnp.expand_dims(count, range(number.ndim))
  return jnp.sum(count <= number[..., None], axis=-1, dtype=jnp.int32)


def draw_places(
  draws: Float[Array, "*slots"], marks: Bool[Array, "L"]
) -> Int[Array, "*slots"]:
  """Marked places, none twice, each of those that are left as likely.

  Args:
    draws: f32[slots] in [0, 1), uniform.
    marks: bool[L].

  Returns:
    i32[slots], L where no mark is left.
  """

  def draw_one(count, draw):
    place = place_of(count, below(draw, count[-1]))
    return _without(count, place), place

  return jax.lax.scan(draw_one, running_count(marks), draws)[1]


def draw_pairs(
  draws: Float[Array, "slots 2"], marks: Bool[Array, "L"]
) -> Int[Array, "slots 2"]:
  """Pairs of marked places with only marks between them, no place twice.

  The first is any that has such a mate left, the second any of its mates.

  Args:
    draws: f32[slots, 2] in [0, 1), uniform.
    marks: bool[L].

  Returns:
    i32[slots, 2], both L where no pair is left.
  """
  index = jnp.arange(marks.size, dtype=jnp.int32)

  def draw_one(count, draw):
    first = place_of(count, below(draw[0], count[-1]))
    # Its own and its mates are numbers `start` to `end` - 1.
    start = jnp.max(jnp.where(~marks & (index < first), count, 0))
    end = jnp.min(jnp.where(~marks & (index > first), count, count[-1]))
    count = _without(count, first)
    mate = place_of(count, start + below(draw[1], end - start - 1))
    count = _without(count, mate)
    # Where there were three, the one that is left has no mate.
    alone = (end - start == 3) & (count > start)
    return count - alone.astype(jnp.int32), jnp.stack([first, mate])

  around = jnp.pad(marks, 1)
  has_mate = marks & (around[:-2] | around[2:])
  return jax.lax.scan(draw_one, running_count(has_mate), draws)[1]


def _without(count: Int[Array, "L"], place: Int[Array, ""]) -> Int[Array, "L"]:
  """The counts when the mark at this place is gone."""
  index = jnp.arange(count.size, dtype=jnp.int32)
  return count - (index >= place).astype(jnp.int32)


def put(
  row: Num[Array, "L"] | Bool[Array, "L"],
  places: Int[Array, "*slots"],
  new: Num[Array, "*slots"] | Bool[Array, "*slots"],
) -> Num[Array, "L"] | Bool[Array, "L"]:
  """A row with new values at distinct places; none at those past its end."""
  return row.at[places].set(new, mode="drop")
