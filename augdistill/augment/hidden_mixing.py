"""Views that mix each row with a partner inside the networks.

References:
  Chen et al. 2020, TMix of MixText, arXiv:2004.12239; Wang et al. 2023,
  AugPro, arXiv:2210.11768, appendix C (TMix in the middle of both models);
  Sun et al. 2020, Mixup-Transformer, arXiv:2010.02394 (pooled states);
  Guo 2020, nonlinear MixUp (AAAI); Yin et al. 2021, BatchMixUp, table 1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from augdistill import prng
from augdistill.augment.mixing import (
  check_lambda,
  draw_lambda,
  draw_partners,
  mix_labels,
  parents,
)
from augdistill.errors import UsageError
from augdistill.types import (
  Batch,
  Inputs,
  Models,
  Network,
  Outputs,
  Params,
  View,
  ViewMaker,
)


def mix_hidden(
  student_layer: int | None = None,
  teacher_layer: int | None = None,
  lam: float = 0.5,
  alpha: float | None = None,
) -> ViewMaker:
  """TMix: MixUp of hidden states at the entry of a layer.

    h' = lambda h_a + (1 - lambda) h_b,  y' = lambda y_a + (1 - lambda) y_b

  The layers below run on both texts, those above on the mixture. Past the end
  of the shorter text the longer one stands alone, as in `mix_embeddings`.

  Args:
    student_layer: how many of the student's layers run before the mixing; by
      default half of them, rounded down.
    teacher_layer: likewise for the teacher.
    lam: lambda in [0, 1], the anchor's share.
    alpha: if given, lambda is drawn from Beta(alpha, alpha) per row instead.

  Returns:
    A maker of a view that enters both models at hidden states.

  Raises:
    ValueError: if `lam` is outside [0, 1], `alpha` is not positive and finite
      or a layer is negative.
    UsageError: when a view is made, if a model has fewer layers.
  """
  check_lambda(lam, alpha)
  mixed_at = {"student_layer": student_layer, "teacher_layer": teacher_layer}
  for name, layer in mixed_at.items():
    if layer is not None and layer < 0:
      raise ValueError(f"{name} must be >= 0, got {layer}")

  def make(key, batch, clean, models, step):
    del clean, step
    share = draw_lambda(prng.stream(key, "lambda"), batch, lam, alpha)
    mask, weight = parents(batch, share)

    def inputs(network, params, name, dropout):
      a, b = _run_both(network, params, batch, dropout)
      layers = len(a.hidden) - 1
      layer = layers // 2 if mixed_at[name] is None else mixed_at[name]
      if layer > layers:
        raise UsageError(
          f"{name} must be at most {layers}, the model's number of layers, got "
          f"{layer}"
        )
      w = weight.astype(a.hidden[layer].dtype)
      mixed = w * a.hidden[layer] + (1 - w) * b.hidden[layer]
      return Inputs(mask=mask, hidden=mixed, layer=layer)

    teacher = None
    if models.teacher is not None:
      teacher = inputs(
        models.teacher,
        models.teacher_params,
        "teacher_layer",
        models.teacher_key,
      )
    student = inputs(
      models.student,
      models.student_params,
      "student_layer",
      models.student_key,
    )
    return _mixed(batch, share, student, teacher)

  return ViewMaker(make, draw_partners)


def mix_pooled(lam: float = 0.5, alpha: float | None = None) -> ViewMaker:
  """MixUp of the vectors that the head reads, and of the labels.

    v' = lambda v_a + (1 - lambda) v_b,  y' = lambda y_a + (1 - lambda) y_b

  Args:
    lam: lambda in [0, 1], the anchor's share.
    alpha: if given, lambda is drawn from Beta(alpha, alpha) per row instead.

  Returns:
    A maker of a view that enters both models at the head.

  Raises:
    ValueError: if `lam` is outside [0, 1] or `alpha` is not
      positive and finite.
  """
  check_lambda(lam, alpha)

  def make(key, batch, clean, models, step):
    del clean, step
    share = draw_lambda(prng.stream(key, "lambda"), batch, lam, alpha)
    return _at_the_head(batch, models, share, share[..., None])

  return ViewMaker(make, draw_partners)


def mix_pooled_per_dimension(alpha: float = 1.0) -> ViewMaker:
  """Nonlinear MixUp, simplified: a lambda of its own in every dimension.

    v'_d = lambda_d v_ad + (1 - lambda_d) v_bd,  lambda_d ~ Beta(alpha, alpha)
    y' = m y_a + (1 - m) y_b,  m = mean_d lambda_d

  Guo's nonlinear MixUp learns how to mix the labels, too; taking the mean is
  a simplification of ours. The teacher, whose vectors have other dimensions,
  mixes its own by m.

  Args:
    alpha: of the Beta distribution, positive.

  Returns:
    A maker of a view that enters both models at the head.

  Raises:
    ValueError: if `alpha` is not positive and finite.
  """
  check_lambda(0.5, alpha)

  def make(key, batch, clean, models, step):
    del clean, step
    width = models.student.table(models.student_params).shape[-1]
    keys = prng.per_example(prng.stream(key, "lambda"), batch.example_id)
    each = jax.vmap(lambda k: jax.random.beta(k, alpha, alpha, (width,)))
    lam = each(keys)[None]  # [1, B, D]
    return _at_the_head(batch, models, jnp.mean(lam, axis=-1), lam)

  return ViewMaker(make, draw_partners)


def _at_the_head(
  batch: Batch,
  models: Models,
  share: Float[Array, "n B"],
  weight: Float[Array, "n B d"],
) -> View:
  """Pooled states mixed by `weight` (the teacher's by `share`)."""

  def inputs(network, params, weight, dropout):
    a, b = _run_both(network, params, batch, dropout)
    w = weight.astype(a.pooled.dtype)
    pooled = w * a.pooled + (1 - w) * b.pooled
    return Inputs(mask=batch.mask[None], pooled=pooled)

  teacher = None
  if models.teacher is not None:
    teacher = inputs(
      models.teacher,
      models.teacher_params,
      share[..., None],
      models.teacher_key,
    )
  student = inputs(
    models.student, models.student_params, weight, models.student_key
  )
  return _mixed(batch, share, student, teacher)


def _run_both(
  network: Network,
  params: Params,
  batch: Batch,
  dropout: Key[Array, ""] | None,
) -> tuple[Outputs, Outputs]:
  """The network on the rows and on their partners."""
  a = Inputs(mask=batch.mask[None], tokens=batch.tokens[None])
  b = Inputs(mask=batch.partner.mask, tokens=batch.partner.tokens)

  def key_of(name):
    return None if dropout is None else prng.stream(dropout, name)

  return (
    network.forward(params, a, key=key_of("anchor")),
    network.forward(params, b, key=key_of("partner")),
  )


def _mixed(
  batch: Batch,
  share: Float[Array, "n B"],
  student: Inputs,
  teacher: Inputs | None,
) -> View:
  return View(
    student=student,
    teacher=teacher,
    label=mix_labels(batch, share),
    has_label=batch.has_label[None] & batch.partner.has_label,
    weight=jnp.broadcast_to(batch.weight[None], share.shape),
  )
