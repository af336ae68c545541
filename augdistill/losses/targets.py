"""Terms whose target depends on the copy, or is the student's own answer.

x is an example's clean text and z one of its augmented copies; S and T are
student and teacher. "The student's own answer" S(x) is that of phase 1, a
constant, unless the term is live: then it is computed anew, without dropout,
and learns like S(z).

References:
  Yi et al. 2021, MMEL, ICLR 2021, sections 3.2, 3.3 and 4.2; Jiang et al.
  2020, SMART, arXiv:1911.03437, section 2.1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from augdistill.errors import UsageError
from augdistill.types import Clean, LossTerm, Models, Outputs, TaskKind, View

# A value of the student's own that is further than this from the teacher's is
# no target (MMEL, section 4.2, for scores from 0 to 5).
SAME_VALUE = 0.5


def label_or_teacher(label: LossTerm, teacher: LossTerm) -> LossTerm:
  """MMEL-hard: the label where it is known, the teacher elsewhere.

    l_0 = label(S(x), y),  l_z = teacher(S(z), T(z)) for the copies z > 0

  Copy 0 is the original text, whose label is known; an augmentation may have
  changed that of the others. The paper labels every original. Here one without
  a label has the teacher's answer as its target, too, and so keeps its place
  among the copies.

  Args:
    label: the term of copy 0.
    teacher: the term of the others; in MMEL a cross entropy like `label`, for
      the weights of the copies are computed from these losses.

  Returns:
    A term in the units of the two.

  Raises:
    UsageError: when called, without a teacher or without labels.
  """
  of_label, of_teacher = label, teacher

  def term(student, teacher, view, clean, models):
    if view.label is None:
      raise UsageError("label_or_teacher needs a view with labels, got None")
    if teacher is None:
      raise UsageError("label_or_teacher needs a teacher, got None")
    everything = (student, teacher, view, clean, models)
    original = (jnp.arange(view.weight.shape[0]) == 0)[:, None]
    return jnp.where(
      original & view.has_label, of_label(*everything), of_teacher(*everything)
    )

  return term


def consistency(kind: TaskKind, live: bool = False) -> LossTerm:
  """MMEL-soft: the student's answer to a copy against that to its clean text.

    classes      l = -sum_c p_c log q_c,      p, q = softmax of target, S(z)
    multi-label  l = -mean_c p_c log q_c + (1 - p_c) log(1 - q_c),  sigmoids
    regression   l = mean_c (target_c - S(z)_c)^2

  The target is S(x); but T(z) where S(x) would mislead:

    classes      in rows where the classes of T(z) and T(x) differ (section 3.3)
    multi-label  in names that one of T(z) and T(x) gives, p > 1/2, and the
                 other does not
    regression   in values where S(x) and T(z) are more than 0.5 apart (section
                 4.2: an entry of S(x) is replaced by the teacher's prediction
                 "if the difference between them is larger than 0.5")

  Without a teacher that never happens.

  Args:
    kind: of the task.
    live: whether S(x) learns, too.

  Returns:
    A term in nats, or squared units of the label for regression, >= 0.

  Raises:
    UsageError: when called, without a clean batch of the same rows.
  """
  distance = _CROSS_ENTROPY[TaskKind(kind)]
  misleads = _MISLEADS[TaskKind(kind)]

  def term(student, teacher, view, clean, models):
    target = _own_answer("consistency", student, view, clean, models, live)
    if teacher is not None and clean.teacher is not None:
      of_z, of_x = jax.lax.stop_gradient((teacher.logits, clean.teacher.logits))
      target = jnp.where(misleads(target, of_z, of_x), of_z, target)
    return distance(student.logits, target)

  return term


def smoothness(kind: TaskKind) -> LossTerm:
  """SMART: how much the student's answer moves from the clean text to a copy.

    classes      l = KL(p || q) + KL(q || p),  p, q = softmax of S(x), S(z)
    multi-label  l = the mean over names of the same between coins
    regression   l = mean_c (S(x)_c - S(z)_c)^2

  Both answers learn.

  Args:
    kind: of the task.

  Returns:
    A term in nats, or squared units of the label for regression, >= 0, and 0
    where the answers agree.

  Raises:
    UsageError: when called, without a clean batch of the same rows.
  """
  distance = _SYMMETRIC[TaskKind(kind)]

  def term(student, teacher, view, clean, models):
    del teacher
    own = _own_answer("smoothness", student, view, clean, models, live=True)
    return distance(student.logits, own)

  return term


def _own_answer(
  what: str,
  student: Outputs,
  view: View,
  clean: Clean | None,
  models: Models,
  live: bool,
) -> Float[Array, "m M C"]:
  """S(x) in logits; m is 1, so that it serves every copy."""
  if clean is None:
    raise UsageError(
      f"{what} compares a view with the clean batch: it needs a method that "
      "trains on the clean batch, and is no term of the clean batch itself"
    )
  if live:
    own = models.student.forward(models.student_params, clean.view.student)
    own = own.logits
  else:
    own = jax.lax.stop_gradient(clean.student.logits)
  if own.shape[1] != student.logits.shape[1]:
    raise UsageError(
      f"{what} compares each row with its own clean text, got "
      f"{student.logits.shape[1]} rows of a view and {own.shape[1]} clean ones"
    )
  if view.label_vectors is not None:  # As many, but each is of the whole batch.
    raise UsageError(
      f"{what} compares each row with its own clean text, which points of a "
      "whole batch do not have"
    )
  return own


def _cross_entropy(
  logits: Float[Array, "n M C"], target: Float[Array, "m M C"]
) -> Float[Array, "n M"]:
  losses = jax.nn.softmax(target) * jax.nn.log_softmax(logits)
  return -jnp.sum(losses, axis=-1)


def _binary_cross_entropy(
  logits: Float[Array, "n M C"], target: Float[Array, "m M C"]
) -> Float[Array, "n M"]:
  yes = jax.nn.sigmoid(target) * jax.nn.log_sigmoid(logits)
  no = jax.nn.sigmoid(-target) * jax.nn.log_sigmoid(-logits)
  return -jnp.mean(yes + no, axis=-1)


def _squared_error(
  values: Float[Array, "n M C"], target: Float[Array, "m M C"]
) -> Float[Array, "n M"]:
  return jnp.mean(jnp.square(values - target), axis=-1)


def _both_kls(
  one: Float[Array, "n M C"], other: Float[Array, "m M C"]
) -> Float[Array, "n M"]:
  """KL(p || q) + KL(q || p) = sum_c (p_c - q_c) (log p_c - log q_c)."""
  log_p, log_q = jax.nn.log_softmax(one), jax.nn.log_softmax(other)
  apart = (jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q)
  return jnp.sum(apart, axis=-1)


def _both_binary_kls(
  one: Float[Array, "n M C"], other: Float[Array, "m M C"]
) -> Float[Array, "n M"]:
  """The same between coins: mean_c (p_c - q_c) (logit p_c - logit q_c)."""
  apart = (jax.nn.sigmoid(one) - jax.nn.sigmoid(other)) * (one - other)
  return jnp.mean(apart, axis=-1)


def _other_class(
  own: Float[Array, "m M C"],
  of_z: Float[Array, "n M C"],
  of_x: Float[Array, "m M C"],
) -> Bool[Array, "n M 1"]:
  del own
  same = jnp.argmax(of_z, axis=-1) == jnp.argmax(of_x, axis=-1)
  return ~same[..., None]


def _other_names(
  own: Float[Array, "m M C"],
  of_z: Float[Array, "n M C"],
  of_x: Float[Array, "m M C"],
) -> Bool[Array, "n M C"]:
  del own
  return (of_z > 0) != (of_x > 0)


def _other_value(
  own: Float[Array, "m M C"],
  of_z: Float[Array, "n M C"],
  of_x: Float[Array, "m M C"],
) -> Bool[Array, "n M C"]:
  del of_x
  return jnp.abs(of_z - own) > SAME_VALUE


_CROSS_ENTROPY = {
  TaskKind.CLASSES: _cross_entropy,
  TaskKind.MULTI_LABEL: _binary_cross_entropy,
  TaskKind.REGRESSION: _squared_error,
}
_SYMMETRIC = {
  TaskKind.CLASSES: _both_kls,
  TaskKind.MULTI_LABEL: _both_binary_kls,
  TaskKind.REGRESSION: _squared_error,
}
_MISLEADS = {
  TaskKind.CLASSES: _other_class,
  TaskKind.MULTI_LABEL: _other_names,
  TaskKind.REGRESSION: _other_value,
}
