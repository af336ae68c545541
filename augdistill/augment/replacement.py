"""Views that put other words in the place of some: neighbours, or any at all.

References:
  Wang & Yang 2015, EMNLP, section 3 (KNN); Jiao et al. 2020, TinyBERT,
  arXiv:1909.10351, algorithm 1; Wang et al. 2023, AugPro, arXiv:2210.11768,
  section 5.1, appendices C.1 (k and rate), D (Random) and G; Chern et al.
  2022, TPU-KNN, arXiv:2206.14286.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from augdistill import prng
from augdistill.augment.masks import largest, round_at_random
from augdistill.augment.mixing import exchangeable
from augdistill.augment.places import below, draw_places, put
from augdistill.augment.projection import as_token_view
from augdistill.errors import UsageError
from augdistill.types import (
  Batch,
  Inputs,
  Lexicon,
  Models,
  View,
  ViewMaker,
)


def nearest_neighbours(
  tokens: Int[Array, "*n"],
  table: Float[Array, "V D"],
  allowed: Bool[Array, "V"],
  k: int,
  exact: bool = False,
  block: int = 2048,
  continues: Bool[Array, "V"] | None = None,
) -> tuple[Int[Array, "*n k"], Bool[Array, "*n k"]]:
  """The k allowed rows of `table` with the largest cosine to a token's row.

  The vocabulary is scanned in blocks and the best k of each are merged with
  the best so far, so no array of tokens times V ever exists.

  Args:
    tokens: i32[...], whose neighbours are sought.
    table: f[V, D]; rows of norm 0 are nobody's neighbours.
    allowed: bool[V], rows that may be found; a token itself never is.
    k: how many.
    exact: a TPU finds about 95 % of the neighbours by default, several times
      faster; True makes it find all. Elsewhere all are found anyway.
    block: at most so many rows of the table are scored at a time.
    continues: if given, tokens find those alone of which it says the same, as
      of `Lexicon`.

  Returns:
    Ids i32[..., k], nearest first, the lower one first among equals; and
    bool[..., k], False where there are fewer than k.

  Raises:
    UsageError: if k is not less than V.
  """
  size = table.shape[0]
  if k >= size:
    raise UsageError(
      f"k must be less than the number of the vocabulary's rows, got k={k} and "
      f"{size} rows"
    )
  table = table.astype(jnp.float32)
  norm = jnp.linalg.norm(table, axis=-1)
  queries = jnp.take(table, tokens, axis=0)
  allowed = allowed & (norm > 0)
  unit = table / jnp.where(norm > 0, norm, 1.0)[:, None]
  num_blocks = -(-size // block)
  block = -(-size // num_blocks)  # Equal blocks, so that little is padding.
  rest = num_blocks * block - size
  unit = jnp.pad(unit, ((0, rest), (0, 0))).reshape(num_blocks, block, -1)
  allowed = jnp.pad(allowed, (0, rest)).reshape(num_blocks, block)
  ids = jnp.arange(num_blocks * block, dtype=jnp.int32).reshape(-1, block)
  kinds = None
  if continues is not None:
    kinds = jnp.pad(continues, (0, rest)).reshape(num_blocks, block)
  recall = 1.0 if exact else 0.95

  def scan_block(best, rows):
    unit_rows, allowed_rows, row_ids, kind = rows
    row_ids = row_ids.reshape((1,) * tokens.ndim + (block,))
    scores = jnp.einsum("...d,vd->...v", queries, unit_rows)
    fine = allowed_rows.reshape(row_ids.shape) & (row_ids != tokens[..., None])
    if continues is not None:
      own = jnp.take(continues, tokens)[..., None]
      fine &= kind.reshape(row_ids.shape) == own
    # Off TPUs this one is exact, too; and top_k, unlike it, would gather the
    # rows of a sharded batch.
    score, local = jax.lax.approx_max_k(
      jnp.where(fine, scores, -jnp.inf), min(k, block), recall_target=recall
    )
    found = jnp.take_along_axis(
      jnp.broadcast_to(row_ids, scores.shape), local, axis=-1
    )
    # The best so far first: among equals they have the lower ids.
    score = jnp.concatenate([best[0], score], axis=-1)
    found = jnp.concatenate([best[1], found], axis=-1)
    score, local = jax.lax.approx_max_k(score, k, recall_target=1.0)
    return (score, jnp.take_along_axis(found, local, axis=-1)), None

  shape = (*tokens.shape, k)
  nothing = (jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32))
  blocks = (unit, allowed, ids, kinds)
  (score, found), _ = jax.lax.scan(scan_block, nothing, blocks)
  return found, score > -jnp.inf


@functools.partial(jax.jit, static_argnames=("k", "chunk"))
def neighbour_lists(
  table: Float[Array, "V D"],
  lexicon: Lexicon,
  k: int,
  rows: Int[Array, "*rows"] | None = None,
  chunk: int = 1024,
) -> Int[Array, "V k"]:
  """The neighbours of every token, for a table that does not change.

  A step searches for those of a few tokens of each row; so this costs as much
  as some tens of steps, and every step after them is spared its search.

  Args:
    table: f[V, D].
    lexicon: which tokens may be found, of which.
    k: how many.
    rows: i32[...], whose neighbours are wanted, by default everybody's; the
      others have none.
    chunk: whose neighbours are sought at a time.

  Returns:
    `Lexicon.neighbours`: all as `nearest_neighbours` finds them if `exact`.

  Raises:
    UsageError: if k is not less than V.
  """

  def of(tokens):
    found, exists = nearest_neighbours(
      tokens, table, lexicon.producible, k, True, continues=lexicon.continues
    )
    return jnp.where(exists, found, tokens[:, None])

  own = jnp.arange(table.shape[0], dtype=jnp.int32)
  rows = own if rows is None else rows
  chunk = min(chunk, len(rows))
  turns = jnp.pad(rows, (0, -len(rows) % chunk), mode="edge")
  found = jax.lax.map(of, turns.reshape(-1, chunk)).reshape(-1, k)
  nobody = jnp.broadcast_to(own[:, None], (len(own), k))
  return nobody.at[turns].set(found)


def draw_neighbours(
  draws: Float[Array, "B slots"],
  tokens: Int[Array, "B slots"],
  models: Models,
  k: int,
  exact: bool,
) -> tuple[Int[Array, "B slots"], Bool[Array, "B slots"]]:
  """For each token one of its k nearest producible ones, all as likely.

  They are near in the teacher's table, or in the student's without a teacher;
  where the lexicon has lists of neighbours, they are looked up.

  Args:
    draws: f32[B, slots] in [0, 1), uniform.
    tokens: i32[B, slots].
    models: whose table and vocabulary it is.
    k: how many neighbours there are to choose from, or fewer if no more exist.
    exact: as in `nearest_neighbours`.

  Returns:
    Ids i32[B, slots], and bool[B, slots], False where a token has no neighbour.

  Raises:
    UsageError: if k is not less than V.
  """
  lists = models.lexicon.neighbours
  if lists is not None and lists.shape[-1] >= k:
    found = jnp.take(lists, tokens, axis=0)[..., :k]
    exists = found != tokens[..., None]
  else:
    if models.teacher:
      table = models.teacher.table(models.teacher_params)
    else:
      table = models.student.table(models.student_params)
    found, exists = nearest_neighbours(
      tokens,
      jax.lax.stop_gradient(table),
      models.lexicon.producible,
      k,
      exact,
      continues=models.lexicon.continues,
    )
  count = jnp.sum(exists, axis=-1)
  choice = below(draws, count)[..., None]
  chosen = jnp.take_along_axis(found, choice, axis=-1)[..., 0]
  return chosen, count > 0


def num_slots(rate: float, length: int) -> int:
  """At most so many of L positions are drawn at a rate: a static number."""
  return min(length, math.ceil(rate * length) + 1)


def replace_by_neighbours(
  rate: float = 0.1, k: int = 15, exact: bool = False
) -> ViewMaker:
  """KNN: some tokens become one of their k nearest by cosine.

  Of a row's n free tokens, floor(rate n + u) are replaced, with u uniform in
  [0, 1): rate n of them on average. Each becomes one of its k nearest
  producible tokens, itself excluded, all as likely, in the teacher's word
  embeddings, or in the student's without a teacher.

  Args:
    rate: of a row's free tokens, in [0, 1]. AugPro's KNN has 0.1, TinyBERT
      0.4 (with words, GloVe and a masked language model for embeddings).
    k: neighbours to choose from; 15 in both.
    exact: find all k on a TPU, too, as in `nearest_neighbours`.

  Returns:
    A maker of a view that enters at tokens, with the row's own label.

  Raises:
    ValueError: if `rate` is outside [0, 1] or `k` less than 1.
    UsageError: when a view is made, if the vocabulary has no more than k rows.
  """
  check_rate(rate)
  check_neighbours(k)

  def make(key, batch, clean, models, step):
    del clean, step
    free = exchangeable(batch, models.lexicon)
    length = batch.tokens.shape[-1]
    slots = num_slots(rate, length)
    keys = prng.per_example(prng.stream(key, "neighbours"), batch.example_id)
    size = 1 + 2 * slots
    draws = jax.vmap(lambda key: jax.random.uniform(key, (size,)))(keys)
    count = _counts(draws[:, 0], free[0], rate)
    places = jax.vmap(draw_places)(draws[:, 1::2], free[0])
    at = jnp.minimum(places, length - 1)
    old = jnp.take_along_axis(batch.tokens, at, axis=-1)
    new, exists = draw_neighbours(draws[:, 2::2], old, models, k, exact)
    exists &= jnp.arange(slots)[None] < count[:, None]
    places = jnp.where(exists, places, length)
    tokens = jax.vmap(put)(batch.tokens, places, new)
    return _replaced(batch, models, tokens[None], free)

  return ViewMaker(make, num_neighbours=k)


def replace_at_random(rate: float = 1.0) -> ViewMaker:
  """Random: some tokens become any others, at rate 1 a whole random sentence.

  Of a row's n free tokens, floor(rate n + u) are replaced, with u uniform in
  [0, 1); each by a producible token, all as likely.

  Args:
    rate: of a row's free tokens, in [0, 1]; AugPro's table 7 has 1.

  Returns:
    A maker of a view that enters at tokens, with the row's own label.

  Raises:
    ValueError: if `rate` is outside [0, 1].
  """
  check_rate(rate)

  def make(key, batch, clean, models, step):
    del clean, step
    free = exchangeable(batch, models.lexicon)
    number = jnp.cumsum(models.lexicon.producible)

    def keys(name):
      return prng.per_example(prng.stream(key, name), batch.example_id)

    def draw(key):  # The how manieth producible one, then its id.
      which = jax.random.randint(key, free.shape[2:], 0, number[-1])
      return jnp.searchsorted(number, which, side="right")

    values = jax.vmap(lambda key: jax.random.uniform(key, free.shape[2:]))
    count = _counts(jax.vmap(jax.random.uniform)(keys("count")), free[0], rate)
    replaced = jax.vmap(largest)(values(keys("positions")), free[0], count)
    new = jax.vmap(draw)(keys("token")).astype(jnp.int32)
    tokens = jnp.where(replaced, new, batch.tokens)
    return _replaced(batch, models, tokens[None], free)

  return ViewMaker(make)


def _counts(
  draws: Float[Array, "B"], free: Bool[Array, "B L"], rate: float
) -> Int[Array, "B"]:
  """How many tokens of each row are replaced: a share, rounded at random."""
  mean = jnp.float32(rate) * jnp.sum(free, axis=-1, dtype=jnp.float32)
  return round_at_random(draws, mean)


def _replaced(
  batch: Batch,
  models: Models,
  tokens: Int[Array, "1 B L"],
  free: Bool[Array, "1 B L"],
) -> View:
  """The batch with these tokens, and its own label."""
  inputs = Inputs(mask=batch.mask[None], tokens=tokens)
  view = View(
    student=inputs,
    teacher=inputs if models.teacher else None,
    label=batch.label[None],
    has_label=batch.has_label[None],
    weight=batch.weight[None],
  )
  return as_token_view(view, batch, tokens, free)


def check_rate(rate: float) -> None:
  """Raises ValueError unless `rate` is in [0, 1]."""
  if not 0.0 <= rate <= 1.0:
    raise ValueError(f"rate must be in [0, 1], got {rate}")


def check_neighbours(k: int) -> None:
  """Raises ValueError unless `k` is at least 1."""
  if k < 1:
    raise ValueError(f"k must be at least 1, got {k}")
