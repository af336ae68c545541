"""The nearest row of a table: a matrix product and an argmax, in blocks.

    token = argmax over w in A of  q . e_w / |e_w|

which is the nearest token by cosine, since |q| is the same for all w.

References:
  Wang et al. 2023, AugPro, arXiv:2210.11768, equation 5. (Its algorithm 2
  writes argmin over unnormalised products; equation 5 is what it means.)
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from augdistill.augment.stages import settle

# Into which the vocabulary is cut: at most so many devices share a search.
_SEGMENTS = 8
_SCORES = 1 << 22  # of a block, over all queries: 16 MB
_BLOCK = 512  # More rows in a block are no faster.
_CHUNK = 64  # near ties that are looked at together


class _Best(NamedTuple):
  """The best row so far of each query, and the score of the next best."""

  score: Float[Array, "*n"]
  id: Int[Array, "*n"]
  next: Float[Array, "*n"]


def nearest_tokens(
  queries: Float[Array, "*n D"],
  table: Float[Array, "V D"],
  allowed: Bool[Array, "V"],
  block: int | None = None,
  kinds: tuple[Bool[Array, "*n"], Bool[Array, "V"]] | None = None,
  norm: Float[Array, "V"] | None = None,
  products: DTypeLike | None = None,
) -> tuple[Int[Array, "*n"], Float[Array, "*n"]]:
  """The allowed row of `table` with the largest cosine to each query.

  The vocabulary is scanned in blocks with a running maximum, so no array of
  queries times V ever exists, nor a copy of the table. Where devices hold parts
  of the table, each scans its own, and only the best of each part is exchanged.

  Accelerators multiply bfloat16 several times faster than float32, so they do
  that first. Where the best score is not so far above the next that rounding
  cannot have changed their order, the query is searched again in float32: the
  winner is always that of float32.

  Args:
    queries: f[..., D].
    table: f[V, D]; rows of norm 0 are never chosen.
    allowed: bool[V], rows that may be chosen; at least one.
    block: at most so many rows of the table are scored at a time; by default
      as many as 16 MB of scores hold, from 64 to 512.
    kinds: of the queries and of the rows: each query finds only rows of its
      own kind.
    norm: f32[V], of the rows, where it is known.
    products: the type in which products are taken first; by default float32 on
      CPUs and bfloat16 elsewhere.

  Returns:
    The winner's id, i32[...], the lowest one among equals; and its score
    q . e_w / |e_w|, f32[...]. Where there is none: 0, and -inf.
  """
  if norm is None:
    norm = jnp.linalg.norm(table.astype(jnp.float32), axis=-1)
  if block is None:
    count = max(1, math.prod(queries.shape[:-1]))
    block = min(max(_SCORES // count, 64), _BLOCK)
  # One axis for rows and their tokens: rows may be spread over devices, so
  # that copies, which come before them, keep their own.
  shape = queries.shape[:-1]
  together = *shape[:-2], math.prod(shape[-2:])
  if kinds is not None:
    kinds = kinds[0].reshape(together), kinds[1]
  queries = queries.astype(jnp.float32).reshape(*together, queries.shape[-1])
  given = queries, table, allowed, norm, kinds

  def exact(*given):
    best = _scan(*given, block=block)
    return best.id, best.score

  def rounded(*given, dtype=products or jnp.bfloat16):
    return _round_first(*given, block=block, dtype=dtype)

  if products is None:
    found = jax.lax.platform_dependent(*given, cpu=exact, default=rounded)
  else:
    found = (exact if products == jnp.float32 else rounded)(*given)
  return tuple(x.reshape(shape) for x in found)


def _scan(queries, table, allowed, norm, kinds, *, block, dtype=None) -> _Best:
  """The search, with products of `dtype`, or as exact as float32 can be.

  The score of the next best is found only where products are rounded.
  """
  size = table.shape[0]
  # Every block takes a strip of each of the equal segments of the table, so
  # that devices which hold a segment each search it without the others.
  segments = math.gcd(size, _SEGMENTS)
  size //= segments
  num_strips = -(-size * segments // block)
  strip = -(-size // num_strips)
  ndim = queries.ndim - 1  # of the axes of queries, which come last in scores

  def segmented(x):  # [V, ...] -> [S, size, ...]
    return x.reshape(segments, size, *x.shape[1:])

  rows = segmented(table)
  inverse = segmented(jnp.where(norm > 0, 1 / norm, 0.0))
  penalty = segmented(jnp.where(allowed & (norm > 0), 0.0, -jnp.inf))
  kind_of_rows = None if kinds is None else segmented(kinds[1])
  first_ids = size * jnp.arange(segments, dtype=jnp.int32)  # [S]
  places = _before(jnp.arange(strip, dtype=jnp.int32)[None], ndim)
  if dtype is not None:
    queries = queries.astype(dtype)

  def scan_strip(best, number):  # best: [S, ...]
    # The last strip may begin within the one before: a copy of the table that
    # is padded to whole strips would cost more.
    first = jnp.minimum(number * strip, size - strip)

    def of(x):  # [S, strip, ...]
      return jax.lax.dynamic_slice_in_dim(x, first, strip, 1)

    # Queries come last: processors then compare many of them at once.
    scores = jnp.einsum(
      "svd,...d->sv...",
      of(rows).astype(queries.dtype),
      queries,
      precision=jax.lax.Precision.HIGHEST if dtype is None else None,
      preferred_element_type=jnp.float32,
    )
    scores *= _before(of(inverse), ndim)
    scores += _before(of(penalty), ndim)
    if kinds is not None:
      same = kinds[0][None, None] == _before(of(kind_of_rows), ndim)
      scores = jnp.where(same, scores, -jnp.inf)
    # Two plain reductions; XLA's argmax is one of pairs, several times slower.
    score = jnp.max(scores, axis=1)
    is_best = scores == score[:, None]
    winner = jnp.min(jnp.where(is_best, places, strip), axis=1)
    following = best.next
    ids = _before(first_ids, ndim) + first + winner
    if dtype is not None:
      others = jnp.where(places == winner[:, None], -jnp.inf, scores)
      # A row of two strips is not its own rival.
      rival = jnp.where(
        ids == best.id, -jnp.inf, jnp.minimum(score, best.score)
      )
      following = jnp.maximum(following, jnp.max(others, axis=1))
      following = jnp.maximum(following, rival)
    # Strictly greater: among equals the earlier strip, so the lower id, wins.
    better = score > best.score
    return _Best(
      jnp.where(better, score, best.score),
      jnp.where(better, ids, best.id),
      following,
    ), None

  shape = (segments, *queries.shape[:-1])
  nothing = jnp.full(shape, -jnp.inf)
  best = _Best(nothing, jnp.zeros(shape, jnp.int32), nothing)
  numbers = jnp.arange(num_strips, dtype=jnp.int32)
  best, _ = jax.lax.scan(scan_strip, best, numbers)
  score = jnp.max(best.score, axis=0)
  is_best = best.score == score[None]
  winner = jnp.min(jnp.where(is_best, best.id, table.shape[0]), axis=0)
  others = jnp.where(best.id == winner[None], -jnp.inf, best.score)
  following = jnp.max(jnp.maximum(best.next, others), axis=0)
  return _Best(score, winner, following)


def _round_first(queries, table, allowed, norm, kinds, *, block, dtype):
  """The float32 winner: of rounded products, where these can tell."""
  best = _scan(queries, table, allowed, norm, kinds, block=block, dtype=dtype)
  # |q . e - q~ . e~| <= |q - q~| |e| + |q~| |e - e~|, over |e|; the roundings
  # are known, so this is less than half of what their type's epsilon promises.
  table = table.astype(jnp.float32)
  off = jnp.linalg.norm(
    table - table.astype(dtype).astype(jnp.float32), axis=-1
  )
  worst = jnp.max(jnp.where(norm > 0, off / norm, 0.0))
  near = queries.astype(dtype).astype(jnp.float32)
  length = jnp.linalg.norm(near, axis=-1)
  error = jnp.linalg.norm(queries - near, axis=-1) + worst * length
  error += 2 * slack(queries.shape[-1]) * length
  is_open = best.score - best.next <= 2 * error
  flat = queries.reshape(-1, queries.shape[-1])

  def search(which):
    of_queries = None
    if kinds is not None:
      of_queries = jnp.take(kinds[0].ravel(), which), kinds[1]
    mine = jnp.take(flat, which, axis=0)
    return _scan(mine, table, allowed, norm, of_queries, block=block).id

  token = settle(search, is_open.ravel(), best.id.ravel(), _CHUNK)
  token = token.reshape(best.id.shape)
  score = cosine_scores(queries, table, norm, token[..., None])[..., 0]
  return token, jnp.where(best.score > -jnp.inf, score, -jnp.inf)


def cosine_scores(
  queries: Float[Array, "*n D"],
  table: Float[Array, "V D"],
  norm: Float[Array, "V"],
  ids: Int[Array, "*n k"],
) -> Float[Array, "*n k"]:
  """q . e_w / |e_w| of some rows alone, in float32; 0 of a row of norm 0."""
  rows = jnp.take(table, ids, axis=0).astype(jnp.float32)
  scores = jnp.einsum(
    "...d,...kd->...k", queries, rows, precision=jax.lax.Precision.HIGHEST
  )
  norm = jnp.take(norm, ids)
  return scores * jnp.where(norm > 0, 1 / norm, 0.0)


def or_own(
  token: Int[Array, "*n"],
  score: Float[Array, "*n"],
  queries: Float[Array, "*n D"],
  own: Int[Array, "*n"],
  table: Float[Array, "V D"],
  norm: Float[Array, "V"],
  allowed: Bool[Array, "V"],
) -> Int[Array, "*n"]:
  """The nearest token, or the own one if that is not allowed and as near.

  Args:
    token: i32[...], the nearest allowed ones.
    score: f32[...], of these, as of `nearest_tokens`.
    queries: f[..., D].
    own: i32[...], the tokens that stand there.
    table: f[V, D].
    norm: f32[V], of its rows.
    allowed: bool[V].

  Returns:
    i32[...].
  """
  row = jnp.take(table, own, axis=0).astype(jnp.float32)
  dot = jnp.einsum(
    "...d,...d->...",
    queries.astype(jnp.float32),
    row,
    precision=jax.lax.Precision.HIGHEST,
  )
  stays = ~jnp.take(allowed, own) & (dot >= score * jnp.take(norm, own))
  return jnp.where(stays, own, token)


def slack(width: int) -> float:
  """How far off a float32 product of two unit vectors may be, at the most."""
  return width * 2.0**-24


def _before(x: Array, ndim: int) -> Array:
  """`x` with so many more axes, of size 1, behind its own."""
  return x.reshape(*x.shape, *(1,) * ndim)
