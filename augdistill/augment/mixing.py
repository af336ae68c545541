"""Views that mix each row with a partner: MixUp on word embeddings.

References:
  Zhang et al. 2018, mixup, arXiv:1710.09412; Liang et al. 2021, MixKD,
  arXiv:2011.00593; Wang et al. 2023, AugPro, arXiv:2210.11768, equation 1.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from augdistill import prng
from augdistill.types import (
  Batch,
  Inputs,
  Lexicon,
  Mixture,
  View,
  ViewMaker,
)


def draw_partners(key: Key[Array, ""], batch: Batch) -> Int[Array, "1 B"]:
  """A partner for every row: the real rows in a random circle.

  Every real row is the partner of exactly one real row, and never its own
  (unless it is alone). Rows of weight 0 are their own partners.

  Args:
    key: of this draw.
    batch: B rows; the draw reads `weight` and `example_id` only.

  Returns:
    i32[1, B], the partner's row.
  """
  real = batch.weight > 0
  # A data set smaller than the batch shows an example twice: each showing
  # draws for itself, or they would be neighbours in the circle, always.
  same = (batch.example_id[:, None] == batch.example_id[None]) & real[None]
  showing = jnp.sum(jnp.tril(same, -1), axis=1)
  keys = prng.per_example(key, batch.example_id)
  score = jax.vmap(lambda k, i: jax.random.uniform(jax.random.fold_in(k, i)))(
    keys, showing
  )
  order = jnp.argsort(jnp.where(real, score, jnp.inf), stable=True)
  rank = jnp.argsort(order)
  count = jnp.maximum(jnp.sum(real), 1)
  partner = order[(rank + 1) % count]
  own = jnp.arange(batch.weight.shape[0])
  return jnp.where(real, partner, own).astype(jnp.int32)[None]


def gather_partners(batch: Batch, partners: Int[Array, "n B"]) -> Batch:
  """`batch` with `partner` set to the rows `partners`, fields [n, B, ...]."""
  rows = jax.tree.map(
    lambda x: jnp.take(x, partners, axis=0),
    batch._replace(partner=None, rewrites=None),
  )
  return batch._replace(partner=rows)


def exchangeable(batch: Batch, lexicon: Lexicon) -> Bool[Array, "n B L"]:
  """Where an augmentation may put another token: bool[n, B, L].

  The row has a real token there that is not protected, and so has its
  partner, where there is one. Padding and the end of a sentence stay.
  """
  free = batch.mask & ~jnp.take(lexicon.protected, batch.tokens)
  if batch.partner is None:
    return free[None]
  other = batch.partner
  return free[None] & other.mask & ~jnp.take(lexicon.protected, other.tokens)


def draw_lambda(
  key: Key[Array, ""], batch: Batch, lam: float, alpha: float | None
) -> Float[Array, "1 B"]:
  """The anchor's share in each row: `lam`, or drawn from Beta(alpha, alpha)."""
  if alpha is None:
    return jnp.full((1, *batch.weight.shape), lam, jnp.float32)
  keys = prng.per_example(key, batch.example_id)
  return jax.vmap(lambda k: jax.random.beta(k, alpha, alpha))(keys)[None]


def mix_embeddings(lam: float = 0.5, alpha: float | None = None) -> ViewMaker:
  """MixUp of word embeddings and labels.

    x' = lambda x_a + (1 - lambda) x_b,  y' = lambda y_a + (1 - lambda) y_b

  in the student's and in the teacher's own embedding space, with the same
  lambda and partner. Past the end of the shorter of the two texts, the longer
  one stands alone; the view is as long as the longer one. A parent whose
  share is 0 is not there at all, so lambda = 1 gives the anchor.

  Args:
    lam: lambda in [0, 1], the anchor's share; AugPro uses 0.5.
    alpha: if given, lambda is drawn from Beta(alpha, alpha) per row instead.

  Returns:
    A maker of a view that enters both models at their embeddings. Its label
    is the mixed one; a row has a label where both parents have one.

  Raises:
    ValueError: if `lam` is outside [0, 1], or `alpha` is not
      positive and finite.
  """
  check_lambda(lam, alpha)

  def make(key, batch, clean, models, step):
    del clean, step
    other = batch.partner
    share = draw_lambda(prng.stream(key, "lambda"), batch, lam, alpha)
    mask, weight = parents(batch, share)

    def inputs(network, params):
      if network is None:
        return None
      a = network.embed(params, batch.tokens[None], batch.mask[None])
      b = network.embed(params, other.tokens, other.mask)
      w = weight.astype(a.embeddings.dtype)
      mixed = w * a.embeddings + (1 - w) * b.embeddings
      return mixed_inputs(a, b, mask, mixed)

    return View(
      student=inputs(models.student, models.student_params),
      teacher=inputs(models.teacher, models.teacher_params),
      label=mix_labels(batch, share),
      has_label=batch.has_label[None] & other.has_label,
      weight=jnp.broadcast_to(batch.weight[None], share.shape),
      mixture=Mixture(
        jnp.broadcast_to(batch.tokens[None], other.tokens.shape),
        other.tokens,
        weight[..., 0],
      ),
    )

  return ViewMaker(make, draw_partners)


def mixed_inputs(
  a: Inputs,
  b: Inputs,
  mask: Bool[Array, "n B L"],
  mixed: Float[Array, "n B L D"],
) -> Inputs:
  """Mixed embeddings as inputs.

  Args:
    a: the anchors, one copy.
    b: their partners, n copies.
    mask: where the mixtures have positions.
    mixed: their embeddings.

  Returns:
    Inputs whose positions are of the anchor's text of a pair, and past its
    end of the partner's.
  """
  segments = None
  if a.segment_ids is not None:
    segments = jnp.where(a.mask, a.segment_ids, b.segment_ids)
  return Inputs(mask=mask, embeddings=mixed, segment_ids=segments)


def parents(
  batch: Batch, share: Float[Array, "n B"]
) -> tuple[Bool[Array, "n B L"], Float[Array, "n B L 1"]]:
  """Where a mixture has a position, and the anchor's weight there.

  Past the end of the shorter text the longer one stands alone; a parent whose
  share is 0 is not there at all.

  Args:
    batch: the rows and their partners.
    share: the anchor's share in each row.

  Returns:
    The mask of the mixture, and the anchor's weight, 0 or 1 where a parent
    stands alone.
  """
  has_a = batch.mask[None] & (share > 0)[..., None]
  has_b = batch.partner.mask & (share < 1)[..., None]
  alone = has_a.astype(jnp.float32)
  weight = jnp.where(has_a & has_b, share[..., None], alone)
  return has_a | has_b, weight[..., None]


def mix_labels(
  batch: Batch, share: Float[Array, "n B"]
) -> Float[Array, "n B C"]:
  """share * y_a + (1 - share) * y_b: f32[n, B, C]."""
  share = share[..., None]
  return share * batch.label[None] + (1 - share) * batch.partner.label


def check_lambda(lam: float, alpha: float | None) -> None:
  """Raises ValueError unless `lam` is in [0, 1] and `alpha` as it must be."""
  if not 0.0 <= lam <= 1.0:
    raise ValueError(f"lambda must be in [0, 1], got {lam}")
  if alpha is not None:
    check_alpha(alpha)


def check_alpha(alpha: float) -> None:
  """Raises ValueError unless `alpha` is positive and finite."""
  if not 0 < alpha < math.inf:
    raise ValueError(f"alpha must be positive and finite, got {alpha}")
