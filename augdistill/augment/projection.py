"""Projection: views that enter at embeddings, back to tokens.

References:
  Wang et al. 2023, AugPro, arXiv:2210.11768, equation 5.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from augdistill import prng
from augdistill.augment.mixing import exchangeable
from augdistill.augment.nearest import nearest_tokens, or_own
from augdistill.augment.surroundings import nearest_of_mixtures
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

  return dataclasses.replace(
    maker, make=make, projects_mixtures=maker.partners is not None
  )


def read_as_tokens(view: View, batch: Batch, models: Models) -> View:
  """A view that enters at embeddings, with the tokens nearest to them.

  Args:
    view: what `project_to_tokens` projects.
    batch: that it was made of, with the partners.
    models: whose tables are searched.

  Returns:
    The view, entering both models at tokens.
  """
  if batch.partner and len(batch.partner.tokens) < len(view.weight):
    batch = _with_itself(batch)
  own, lexicon = batch.tokens[None], models.lexicon
  shape = (len(view.weight), *batch.tokens.shape)
  # Several copies may have no partners.
  free = jnp.broadcast_to(exchangeable(batch, lexicon), shape)
  if isinstance(view.teacher, Inputs):
    queries = view.teacher.embeddings
    table = models.teacher.table(models.teacher_params)
    frozen = lexicon.surroundings
  else:
    queries = view.student.embeddings
    table = models.student.table(models.student_params)
    frozen = None
  if view.mixture is not None and frozen is not None:
    nearest, stages = nearest_of_mixtures(view.mixture, free, table, lexicon)
  else:
    nearest, stages = nearest_or_own(queries, own, table, lexicon), {}
  tokens = jnp.where(free, nearest, own)
  stats = view.stats | _shares(stages, free, view.weight)
  return as_token_view(view._replace(stats=stats), batch, tokens, free)


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
  own = jnp.broadcast_to(own, queries.shape[:-1])
  kinds = None
  if lexicon.continues is not None:
    kinds = jnp.take(lexicon.continues, own), lexicon.continues
  norm = jnp.linalg.norm(table.astype(jnp.float32), axis=-1)
  token, score = nearest_tokens(
    queries, table, lexicon.producible, kinds=kinds, norm=norm
  )
  return or_own(token, score, queries, own, table, norm, lexicon.producible)


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
  return view._replace(
    student=inputs, teacher=teacher, stats=stats, mixture=None
  )


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
  changed = tokens != batch.tokens[None]
  wanted = {"changed": changed}
  if batch.partner is not None:
    from_b = tokens == batch.partner.tokens
    wanted["from_b"] = changed & from_b
    wanted["from_neither"] = changed & ~from_b
  return _shares(wanted, free, weight)


def _shares(
  wanted: Mapping[str, Bool[Array, "n B L"]],
  free: Bool[Array, "n B L"],
  weight: Float[Array, "n B"],
) -> Metrics:
  """Of the free tokens of rows that count, how many are where."""
  counted = jnp.where(free, weight[..., None], 0.0)
  total = jnp.sum(counted)
  return {
    name: (jnp.sum(counted, where=where), total)
    for name, where in wanted.items()
  }
