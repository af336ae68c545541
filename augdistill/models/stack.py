"""A stack of layers that may be entered at any of them."""

from collections.abc import Sequence
from typing import NamedTuple

from flax import linen as nn
from jaxtyping import Array, Float


class Passed(NamedTuple):
  """What a text left behind in the layers that ran.

  Attributes:
    hidden: at the entry of each of them, then the last exit.
    attention: probabilities.
    values: what attention mixes.
  """

  hidden: tuple[Float[Array, "n M L D"], ...]
  attention: tuple[Float[Array, "n M H L L"], ...]
  values: tuple[Float[Array, "n M L H K"], ...]


def pass_through(
  layers: Sequence[nn.Module],
  x: Float[Array, "n M L D"],
  bias: Float[Array, "n M H L L"] | Float[Array, "n M 1 1 L"],
  first_layer: int,
  *,
  initializing: bool,
  deterministic: bool,
  remat: bool,
) -> Passed:
  """Runs layers `first_layer` to the last on `x`.

  Args:
    layers: all N of them: (x, bias, *, deterministic) -> x, (attention
      probabilities, values).
    x: f[n, M, L, D], what the first of them reads.
    bias: of attention.
    first_layer: where `x` enters, from 0 to N.
    initializing: whether parameters are made; then all layers run.
    deterministic: whether nothing drops out.
    remat: whether the backward pass runs each layer again, from what it read,
      and keeps nothing of its inside.

  Returns:
    What they computed.

  Raises:
    ValueError: if `first_layer` is not in [0, N].
  """
  if not 0 <= first_layer <= len(layers):
    raise ValueError(
      f"the layer to enter at must be in [0, {len(layers)}], got {first_layer}"
    )

  def run(layer, x, bias):
    return layer(x, bias, deterministic=deterministic)

  run = nn.remat(run) if remat else run
  hidden, attention, values = [x], [], []
  for layer in layers[0 if initializing else first_layer :]:
    x, (probabilities, value) = run(layer, x, bias)
    hidden.append(x)
    attention.append(probabilities)
    values.append(value)
  return Passed(tuple(hidden), tuple(attention), tuple(values))
