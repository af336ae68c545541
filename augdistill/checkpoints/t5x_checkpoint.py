"""Checkpoints of T5X, read and written without T5X: the model's parameters.

T5X has two formats. The native one is a directory with a file `checkpoint`, a
tree in flax's msgpack, whose leaves are small arrays or say which zarr array
beside it they are. The other is Orbax's, in a subdirectory `state`. Both hold
an optimizer's state, too, which is left where it is. A directory may lie on a
disk or, as gs://BUCKET/PATH, on Google Cloud Storage.

References:
  github.com/google-research/t5x, t5x/checkpoints.py: version 3 is as above;
  version 2 wrote bfloat16 as the bits of uint16.
"""

import functools
import itertools
import math
import os
import pathlib
import re
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from flax import serialization

from augdistill.checkpoints.flat import nested, spell
from augdistill.checkpoints.folder import (
  SECONDS,
  Folder,
  first_line,
  is_in_bucket,
  place,
)
from augdistill.checkpoints.foreign import Stored
from augdistill.errors import UsageError

_SECONDS_OF_AN_ARRAY = 600.0
_NATIVE, _ORBAX = "checkpoint", "state/_METADATA"
_CHUNK = 2**24  # numbers of an array that lie in one file


def is_t5x(path: str) -> bool:
  """Whether a directory is a checkpoint of T5X, by the names of its files.

  Raises:
    UsageError: if it cannot be looked into.
  """
  return bool(Folder(path).read_all((_NATIVE, _ORBAX)))


def latest_t5x(path: str) -> str | None:
  """The newest checkpoint of a run of T5X.

  Args:
    path: the run's directory, or that of one of its checkpoints.

  Returns:
    The checkpoint's directory; None where there is none.
  """
  if is_t5x(path):
    return path
  found = [
    (int(match[1]), str(entry))
    for entry in epath.Path(path).glob("checkpoint_*")
    if (match := re.fullmatch(r"checkpoint_(\d+)", entry.name))
    and is_t5x(str(entry))
  ]
  return max(found)[1] if found else None


def write_t5x(
  directory: pathlib.Path, weights: Mapping[str, np.ndarray]
) -> None:
  """Writes a checkpoint in T5X's native format, of step 0, no optimizer.

  Args:
    directory: where to; T5X asks that its name be checkpoint_0.
    weights: T5X's name -> array, without "target/".
  """
  directory.mkdir()
  leaves = {}
  for name, array in weights.items():
    folder = f"target.{name.replace('/', '.')}"
    rows = max(_CHUNK // max(math.prod(array.shape[1:]), 1), 1)
    spec = {
      "driver": "zarr",
      "kvstore": {"driver": "file", "path": f"{folder}/"},
      "metadata": {
        "chunks": [*(min(rows, n) for n in array.shape[:1]), *array.shape[1:]],
        "compressor": {"id": "gzip", "level": 1},
        "shape": list(array.shape),
      },
      "dtype": array.dtype.name,
    }
    where = {"kvstore": place(str(directory / folder))}
    store = tensorstore.open({**spec, **where}, create=True).result()
    store.write(array).result()
    leaves[name] = spec
  content = {
    "version": 3,
    "optimizer": {"target": nested(leaves), "state": {"step": np.int32(0)}},
  }
  (directory / _NATIVE).write_bytes(serialization.msgpack_serialize(content))


def t5x_arrays(path: str) -> dict[str, Stored]:
  """The parameters in a checkpoint of T5X.

  Args:
    path: its directory, local or gs://.

  Returns:
    Name -> array, without "target/", such as
    `encoder/layers_0/attention/query/kernel`. bfloat16 stays what it is.

  Raises:
    UsageError: if there is none, or it is damaged or older than version 2.
  """
  folder = Folder(path)
  tree = folder.read(_NATIVE)
  if tree is not None:
    return _native(path, tree)
  if folder.read(_ORBAX) is not None:
    return _orbax(path)
  raise UsageError(
    f"{path} must be a checkpoint of T5X, with a file {_NATIVE} or a directory "
    "state; give the directory checkpoint_N itself"
  )


def _native(path: str, content: bytes) -> dict[str, Stored]:
  try:
    tree = serialization.msgpack_restore(content)
    version, target = tree["version"], tree["optimizer"]["target"]
    leaves = dict(_leaves(target))
  except Exception as error:  # Whatever msgpack makes of damaged bytes.
    raise UsageError(
      f"{path}/{_NATIVE} must be T5X's tree of a checkpoint, but: "
      f"{reprlib.repr(error)}"
    ) from error
  if version not in (2, 3):
    raise UsageError(
      f"{path} must be a checkpoint of version 2 or 3, got "
      f"{reprlib.repr(version)}"
    )
  return {name: _leaf(path, name, leaf) for name, leaf in leaves.items()}


def _leaves(tree: Any, parents: str = "") -> Iterator[tuple[str, Any]]:
  for key, value in tree.items():
    if isinstance(value, Mapping) and "driver" not in value:
      yield from _leaves(value, f"{parents}{key}/")
    else:
      yield f"{parents}{key}", value


def _leaf(path: str, name: str, leaf: Any) -> Stored:
  if isinstance(leaf, np.ndarray):
    inline = _true_type(leaf)
    return Stored(inline.shape, inline.dtype, lambda: inline)
  try:
    shape = tuple(map(int, leaf["metadata"]["shape"]))
    dtype = jnp.dtype(leaf["dtype"])
    if min(shape, default=0) < 0:
      raise ValueError("a shape must not be negative")
  except (KeyError, TypeError, ValueError, OverflowError) as error:
    raise UsageError(
      f"{path} must say where {name} is, but has {reprlib.repr(leaf)}"
    ) from error
  dtype = jnp.dtype(jnp.bfloat16) if dtype == np.uint16 else dtype
  # The place is made of the name: what a file says of others is not followed.
  folder = f"{path.rstrip('/')}/target.{name.replace('/', '.')}"
  return Stored(shape, dtype, functools.partial(_array, folder, shape, dtype))


def _array(folder: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
  try:
    opened = tensorstore.open(
      {"driver": "zarr", "kvstore": place(folder)}, open=True, read=True
    ).result(timeout=SECONDS)
    # Before anything is read: its files may say of any size that it is theirs.
    _check_array(opened, folder, shape, dtype)
    return _true_type(opened.read().result(timeout=_SECONDS_OF_AN_ARRAY))
  except (OSError, ValueError, TimeoutError) as error:
    raise UsageError(
      f"{folder} must hold an array, but: {first_line(error)}"
    ) from error


def _check_array(
  opened: Any, folder: str, shape: tuple[int, ...], dtype: Any
) -> None:
  """Raises UsageError unless an array is as announced, and all of it there."""
  its = np.dtype(opened.dtype.numpy_dtype)
  its = np.dtype(jnp.bfloat16) if its == np.uint16 else its
  chunk = opened.chunk_layout.read_chunk.shape
  got = None
  if (opened.shape, its) != (shape, dtype):
    got = spell(its, opened.shape)
  elif any(c > max(n, 1) for c, n in zip(chunk, shape, strict=True)):
    got = f"parts of shape {list(chunk)}"
  elif missing := _missing_chunks(opened, folder):
    got = f"{missing} of its files too few"
  if got:
    raise UsageError(
      f"{folder} must hold {spell(dtype, shape)}, as its checkpoint says, got "
      f"{got}"
    )


def _missing_chunks(opened: Any, folder: str) -> int:
  """Files that are not there, which zarr takes for zeros."""
  shape, chunk = opened.shape, opened.chunk_layout.read_chunk.shape
  parts = [range(-(-n // c)) for n, c in zip(shape, chunk, strict=True)]
  wanted = {".".join(map(str, at)) or "0" for at in itertools.product(*parts)}
  names = Folder(folder).store.list().result(timeout=SECONDS)
  return len(wanted.difference(name.decode() for name in names))


def _orbax(path: str) -> dict[str, Stored]:
  # Orbax takes no path that depends on the current directory.
  whole = path if is_in_bucket(path) else os.path.abspath(path)
  directory = epath.Path(whole) / "state"
  try:
    tree = ocp.PyTreeCheckpointHandler().metadata(directory).tree
    found = {
      name: (tuple(map(int, leaf.shape)), jnp.dtype(leaf.dtype))
      for name, leaf in _leaves_of(tree["target"])
    }
  except Exception as error:  # Whatever Orbax makes of damaged files.
    raise UsageError(
      f"{directory} must be a checkpoint of Orbax with a target, but: "
      f"{first_line(error)}"
    ) from error
  return {
    name: Stored(shape, dtype, functools.partial(_from_orbax, directory, name))
    for name, (shape, dtype) in found.items()
  }


def _leaves_of(tree: Any, parents: str = "") -> Iterator[tuple[str, Any]]:
  for key, value in tree.items():
    if isinstance(value, Mapping):
      yield from _leaves_of(value, f"{parents}{key}/")
    else:
      yield f"{parents}{key}", value


def _from_orbax(directory: epath.Path, name: str) -> np.ndarray:
  item: Any = 0
  restore: Any = ocp.RestoreArgs(restore_type=np.ndarray)
  for part in reversed(["target", *name.split("/")]):
    item, restore = {part: item}, {part: restore}
  try:
    tree = ocp.PyTreeCheckpointHandler().restore(
      directory,
      args=ocp.args.PyTreeRestore(
        item=item, restore_args=restore, partial_restore=True
      ),
    )
  except Exception as error:  # Whatever Orbax makes of damaged files.
    raise UsageError(
      f"{directory} must hold {name}, but: {first_line(error)}"
    ) from error
  for part in ("target", *name.split("/")):
    tree = tree[part]
  return tree


def _true_type(array: np.ndarray) -> np.ndarray:
  """bfloat16 where version 2 wrote its bits; parameters are never uint16."""
  return array.view(jnp.bfloat16) if array.dtype == np.uint16 else array
