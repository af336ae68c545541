"""The arrays of one checkpoint on disk, by name."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from augdistill import errors
from augdistill.checkpoints import flat


def shapes(path: str | os.PathLike) -> dict[str, str]:
  """Name -> what the array is, such as `float32[3, 4]`; reads no array."""
  tree = ocp.PyTreeCheckpointHandler().metadata(epath.Path(path)).tree
  return {n: flat.spell(m.dtype, m.shape) for n, m in tree.items()}


def check_fit(path: str | os.PathLike, templates: Mapping[str, Any]) -> None:
  """Checks that the arrays are those that are wanted.

  Args:
    path: the checkpoint.
    templates: name -> what has the wanted array's shape and dtype.

  Raises:
    RunError: if one is missing, unknown, or of another shape or dtype.
  """
  there = shapes(path)
  here = {n: flat.spell(t.dtype, t.shape) for n, t in templates.items()}
  for name in {**here, **there}:
    if there.get(name) != here.get(name):
      raise errors.RunError(
        f"checkpoint {path} does not fit this model: {name} is "
        f"{there.get(name, 'missing')} there and {here.get(name, 'unknown')} "
        "here"
      )


def read(
  path: str | os.PathLike, shardings: Mapping[str, jax.sharding.Sharding | None]
) -> dict[str, jax.Array | np.ndarray]:
  """Reads the arrays named, and no others.

  Args:
    path: the checkpoint.
    shardings: name -> where the array goes; None for a NumPy array.

  Returns:
    Name -> array.
  """
  restore_args = {
    name: ocp.RestoreArgs(restore_type=np.ndarray)
    if sharding is None
    else ocp.ArrayRestoreArgs(sharding=sharding)
    for name, sharding in shardings.items()
  }
  return ocp.PyTreeCheckpointHandler().restore(
    epath.Path(path),
    args=ocp.args.PyTreeRestore(
      item=dict.fromkeys(shardings, 0),
      restore_args=restore_args,
      partial_restore=True,
    ),
  )
