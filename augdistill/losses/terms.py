"""Loss terms: how far the student is from the teacher or from the label.

Every factory returns a `LossTerm`, un-reduced: f32[n, M], one number for each
copy of each row. Terms that compare with the label give 0 where a row has
none. The teacher is a constant to all of them. What a term compares with must
be there: it raises UsageError, when it is called, if it is not.

References:
  Hinton et al. 2015, arXiv:1503.02531, section 2 (kl and its t^2);
  Wang et al. 2023, arXiv:2210.11768, equation 4 (d is a cross entropy or an
  MSE); Yin et al. 2021, BatchMixUp, section 4 (the negative dot product).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from augdistill.errors import UsageError
from augdistill.types import LossTerm, Outputs, View


def cross_entropy() -> LossTerm:
  """Cross entropy with the label, which may be a mixture of classes.

    l = -sum_c y_c log softmax(s)_c

  Returns:
    A term in nats, >= 0; 0 where a row has no label.
  """

  def term(student, teacher, view, clean, models):
    del teacher, clean, models
    log_q = jax.nn.log_softmax(student.logits)
    return _where_labelled(view, -jnp.sum(_label(view) * log_q, axis=-1))

  return term


def binary_cross_entropy() -> LossTerm:
  """Mean over classes of the binary cross entropy, for multi-label tasks.

    l = mean_c -(y_c log sigmoid(s_c) + (1 - y_c) log sigmoid(-s_c))

  Returns:
    A term in nats, >= 0; 0 where a row has no label.
  """

  def term(student, teacher, view, clean, models):
    del teacher, clean, models
    s, y = student.logits, _label(view)
    losses = -(y * jax.nn.log_sigmoid(s) + (1 - y) * jax.nn.log_sigmoid(-s))
    return _where_labelled(view, jnp.mean(losses, axis=-1))

  return term


def squared_error() -> LossTerm:
  """Squared distance to the label's value, for regression.

    l = mean_c (s_c - y_c)^2

  Returns:
    A term in squared units of the label; 0 where a row has no label.
  """

  def term(student, teacher, view, clean, models):
    del teacher, clean, models
    error = jnp.mean(jnp.square(student.logits - _label(view)), axis=-1)
    return _where_labelled(view, error)

  return term


def kl(temperature: float = 1.0) -> LossTerm:
  r"""Kullback-Leibler divergence from teacher to student, softened.

    l = t^2 sum_c p_c (log p_c - log q_c),  p, q = softmax(logits / t)

  The factor t^2 keeps the size of the gradient when t changes.

  Args:
    temperature: t > 0, in units of logits.

  Returns:
    A term in nats, >= 0, and 0 where the two agree.

  Raises:
    ValueError: if `temperature` is not positive and finite.

  References:
    Hinton et al. 2015, section 2, arXiv:1503.02531.
  """
  _check_temperature(temperature)

  def term(student, teacher, view, clean, models):
    del view, clean, models
    log_p = jax.nn.log_softmax(_answer(teacher) / temperature)
    log_q = jax.nn.log_softmax(student.logits / temperature)
    return temperature**2 * jnp.sum(_p_log_ratio(log_p, log_q), axis=-1)

  return term


def soft_cross_entropy(temperature: float = 1.0) -> LossTerm:
  """Cross entropy with the teacher's softened probabilities.

    l = -t^2 sum_c p_c log q_c,  p, q = softmax(logits / t)

  For the student's gradient it is the same as `kl`; its value is larger by
  t^2 times the teacher's entropy, so weights computed from losses differ.

  Args:
    temperature: t > 0, in units of logits.

  Returns:
    A term in nats, >= 0.

  Raises:
    ValueError: if `temperature` is not positive and finite.
  """
  _check_temperature(temperature)

  def term(student, teacher, view, clean, models):
    del view, clean, models
    p = jax.nn.softmax(_answer(teacher) / temperature)
    log_q = jax.nn.log_softmax(student.logits / temperature)
    return -(temperature**2) * jnp.sum(p * log_q, axis=-1)

  return term


def binary_kl(temperature: float = 1.0) -> LossTerm:
  """Mean over classes of the KL between two coins, for multi-label tasks.

    l = t^2 mean_c KL(Bernoulli(p_c) || Bernoulli(q_c)),
    p, q = sigmoid(logits / t)

  Args:
    temperature: t > 0, in units of logits.

  Returns:
    A term in nats, >= 0, and 0 where the two agree.

  Raises:
    ValueError: if `temperature` is not positive and finite.
  """
  _check_temperature(temperature)

  def term(student, teacher, view, clean, models):
    del view, clean, models
    t, s = _answer(teacher) / temperature, student.logits / temperature
    yes = _p_log_ratio(jax.nn.log_sigmoid(t), jax.nn.log_sigmoid(s))
    no = _p_log_ratio(jax.nn.log_sigmoid(-t), jax.nn.log_sigmoid(-s))
    return temperature**2 * jnp.mean(yes + no, axis=-1)

  return term


def soft_binary_cross_entropy(temperature: float = 1.0) -> LossTerm:
  """Mean over classes of the cross entropy between two coins.

    l = -t^2 mean_c p_c log q_c + (1 - p_c) log(1 - q_c),
    p, q = sigmoid(logits / t)

  To `binary_kl` it is what `soft_cross_entropy` is to `kl`.

  Args:
    temperature: t > 0, in units of logits.

  Returns:
    A term in nats, >= 0.

  Raises:
    ValueError: if `temperature` is not positive and finite.
  """
  _check_temperature(temperature)

  def term(student, teacher, view, clean, models):
    del view, clean, models
    t, s = _answer(teacher) / temperature, student.logits / temperature
    yes = jax.nn.sigmoid(t) * jax.nn.log_sigmoid(s)
    no = jax.nn.sigmoid(-t) * jax.nn.log_sigmoid(-s)
    return -(temperature**2) * jnp.mean(yes + no, axis=-1)

  return term


def mse() -> LossTerm:
  """Squared distance of the student's logits (or values) to the teacher's.

    l = mean_c (s_c - t_c)^2

  Returns:
    A term in squared units of logits, >= 0, and 0 where the two agree.
  """

  def term(student, teacher, view, clean, models):
    del view, clean, models
    difference = student.logits - _answer(teacher)
    return jnp.mean(jnp.square(difference), axis=-1)

  return term


def negative_dot_product() -> LossTerm:
  """How little the pooled state points along the label's own vector.

    l = -sum_d v_d u_d

  v is the vector that the head reads and u the label as a vector in the same
  space, for a view that mixes both (BatchMixUp). Nothing bounds it from below:
  longer vectors always lower it.

  Returns:
    A term in units of logits, of any sign; 0 where a row has no label.

  Raises:
    UsageError: when called, if the view has no label vectors.
  """

  def term(student, teacher, view, clean, models):
    del teacher, clean, models
    if view.label_vectors is None:
      raise UsageError(
        "the negative dot product needs a view with label vectors, such as "
        "batch_mixup; this view has none"
      )
    labelled = view.has_label[..., None]
    vectors = jnp.where(labelled, view.label_vectors, 0.0)
    pooled = student.pooled.astype(vectors.dtype)
    return _where_labelled(view, -jnp.sum(pooled * vectors, axis=-1))

  return term


def _p_log_ratio(
  log_p: Float[Array, "*n C"], log_q: Float[Array, "*n C"]
) -> Float[Array, "*n C"]:
  """p log(p/q), and 0, value and gradient, where p is 0 (log p may be -inf)."""
  p = jnp.exp(log_p)
  ratio = jnp.where(p > 0, log_p, 0.0) - jnp.where(p > 0, log_q, 0.0)
  return p * ratio


def _label(view: View) -> Float[Array, "n M C"]:
  """The label, and 0 where it means nothing: even NaN has no gradient there."""
  if view.label is None:
    raise UsageError("the label is compared with, and this view has none")
  return jnp.where(view.has_label[..., None], view.label, 0.0)


def _where_labelled(
  view: View, losses: Float[Array, "n M"]
) -> Float[Array, "n M"]:
  return jnp.where(view.has_label, losses, 0.0)


def _answer(teacher: Outputs | None) -> Float[Array, "n M C"]:
  """The teacher's logits, a constant."""
  if teacher is None:
    raise UsageError("the teacher is compared with, which reads no such view")
  return jax.lax.stop_gradient(teacher.logits)


def _check_temperature(temperature: float) -> None:
  if not 0 < temperature < math.inf:
    raise ValueError(
      f"temperature must be positive and finite, got {temperature}"
    )
