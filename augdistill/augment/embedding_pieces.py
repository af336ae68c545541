"""FMix on word embeddings: pieces of positions and dimensions of a partner.

References:
  Harris et al. 2020, FMix, arXiv:2002.12047, section 4.
"""

import functools

import jax
import jax.numpy as jnp

from augdistill import prng
from augdistill.augment.masks import check_decay, take_low_frequencies
from augdistill.augment.mixing import (
  draw_lambda,
  draw_partners,
  mix_labels,
  mixed_inputs,
)
from augdistill.augment.token_mixing import uniform_unless_given
from augdistill.types import View, ViewMaker


def mix_embedding_pieces(
  lam: float | None = None, alpha: float | None = None, decay: float = 3.0
) -> ViewMaker:
  """FMix in two dimensions: positions and dimensions of word embeddings.

    x' = m x_a + (1 - m) x_b,  m in {0, 1}^(L x D),  mean m = lambda

  in the student's and in the teacher's own embedding space, with the same
  lambda and partner; where the widths differ, so do the masks. Past the end of
  the shorter of the two texts, the longer one stands alone; the view is as long
  as the longer one. A parent whose share is 0 is not there at all, so
  lambda = 1 gives the anchor.

  Args:
    lam: lambda in [0, 1], the anchor's share.
    alpha: if given, lambda is drawn from Beta(alpha, alpha) per row instead;
      without either it is drawn from Beta(1, 1), the paper's choice.
    decay: delta >= 0, the power by which the noise falls with the frequency;
      the larger, the fewer pieces. The paper's is 3.

  Returns:
    A maker of a view that enters both models at their embeddings. Its label is
    mixed by the share of its real embeddings' entries, the lone ones included,
    that each parent gave the student; a row has a label where both parents
    have one.

  Raises:
    ValueError: if `lam` is outside [0, 1], `alpha` not positive and
      finite, or `decay` negative or infinite.
  """
  check_decay(decay)
  lam, alpha = uniform_unless_given(lam, alpha)
  take = functools.partial(take_low_frequencies, decay=decay)

  def make(key, batch, clean, models, step):
    del clean, step
    other = batch.partner
    share = draw_lambda(prng.stream(key, "lambda"), batch, lam, alpha)
    keys = prng.per_example(prng.stream(key, "mask"), batch.example_id)
    has_a = batch.mask[None] & (share > 0)[..., None]
    has_b = other.mask & (share < 1)[..., None]
    either = has_a | has_b

    def mixed(network, params):
      """The inputs, and the share of them that is the anchor's."""
      anchor = network.embed(params, batch.tokens[None], batch.mask[None])
      partner = network.embed(params, other.tokens, other.mask)
      a, b = anchor.embeddings, partner.embeddings

      def everywhere(positions):  # [1, B, L] -> [1, B, L, D]
        return jnp.broadcast_to(positions[..., None], a.shape)

      free = everywhere(has_a & has_b)
      from_b = jax.vmap(take)(keys, free[0], 1 - share[0])[None]
      from_b |= everywhere(has_b & ~has_a)
      pieces = jnp.where(from_b, b, a)
      inputs = mixed_inputs(anchor, partner, either, pieces)
      entries = jnp.maximum(jnp.sum(either, axis=-1) * a.shape[-1], 1)
      return inputs, 1.0 - jnp.sum(from_b, axis=(-2, -1)) / entries

    student, share_a = mixed(models.student, models.student_params)
    teacher = None
    if models.teacher:
      teacher, _ = mixed(models.teacher, models.teacher_params)
    return View(
      student=student,
      teacher=teacher,
      label=mix_labels(batch, share_a),
      has_label=batch.has_label[None] & other.has_label,
      weight=jnp.broadcast_to(batch.weight[None], share.shape),
    )

  return ViewMaker(make, draw_partners)
