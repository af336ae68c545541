"""The nearest token of a mixture, found among few and certified as the nearest.

A mixture lies between two rows a and b of the table, q = l e_a + (1 - l) e_b,
so what is far from both is far from it. With u_w = e_w / |e_w|, t_x the
(k + 1)-th largest cosine of an allowed row to e_x, and w any allowed row that
is among the k nearest of neither a nor b:

    q . u_w  <=  l |e_a| t_a + (1 - l) |e_b| t_b

So the best of these 2 k rows is the nearest of all if its score exceeds the
right side. The first try is k = 1, whose candidates are a and b themselves;
what this leaves open is tried with more, and what these leave open with all.

The table must be frozen: the surroundings of its rows are found once.

References:
  The projection is that of Wang et al. 2023, AugPro, arXiv:2210.11768. The
  bound holds since the product with u_w is linear in q.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from augdistill.augment.nearest import (
  cosine_scores,
  nearest_tokens,
  or_own,
  slack,
)
from augdistill.augment.stages import settle
from augdistill.types import Lexicon, Mixture, Surroundings

_CANDIDATES = 1 << 22  # numbers of the rows that are tried at a time: 16 MB
_FEW = 4  # neighbours decide most of what the parents leave open
_CHUNK = 64  # mixtures that are compared with all rows at a time
_FAR = 2.0  # above any cosine: of a row without surroundings nothing is certain


@functools.partial(jax.jit, static_argnames=("k", "chunk"))
def find_surroundings(
  table: Float[Array, "V D"],
  allowed: Bool[Array, "V"],
  rows: Int[Array, "*rows"] | None = None,
  k: int = 16,
  chunk: int = 256,
) -> Surroundings:
  """The k nearest allowed rows of each row of a table.

  Args:
    table: f[V, D], frozen.
    allowed: bool[V], rows that may be found.
    rows: i32[...], whose surroundings are wanted; by default all. Mixtures of
      others are compared with the whole table.
    k: how many; at most V - 1 are found.
    chunk: rows that are compared with the table at a time.

  Returns:
    The surroundings.
  """
  table = table.astype(jnp.float32)
  size = table.shape[0]
  k = min(k, size - 1)
  norm = jnp.linalg.norm(table, axis=-1)
  inverse = jnp.where(norm > 0, 1 / norm, 0.0)
  allowed = allowed & (norm > 0)
  if rows is None:
    rows = jnp.arange(size, dtype=jnp.int32)

  def of(some):  # i32[chunk]
    scores = jnp.einsum(
      "rd,vd->rv",
      jnp.take(table, some, axis=0) * jnp.take(inverse, some)[:, None],
      table,
      precision=jax.lax.Precision.HIGHEST,
    )
    scores = jnp.where(allowed[None], scores * inverse[None], -_FAR)
    cosine, ids = jax.lax.top_k(scores, k + 1)
    return jnp.where(cosine > -_FAR, ids, -1)[:, :k], cosine

  count = rows.shape[0]
  chunk = min(chunk, count)
  rest = -count % chunk
  turns = jnp.pad(rows, (0, rest), mode="edge").reshape(-1, chunk)
  ids, cosine = jax.lax.map(of, turns)
  rows = turns.ravel()
  return Surroundings(
    norm,
    jnp.full((size, k), -1, jnp.int32).at[rows].set(ids.reshape(-1, k)),
    jnp.full((size, k + 1), _FAR).at[rows].set(cosine.reshape(-1, k + 1)),
  )


def nearest_of_mixtures(
  mixture: Mixture,
  asked: Bool[Array, "n M L"],
  table: Float[Array, "V D"],
  lexicon: Lexicon,
) -> tuple[Int[Array, "n M L"], dict[str, Bool[Array, "n M L"]]]:
  """The token nearest to each mixture of two words, as `nearest_tokens` has it.

  Args:
    mixture: of which words; a first one may stay though it may not be produced.
    asked: bool[n, M, L], whose nearest token is wanted.
    table: f[V, D], the frozen table.
    lexicon: which tokens may be put there, with the table's surroundings.

  Returns:
    i32[n, M, L], any token where none is asked for; and the name of a stage ->
    where it found them: "by_parents" (k = 1), "by_neighbours", "by_search".
  """
  around, table = lexicon.surroundings, jax.lax.stop_gradient(table)
  flat = Mixture(*(x.ravel() for x in mixture))
  width, most = table.shape[1], around.ids.shape[1]
  norm, allowed = around.norm, lexicon.producible

  def among(some, k):
    """(tokens, whether they are the nearest) of some mixtures."""
    query, kinds = _queries(some, table), _kinds(some, lexicon)
    ids = jnp.concatenate(
      [around.ids[some.first, :k], around.ids[some.second, :k]], axis=-1
    )
    scores = cosine_scores(query, table, norm, jnp.maximum(ids, 0))
    fine = ids >= 0
    if kinds is not None:
      fine &= kinds[0][:, None] == jnp.take(kinds[1], ids)
    scores = jnp.where(fine, scores, -jnp.inf)
    best = jnp.max(scores, axis=-1)
    is_best = scores == best[:, None]
    token = jnp.min(jnp.where(is_best, ids, table.shape[0]), axis=-1)
    a, b = (jnp.take(norm, x) for x in (some.first, some.second))
    a, b = some.share * a, (1 - some.share) * b
    bound = a * around.cosine[some.first, k] + b * around.cosine[some.second, k]
    sure = best > bound + 2 * slack(width) * (a + b)
    token = jnp.where(sure, token, 0)  # There may have been none.
    return or_own(token, best, query, some.first, table, norm, allowed), sure

  def among_all(some):
    query, kinds = _queries(some, table), _kinds(some, lexicon)
    token, score = nearest_tokens(query, table, allowed, kinds=kinds, norm=norm)
    return or_own(token, score, query, some.first, table, norm, allowed)

  def of(which):
    return Mixture(*(jnp.take(x, which) for x in flat))

  wanted = asked.ravel()
  token, sure = among(flat, 1)
  by_parents = sure
  for more in sorted({min(_FEW, most), most} - {1}):
    chunk = max(1, _CANDIDATES // (2 * more * width))
    token, sure = settle(
      lambda which, k=more: among(of(which), k),
      wanted & ~sure,
      (token, sure),
      chunk,
    )
  token = settle(
    lambda which: among_all(of(which)), wanted & ~sure, token, _CHUNK
  )
  stages = {
    "by_parents": by_parents,
    "by_neighbours": sure & ~by_parents,
    "by_search": ~sure,
  }
  found = {
    name: (wanted & where).reshape(asked.shape)
    for name, where in stages.items()
  }
  return token.reshape(asked.shape), found


def _queries(some: Mixture, table: Float[Array, "V D"]) -> Float[Array, "m D"]:
  a, b = (
    jnp.take(table, x, axis=0).astype(jnp.float32)
    for x in (some.first, some.second)
  )
  return some.share[:, None] * a + (1 - some.share)[:, None] * b


def _kinds(some: Mixture, lexicon: Lexicon):
  """Of the mixtures, those of their first words; and of all rows; or None."""
  if lexicon.continues is None:
    return None
  return jnp.take(lexicon.continues, some.first), lexicon.continues
