"""A tree as a flat dict: one array per leaf, named by the leaf's path."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
  """The leaves of a tree with their paths, in the tree's order.

  Args:
    tree: any pytree: dicts, tuples, NamedTuples, dataclasses.

  Returns:
    (name, leaf) pairs; the parts of a name are joined by "/".

  Example:
    >>> named_leaves({"params": {"w": 1}, "step": 2})
    [('params/w', 1), ('step', 2)]
  """
  return [
    (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
  ]


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Nested dicts from a flat one, the inverse of `named_leaves` for dicts.

  Example:
    >>> nested({"params/w": 1, "step": 2})
    {'params': {'w': 1}, 'step': 2}
  """
  root: dict[str, Any] = {}
  for name, value in flat.items():
    *parents, last = name.split("/")
    node = root
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = value
  return root


def sharding(leaf: Any) -> jax.sharding.Sharding | None:
  """Where a leaf is pinned; None where jax may place it as it likes."""
  pinned = not isinstance(leaf, jax.Array) or leaf.committed
  return getattr(leaf, "sharding", None) if pinned else None


def spell(dtype: Any, shape: Sequence[int]) -> str:
  """What an array is, for an error message: `float32[3, 4]`."""
  return f"{np.dtype(dtype).name}[{', '.join(map(str, shape))}]"
