"""A model that begins with weights from elsewhere, and a report of it."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from augdistill.checkpoints import flat
from augdistill.checkpoints.foreign import Arrays, Stored, with_outputs
from augdistill.errors import UsageError
from augdistill.models.networks import ModelConfig
from augdistill.types import Params, Task

# What models of one size and one vocabulary share, whatever they are for.
SHARED = (
  *("token_embedder", "position_embedder", "segment_embedder"),
  *("embedding_norm", "encoder"),
)


@dataclasses.dataclass(frozen=True)
class Source:
  """Weights that a model may begin with.

  Attributes:
    where: the place, as it was given and as messages call it.
    architecture: the class of the model's configuration.
    arrays: the weights, by the names that this package has for them.
    shape: what is known of the model's shape: fields of its configuration.
    vocab_path: the file of its vocabulary; None where it lies elsewhere.
    task: what its outputs mean; None where it has none that are known.
  """

  where: str
  architecture: type[ModelConfig]
  arrays: Arrays
  shape: Mapping[str, int | float | str]
  vocab_path: str | None = None
  task: Task | None = None

  def config(self, **own: Any) -> ModelConfig:
    """The configuration of a model of this shape.

    Args:
      **own: fields of it that the weights do not decide.

    Raises:
      UsageError: if there is no model of such a shape.
    """
    try:
      return self.architecture(**{**self.shape, **own})
    except ValueError as error:
      raise UsageError(f"{self.where}: {error}") from error

  def with_layers(self, layers: Sequence[int]) -> "Source":
    """The same with some of the encoder's layers, numbered anew.

    Args:
      layers: the number of each layer that stays.
    """
    new = {str(old): i for i, old in enumerate(layers)}

    def name_of(name: str) -> str | None:
      match = re.fullmatch(r"encoder/layers_(\d+)/(.+)", name)
      if not match:
        return name
      old, rest = match.groups()
      return f"encoder/layers_{new[old]}/{rest}" if old in new else None

    arrays = {
      its: array
      for name, array in self.arrays.items()
      if (its := name_of(name)) is not None
    }
    shape = {**self.shape, "num_layers": len(layers)}
    return dataclasses.replace(self, arrays=arrays, shape=shape)

  def for_task(self, task: Task) -> "Source":
    """The same with the head that a task needs, if this is one.

    Args:
      task: what the outputs are to mean.

    Returns:
      Where its own task is of the same kind and knows the same classes, its
      head, the outputs in the order of `task`; else its head under a name that
      fits nowhere.
    """
    own = self.task

    def headed(name: str, array: Stored) -> tuple[str, Stored]:
      if not name.startswith("head/"):
        return name, array
      if own is None or not _alike(own, task):
        return f"another task's {name}", array
      if array.shape[-1:] != (own.num_outputs,):
        return name, array  # That it does not fit is told.
      order = [own.label_names.index(name) for name in task.label_names]
      return name, with_outputs(array, order or [0])

    arrays = dict(headed(name, array) for name, array in self.arrays.items())
    return dataclasses.replace(self, arrays=arrays)


def _alike(one: Task, other: Task) -> bool:
  names = sorted(one.label_names), sorted(other.label_names)
  return one.kind == other.kind and names[0] == names[1]


@dataclasses.dataclass(frozen=True)
class Fit:
  """Which of a model's arrays lie elsewhere: name -> how many numbers.

  Attributes:
    loaded: those that come from there.
    new: those that do not.
    left: what is there and has no place here.
  """

  loaded: Mapping[str, int]
  new: Mapping[str, int]
  left: Mapping[str, int]

  def __str__(self) -> str:
    """A line, in which the arrays of a part of the model count together."""
    parts = [_by_part(self.loaded)]
    if self.new:
      parts.append(f"new: {_by_part(self.new)}")
    if self.left:
      parts.append(f"left over: {_by_part(self.left)}")
    return "; ".join(parts)


def _by_part(sizes: Mapping[str, int]) -> str:
  total: Counter[str] = Counter()
  for name, size in sizes.items():
    total[re.split(r"[/.]", name)[0]] += size
  return ", ".join(f"{part} ({size:,})" for part, size in total.items())


def fit(params: Params, source: Source) -> Fit:
  """Compares a model with what it is to begin with; reads no array.

  Args:
    params: the model's own first parameters, or their shapes.
    source: what it begins with.

  Returns:
    What it takes from there.

  Raises:
    UsageError: if an array has another shape there, or one of the embeddings
      or the encoder is on one side only.
  """
  own = {name: tuple(leaf.shape) for name, leaf in flat.named_leaves(params)}
  there = {name: array.shape for name, array in source.arrays.items()}
  for name in {**own, **there}:
    on_both = name in own and name in there
    must = on_both or name.startswith(tuple(f"{part}/" for part in SHARED))
    if must and own.get(name) != there.get(name):
      raise UsageError(
        f"{source.where} must be of the same size as the model that begins "
        f"with it: {name} is {_spell(there.get(name))} there and "
        f"{_spell(own.get(name))} here{_remedy(name)}"
      )

  def sizes(names):
    return {name: math.prod((own | there)[name]) for name in names}

  return Fit(
    sizes(name for name in own if name in there),
    sizes(name for name in own if name not in there),
    sizes(name for name in there if name not in own),
  )


def _spell(shape: tuple[int, ...] | None) -> str:
  return "missing" if shape is None else str(list(shape))


def _remedy(name: str) -> str:
  if name.startswith("token_embedder/"):
    return "; read with its vocabulary, --vocab FILE, and leave out --model"
  if name.startswith("encoder/layers_"):
    return "; leave out --model, or say which layers by --init_layers"
  return "; leave out --model"


def begin(params: Params, source: Source) -> Params:
  """`params`, its arrays replaced by those of the same names, in float32.

  Args:
    params: the model's own first parameters; they fit, as of `fit`.
    source: what it begins with.

  Returns:
    Nested dicts like `params`.

  Raises:
    UsageError: if a file is damaged, or weights are no finite numbers.
  """
  own = dict(flat.named_leaves(params))
  there = {
    name: _weights(f"{source.where} must hold {name}", array)
    for name, array in source.arrays.items()
    if name in own
  }
  return flat.nested(own | there)


def _weights(what: str, array: Stored) -> np.ndarray:
  """An array in float32; `what` must hold it, for messages."""
  if not jnp.issubdtype(array.dtype, jnp.floating):
    raise UsageError(
      f"{what} in floating point, got {array.dtype.name}: weights in whole "
      "numbers are of no use without what scales them; give the model as it "
      "was before it was quantised"
    )
  with np.errstate(over="ignore"):  # Told below.
    weights = np.asarray(array.read(), np.float32)
  if bad := weights.size - np.count_nonzero(np.isfinite(weights)):
    raise UsageError(
      f"{what} in finite numbers, got {bad:,} of {weights.size:,} that are NaN "
      "or infinite; the file is damaged, or its training had diverged: take "
      "an earlier checkpoint"
    )
  return weights
