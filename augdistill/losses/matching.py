"""What all deep terms share: which states are compared, and where they count.

A model that is entered at layer k gives nothing of the layers before it, so
states are looked up by the number of their layer, never by their place.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from augdistill.errors import UsageError
from augdistill.losses.layers import Pairs, layer_map
from augdistill.types import Inputs, LossTerm, Outputs, View

# (student's states, teacher's, bool[n, M, L] real positions) -> f[n, M].
Distance = Callable[[Array, Array, Array], Array]


def mean_over_pairs(
  what: str,
  layers: str,
  fields: tuple[str, str],
  distance: Distance,
  more: Pairs = (),
) -> LossTerm:
  """The mean of a distance over the pairs of layers that both models ran.

  Args:
    what: the term's name, for errors.
    layers: the layer map.
    fields: those of `Outputs` that are compared, of student and teacher.
    distance: between the states of one pair; the teacher's are constants.
    more: pairs besides those of the map.

  Returns:
    The term. It raises UsageError, when it is called, if there is nothing to
    compare, or the map does not fit the depths of the networks.
  """

  def term(student, teacher, view, clean, models):
    del clean, models
    if teacher is None:
      raise UsageError(f"{what} compares with a teacher, got None")
    _check_positions(what, student, teacher)
    mask = _real_in_both(what, view)
    of_student = _by_layer(what, "student", student, fields[0], view.student)
    of_teacher = _by_layer(what, "teacher", teacher, fields[1], view.teacher)
    pairs = layer_map(layers, max(of_student), max(of_teacher))
    pairs += tuple(pair for pair in more if pair not in pairs)
    losses = [
      distance(of_student[s], jax.lax.stop_gradient(of_teacher[t]), mask)
      for s, t in pairs
      if s in of_student and t in of_teacher
    ]
    if not losses:
      raise UsageError(
        f"{what} finds no pair of layers {pairs} that ran on this view, which "
        f"has the student's from {min(of_student)} and the teacher's from "
        f"{min(of_teacher)} on"
      )
    return sum(losses) / len(losses)

  return term


def _check_positions(what: str, student: Outputs, teacher: Outputs) -> None:
  """Raises UsageError where the two read rows of different tokens."""
  # Neither has states where a view enters both at the head.
  lengths = {x.hidden[0].shape[-2] for x in (student, teacher) if x.hidden}
  if len(lengths) > 1:
    raise UsageError(
      f"{what} compares the models position by position, so both must read "
      "with one vocabulary; leave out --vocab and --init, or this term"
    )


def kept(
  x: Float[Array, "n M ..."], real: Bool[Array, "m M ..."]
) -> Float[Array, "..."]:
  """`x` where `real`, else 0; at least float32.

  Before any arithmetic: what padding holds may be NaN, and NaN times a
  gradient of 0 is NaN.
  """
  real = real.reshape(real.shape + (1,) * (x.ndim - real.ndim))
  x = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
  return jnp.where(real, x, 0.0)


def mean_over_last(
  x: Float[Array, "*n L"], real: Bool[Array, "*n L"]
) -> Float[Array, "*n"]:
  """The mean of `x` over the real ones of its last axis; 0 if none is."""
  count = jnp.maximum(jnp.sum(real, axis=-1), 1).astype(x.dtype)
  return jnp.sum(jnp.where(real, x, 0.0), axis=-1) / count


def _real_in_both(what: str, view: View) -> Bool[Array, "n M L"]:
  """Positions that are text for both models."""
  mask = view.student.mask
  if not isinstance(view.teacher, Inputs):
    return mask  # An answer to the same text.
  if view.teacher.mask.shape[-1] != mask.shape[-1]:
    raise UsageError(
      f"{what} compares position by position, got {mask.shape[-1]} positions "
      f"of the student and {view.teacher.mask.shape[-1]} of the teacher"
    )
  return mask & view.teacher.mask


def _by_layer(
  what: str,
  whose: str,
  outputs: Outputs,
  field: str,
  inputs: Inputs | Outputs | None,
) -> dict[int, Array]:
  """Layer -> its states; hidden states are those at its exit."""
  states = getattr(outputs, field)
  entry, entered = 0, ""
  if isinstance(inputs, Inputs) and inputs.pooled is not None:
    entered = ": this view enters at the head, where no layer runs"
  elif isinstance(inputs, Inputs) and inputs.hidden is not None:
    entry = inputs.layer
    entered = f": this view enters at layer {entry}"
  elif field == "projected":
    entered = ": it learns no projections, which project=true asks for"
  if not states:
    raise UsageError(f"{what} reads {field} of the {whose}, got none{entered}")
  # Attention happens between an entry and an exit, and counts as the latter.
  first = entry + (field in ("attention", "values"))
  return {first + i: x for i, x in enumerate(states)}
