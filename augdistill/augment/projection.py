"""Projection: from embeddings back to tokens, by matmul and argmax.

    token = argmax over w in A of  q . e_w / |e_w|

which is the nearest token by cosine, since |q| is the same for all w.

References:
  Wang et al. 2023, AugPro, arXiv:2210.11768, equation 5. (Its algorithm 2
  writes argmin over unnormalised products; equation 5 is what it means.)
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from augdistill import prng
from augdistill.augment.mixing import exchangeable
from augdistill.errors import UsageError
from augdistill.types import (
  Batch,
  Inputs,
  Lexicon,
  Metrics,
  Models,
  Outputs,
  View,
  ViewMaker,
)

# Into which the vocabulary is cut: at most so many devices share a search.
_SEGMENTS = 8


def nearest_tokens(
  queries: Float[Array, "*n D"],
  table: Float[Array, "V D"],
  allowed: Bool[Array, "V"],
  block: int = 512,
  kinds: tuple[Bool[Array, "*n"], Bool[Array, "V"]] | None = None,
) -> tuple[Int[Array, "*n"], Float[Array, "*n"]]:
  """The allowed row of `table` with the largest cosine to each query.

  The vocabulary is scanned in blocks with a running maximum, so no array of
  queries times V ever exists; the memory is that of queries times `block`.
  Where devices hold parts of the table, each scans its own, and only the best
  of each part is exchanged.

  Args:
    queries: f[..., D].
    table: f[V, D]; rows of norm 0 are never chosen.
    allowed: bool[V], rows that may be chosen; at least one.
    block: at most so many rows of the table are scored at a time.
    kinds: of the queries and of the rows: each query finds only rows of its
      own kind.

  Returns:
    The winner's id, i32[...], the lowest one among equals; and its score
    q . e_w / |e_w|, f32[...]. Where there is none: 0, and -inf.
  """
  queries, table = queries.astype(jnp.float32), table.astype(jnp.float32)
  norm = jnp.linalg.norm(table, axis=-1)
  allowed = allowed & (norm > 0)
  unit = table / jnp.where(norm > 0, norm, 1.0)[:, None]
  # Every block takes a strip of each of the equal segments of the table, so
  # that devices which hold a segment each search it without the others.
  size = -(-table.shape[0] // _SEGMENTS)
  num_strips = -(-size * _SEGMENTS // block)
  strip = -(-size // num_strips)  # Equal strips, so that little is padding.

  def segmented(x):  # [V, ...] -> [S, strips * strip, ...]
    x = _pad(x, 0, _SEGMENTS * size).reshape(_SEGMENTS, size, *x.shape[1:])
    return _pad(x, 1, num_strips * strip)

  unit, allowed = segmented(unit), segmented(allowed)
  kind_of_rows = None if kinds is None else segmented(kinds[1])
  first_ids = size * jnp.arange(_SEGMENTS, dtype=jnp.int32)  # [S]
  local = jnp.arange(strip, dtype=jnp.int32)

  def scan_strip(best, number):
    best_score, best_id = best  # [..., S]

    def of(rows):  # [S, strip, ...]
      return jax.lax.dynamic_slice_in_dim(rows, number * strip, strip, 1)

    scores = jnp.einsum("...d,svd->...sv", queries, of(unit))
    scores += _behind(jnp.where(of(allowed), 0.0, -jnp.inf), queries.ndim + 1)
    if kinds is not None:
      same = kinds[0][..., None, None] == _behind(of(kind_of_rows), scores.ndim)
      scores = jnp.where(same, scores, -jnp.inf)
    # Two plain reductions; XLA's argmax is one of pairs, several times slower.
    score = jnp.max(scores, axis=-1)
    is_best = scores == score[..., None]
    winner = jnp.min(
      jnp.where(is_best, _behind(local, scores.ndim), strip), axis=-1
    )
    # Strictly greater: among equals the earlier strip, so the lower id, wins.
    better = score > best_score
    ids = _behind(first_ids, score.ndim) + number * strip + winner
    return (
      jnp.where(better, score, best_score),
      jnp.where(better, ids, best_id),
    ), None

  shape = (*queries.shape[:-1], _SEGMENTS)
  nothing = (jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32))
  numbers = jnp.arange(num_strips, dtype=jnp.int32)
  (scores, ids), _ = jax.lax.scan(scan_strip, nothing, numbers)
  score = jnp.max(scores, axis=-1)
  is_best = scores == score[..., None]
  return jnp.min(jnp.where(is_best, ids, table.shape[0]), axis=-1), score


def _pad(x: Array, axis: int, size: int) -> Array:
  """`x` with zeros behind it along an axis, so that it is of this size."""
  behind = [(0, 0)] * x.ndim
  behind[axis] = (0, size - x.shape[axis])
  return jnp.pad(x, behind)


def _behind(x: Array, ndim: int) -> Array:
  """`x` with axes of size 1 in front, so that it has so many."""
  return x.reshape((1,) * (ndim - x.ndim) + x.shape)


def project_to_tokens(maker: ViewMaker) -> ViewMaker:
  """AugPro: the view of `maker`, with its embeddings projected to tokens.

  Where the view gives the teacher embeddings of its own (MixUp), these are
  projected, in the teacher's table; otherwise (FGSM) the student's, in the
  student's. Both models then read the same tokens. Padding, protected tokens
  and positions past the partner's end keep the row's token and the row keeps
  its length, so the result is always a valid batch of tokens.

  Args:
    maker: of a view that enters at embeddings.

  Returns:
    A maker of a view that enters at tokens. Its label is that of `maker`'s
    view; a projection does not keep labels in general, so distillation leaves
    it to the teacher.

  Raises:
    UsageError: when a view is made, if `maker`'s enters elsewhere.
  """

  def make(key, batch, clean, models, step):
    view = maker.make(key, batch, clean, models, step)
    if view.student.embeddings is None:
      raise UsageError(
        "only a view that enters at embeddings, such as mixup or fgsm, can be "
        "projected to tokens, got one that enters elsewhere"
      )
    return read_as_tokens(view, batch, models)

  return dataclasses.replace(maker, make=make)


def read_as_tokens(view: View, batch: Batch, models: Models) -> View:
  """A view that enters at embeddings, with the tokens nearest to them.

  Args:
    view: what `project_to_tokens` projects.
    batch: that it was made of, with the partners.
    models: whose tables are searched.

  Returns:
    The view, entering both models at tokens.
  """
  if isinstance(view.teacher, Inputs):
    queries = view.teacher.embeddings
    table = models.teacher.table(models.teacher_params)
  else:
    queries = view.student.embeddings
    table = models.student.table(models.student_params)
  nearest = nearest_or_own(queries, batch.tokens[None], table, models.lexicon)
  if batch.partner and len(batch.partner.tokens) < len(nearest):
    batch = _with_itself(batch)
  free = exchangeable(batch, models.lexicon)
  free = jnp.broadcast_to(free, nearest.shape)  # Several copies, no partners.
  tokens = jnp.where(free, nearest, batch.tokens[None])
  return as_token_view(view, batch, tokens, free)


def _with_itself(batch: Batch) -> Batch:
  """An original before the mixed copies has itself for a partner."""
  itself = batch._replace(partner=None, rewrites=None)
  partner = jax.tree.map(
    lambda own, other: jnp.concatenate([own[None], other]),
    itself,
    batch.partner,
  )
  return batch._replace(partner=partner)


def projected(view: ViewMaker) -> ViewMaker:
  """Any view that enters at embeddings, projected: `project_to_tokens(view)`.

  For example `projected(view=ad2(epsilon=0.5))`.
  """
  return project_to_tokens(view)


def nearest_or_own(
  queries: Float[Array, "n ... D"],
  own: Int[Array, "1 ..."],
  table: Float[Array, "V D"],
  lexicon: Lexicon,
) -> Int[Array, "n ..."]:
  """The nearest producible token, or the own one if none is nearer.

  A token may stay where it stands even if it must not be produced (an unknown
  piece): a perturbation of size 0 changes nothing. Where the vocabulary says
  so, what continues a word goes on doing so.

  Args:
    queries: f[n, ..., D], embeddings; constants.
    own: i32[1, ...], the tokens that stand there.
    table: f[V, D]; a constant.
    lexicon: which tokens may be put there.

  Returns:
    i32[n, ...].
  """
  queries, table = jax.lax.stop_gradient((queries, table))
  kinds = None
  if lexicon.continues is not None:
    kind = jnp.take(lexicon.continues, own)
    kinds = jnp.broadcast_to(kind, queries.shape[:-1]), lexicon.continues
  token, score = nearest_tokens(queries, table, lexicon.producible, kinds=kinds)
  row = jnp.take(table, own, axis=0).astype(jnp.float32)
  dot = jnp.einsum("...d,...d->...", queries.astype(jnp.float32), row)
  stays = ~jnp.take(lexicon.producible, own)
  stays &= dot >= score * jnp.linalg.norm(row, axis=-1)
  return jnp.where(stays, own, token)


def estimate_replaced(
  key: Key[Array, ""],
  queries: Float[Array, "n B L D"],
  batch: Batch,
  models: Models,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Share of the tokens that `project_to_tokens` would replace, by a sample.

  One token of every row is projected, a free one drawn anew for every key,
  and stands for all free ones of its row. So the expected sums are those of
  projecting every token, and the cost is L times lower.

  Args:
    key: of this draw.
    queries: f[n, B, L, D], the student's perturbed embeddings.
    batch: the rows that they were.
    models: for the student's table, and the tokens that may be produced.

  Returns:
    (sum, weight): of the free tokens of rows that count, how many have
    another nearest token; and how many there are.
  """
  free = exchangeable(batch._replace(partner=None), models.lexicon)[0]
  keys = prng.per_example(key, batch.example_id)
  draw = jax.vmap(lambda k: jax.random.uniform(k, batch.tokens.shape[1:]))(keys)
  drawn = jnp.argmax(jnp.where(free, draw, -1.0), axis=-1)[:, None]
  own = jnp.take_along_axis(batch.tokens, drawn, axis=-1)[None]
  at_drawn = jnp.take_along_axis(queries, drawn[None, ..., None], axis=2)
  table = models.student.table(models.student_params)
  token = nearest_or_own(at_drawn, own, table, models.lexicon)
  counted = batch.weight * jnp.sum(free, axis=-1).astype(jnp.float32)
  replaced = (token != own)[..., 0]
  return (
    jnp.sum(jnp.where(replaced, counted[None], 0.0)),
    queries.shape[0] * jnp.sum(counted),
  )


def as_token_view(
  view: View,
  batch: Batch,
  tokens: Int[Array, "n B L"],
  free: Bool[Array, "n B L"],
) -> View:
  """`view` with `tokens` for both models, and what became of the tokens."""
  mask = jnp.broadcast_to(batch.mask[None], tokens.shape)
  inputs = Inputs(mask=mask, tokens=tokens)
  teacher = inputs if isinstance(view.teacher, Inputs | Outputs) else None
  stats = view.stats | token_stats(batch, tokens, free, view.weight)
  return view._replace(student=inputs, teacher=teacher, stats=stats)


def token_stats(
  batch: Batch,
  tokens: Int[Array, "n B L"],
  free: Bool[Array, "n B L"],
  weight: Float[Array, "n B"],
) -> Metrics:
  """Of the tokens that could change: shares changed, from b, from neither.

  A token that both parents have counts as the anchor's (a); so "changed" is
  "from_b" plus "from_neither".
  """
  counted = jnp.where(free, weight[..., None], 0.0)
  total = jnp.sum(counted)

  def share(where):
    return jnp.sum(counted, where=where), total

  changed = tokens != batch.tokens[None]
  if batch.partner is None:
    return {"changed": share(changed)}
  from_b = tokens == batch.partner.tokens
  return {
    "changed": share(changed),
    "from_b": share(changed & from_b),
    "from_neither": share(changed & ~from_b),
  }
