"""Deep terms: the student's layers against the teacher's, pair by pair.

Which layer learns from which is a layer map (`augdistill.losses.layers`).
Every term is the mean over the pairs, so its size does not grow with depth,
and for each row the mean over its real positions, so padding counts for
nothing, whatever it holds. The teacher is a constant.

A view may enter a model at a layer (TMix): pairs of layers that do not run on
it are left out. All errors of shape are raised when the step is traced.

References:
  Sun et al. 2019, BERT-PKD, arXiv:1908.09355; Jiao et al. 2020, TinyBERT,
  arXiv:1909.10351; Sun et al. 2020, MobileBERT, arXiv:2004.02984; Wang et al.
  2020, MiniLM, arXiv:2002.10957; Wang et al. 2021, MiniLMv2, arXiv:2012.15828.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from augdistill.errors import UsageError
from augdistill.losses.layers import check_layers
from augdistill.losses.matching import kept, mean_over_last, mean_over_pairs
from augdistill.types import LossTerm

# An attention probability below this counts as this: its logarithm is finite.
SMALLEST_PROBABILITY = 1e-30
MASKED_LOGIT = -1e10


def hidden_mse(
  layers: str = "uniform", project: bool = True, embeddings: bool = False
) -> LossTerm:
  """Mean squared error of hidden states (TinyBERT, MobileBERT).

    l = mean_(i,j) mean_positions mean_d (P_i h^S_i - h^T_j)_d^2

  Args:
    layers: the layer map.
    project: whether P_i, learnt with the student, maps its states to the
      teacher's width; False compares them as they are.
    embeddings: adds the pair of the entries, (0, 0).

  Returns:
    A term in squared units of hidden states, >= 0; without projection 0 where
    the two agree.

  Raises:
    ValueError: if there is no such layer map.
    UsageError: when called, if it does not fit the networks, if their widths
      differ, or if there is no teacher, no projection, or no layer that both
      ran.
  """
  check_layers(layers)

  def distance(student, teacher, mask):
    _check_widths("hidden_mse", student, teacher, project)
    difference = kept(student, mask) - kept(teacher, mask)
    return mean_over_last(jnp.mean(jnp.square(difference), axis=-1), mask)

  fields = ("projected" if project else "hidden", "hidden")
  entries = ((0, 0),) if embeddings else ()
  return mean_over_pairs("hidden_mse", layers, fields, distance, entries)


def pkd(layers: str = "pkd_skip", project: bool = False) -> LossTerm:
  """Squared distance of the directions of hidden states (BERT-PKD).

    l = mean_(i,j) mean_positions |h^S_i / |h^S_i| - h^T_j / |h^T_j||^2

  The paper compares the states of [CLS] alone, which T5 does not have: here
  every real position counts, and a text of one is the paper's equation.

  Args:
    layers: the layer map.
    project: whether to compare projected states, for students that are
      narrower than the teacher.

  Returns:
    A term in [0, 4]; without projection 0 where the directions agree.

  Raises:
    ValueError: as `hidden_mse`.
    UsageError: as `hidden_mse`.

  References:
    Sun et al. 2019, equation 7, arXiv:1908.09355.
  """
  check_layers(layers)

  def direction(x):
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))

  def distance(student, teacher, mask):
    _check_widths("pkd", student, teacher, project)
    difference = direction(kept(student, mask)) - direction(kept(teacher, mask))
    return mean_over_last(jnp.sum(jnp.square(difference), axis=-1), mask)

  fields = ("projected" if project else "hidden", "hidden")
  return mean_over_pairs("pkd", layers, fields, distance)


def attention_kl(layers: str = "uniform", heads: str = "each") -> LossTerm:
  """KL of attention, from teacher to student (MobileBERT, MiniLM).

    l = mean_(i,j) mean_heads mean_queries sum_k a^T_k log(a^T_k / a^S_k)

  Args:
    layers: the layer map.
    heads: "each" compares head by head; "mean" the averages over the heads,
      for networks that do not have the same number.

  Returns:
    A term in nats, >= 0, and 0 where the two agree.

  Raises:
    ValueError: if there is no such layer map or way to compare heads.
    UsageError: when called, if the map does not fit the networks, if their
      numbers of heads differ, or if there is no teacher or no layer that both
      ran.
  """
  check_layers(layers, first=1)
  _check_heads(heads)

  def distance(student, teacher, mask):
    student, teacher = _by_heads("attention_kl", heads, student, teacher, mask)
    log_q = jnp.log(jnp.maximum(student, SMALLEST_PROBABILITY))
    log_p = jnp.log(jnp.maximum(teacher, SMALLEST_PROBABILITY))
    divergence = jnp.sum(teacher * (log_p - log_q), axis=-1)
    return mean_over_last(jnp.mean(divergence, axis=2), mask)

  return mean_over_pairs("attention_kl", layers, ("attention",) * 2, distance)


def attention_mse(layers: str = "uniform", heads: str = "each") -> LossTerm:
  """Mean squared error of attention probabilities (TinyBERT).

    l = mean_(i,j) mean_heads mean_queries mean_keys (a^S_k - a^T_k)^2

  TinyBERT compares the logits of attention; here it is what they come to.

  Args:
    layers: the layer map.
    heads: "each" or "mean", as in `attention_kl`.

  Returns:
    A term in [0, 1], and 0 where the two agree.

  Raises:
    ValueError: as `attention_kl`.
    UsageError: as `attention_kl`.
  """
  check_layers(layers, first=1)
  _check_heads(heads)

  def distance(student, teacher, mask):
    student, teacher = _by_heads("attention_mse", heads, student, teacher, mask)
    squares = jnp.mean(jnp.square(student - teacher), axis=2)  # [n, M, L, L]
    real_keys = jnp.broadcast_to(mask[:, :, None], squares.shape)
    return mean_over_last(mean_over_last(squares, real_keys), mask)

  return mean_over_pairs("attention_mse", layers, ("attention",) * 2, distance)


def relation_kl(
  layers: str = "last", relation_heads: int = 1, of: str = "values"
) -> LossTerm:
  """KL of the relations between positions, from teacher to student (MiniLM).

    l = mean_(i,j) mean_r mean_queries KL(R^T_r || R^S_r),
    R_r = softmax_k(v_r v_r^T / sqrt(d_r))

  v_r is the r-th of equal parts of the states, all attention heads side by
  side (MiniLMv2). A relation has no width, so the two networks may have any
  widths and any numbers of heads.

  Args:
    layers: the layer map.
    relation_heads: parts into which the states are cut; it divides both
      networks' widths.
    of: "values", what attention mixes, or "hidden", the hidden states.

  Returns:
    A term in nats, >= 0, and 0 where the relations agree.

  Raises:
    ValueError: if there is no such layer map or no such states, or if
      `relation_heads` is less than 1.
    UsageError: when called, if the map does not fit the networks, or
      `relation_heads` does not divide a width, or if there is no teacher or no
      layer that both ran.

  References:
    Wang et al. 2020, MiniLM, section 3.2 (with one relation head per attention
    head); Wang et al. 2021, MiniLMv2, section 3.1.
  """
  if of not in ("values", "hidden"):
    raise ValueError(f"relations are of values or hidden, got of={of!r}")
  if relation_heads < 1:
    raise ValueError(f"relation_heads must be at least 1, got {relation_heads}")
  check_layers(layers, first=1 if of == "values" else 0)

  def log_relations(states, mask):
    states = kept(states, mask)
    width = math.prod(states.shape[3:])
    if width % relation_heads:
      raise UsageError(
        f"relation_heads must divide the width of both networks' {of}, got "
        f"{relation_heads} and {width}"
      )
    states = states.reshape(*states.shape[:3], relation_heads, -1)
    logits = jnp.einsum("nmqrd,nmkrd->nmrqk", states, states)
    logits = logits / math.sqrt(width // relation_heads)
    real = mask[:, :, None, None]  # [n, M, 1, 1, L], of the keys
    return jax.nn.log_softmax(jnp.where(real, logits, MASKED_LOGIT))

  def distance(student, teacher, mask):
    log_p, log_q = log_relations(teacher, mask), log_relations(student, mask)
    divergence = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
    return mean_over_last(jnp.mean(divergence, axis=2), mask)

  return mean_over_pairs("relation_kl", layers, (of, of), distance)


# The names of the deep terms in a method.
DEEP_TERMS: dict[str, Callable[..., LossTerm]] = {
  "hidden_mse": hidden_mse,
  "pkd": pkd,
  "attention_kl": attention_kl,
  "attention_mse": attention_mse,
  "relation_kl": relation_kl,
}


def _check_widths(what, student, teacher, project):
  widths = student.shape[-1], teacher.shape[-1]
  if widths[0] != widths[1]:
    remedy = "" if project else "; set project=true to learn a projection"
    raise UsageError(
      f"{what} compares states of one width, got {widths[0]} of the student "
      f"and {widths[1]} of the teacher{remedy}"
    )


def _check_heads(heads):
  if heads not in ("each", "mean"):
    raise ValueError(f"heads must be each or mean, got {heads!r}")


def _by_heads(what, heads, student, teacher, mask):
  """Attention [n, M, H, L, L] between real positions, as it is compared."""
  if heads == "each" and student.shape[2] != teacher.shape[2]:
    raise UsageError(
      f"{what} compares head by head, got {student.shape[2]} heads of the "
      f"student and {teacher.shape[2]} of the teacher; set heads=mean to "
      "compare their averages"
    )
  real = mask[:, :, None, :, None] & mask[:, :, None, None, :]
  student, teacher = kept(student, real), kept(teacher, real)
  if heads == "each":
    return student, teacher
  return (
    jnp.mean(student, axis=2, keepdims=True),
    jnp.mean(teacher, axis=2, keepdims=True),
  )
