"""A model that begins with weights from elsewhere, and a report of it."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from augdistill.checkpoints import flat
from augdistill.checkpoints.foreign import Arrays
from augdistill.errors import UsageError, listing
from augdistill.types import Params


class Begun(NamedTuple):
  """First parameters, and where they are from.

  Attributes:
    params: nested dicts like those of the model that begins.
    loaded: the names of those that came from elsewhere.
    new: the names of those that did not.
    left: the names of what is there and has no place here.
  """

  params: Params
  loaded: tuple[str, ...]
  new: tuple[str, ...]
  left: tuple[str, ...]

  def __str__(self) -> str:
    """A line: what was loaded, what is new, what was left over."""
    parts = [f"{len(self.loaded)} arrays loaded"]
    for names, what in ((self.new, "new"), (self.left, "left over")):
      if names:
        parts.append(f"{len(names)} {what} ({listing(names, 4)})")
    return "; ".join(parts)


def begin_with(
  params: Params, arrays: Arrays, where: str, required: Sequence[str]
) -> Begun:
  """First parameters that hold those that lie elsewhere, in float32.

  Args:
    params: the model's own first parameters.
    arrays: by the names that the model has for them.
    where: what messages call the place.
    required: the beginnings of the names that must be there.

  Returns:
    The parameters and what was made of the arrays.

  Raises:
    UsageError: if one that must be there is not, or has another shape.
  """
  own = dict(flat.named_leaves(params))
  for name, leaf in own.items():
    there = arrays.get(name)
    if there is None and name.startswith(tuple(required)):
      raise UsageError(
        f"{where} must have {name}, {flat.spell(leaf.dtype, leaf.shape)}, "
        "and has not"
      )
    if there is not None and there.shape != tuple(leaf.shape):
      raise UsageError(
        f"{where} has {name} of shape {list(there.shape)}, and the model that "
        f"begins with it {list(leaf.shape)}"
      )
  loaded = tuple(name for name in own if name in arrays)
  read = {
    name: jnp.asarray(np.asarray(arrays[name].read(), np.float32))
    for name in loaded
  }
  return Begun(
    flat.nested(own | read),
    loaded,
    tuple(name for name in own if name not in arrays),
    tuple(name for name in arrays if name not in own),
  )
