"""The weights in a directory of Hugging Face's transformers, by torch's names.

Looked for in this order: `model.safetensors`, alone or in parts with an index;
`pytorch_model.bin`, likewise; `flax_model.msgpack`, whose names and layout are
turned into torch's.
"""

import functools
import os
import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from flax import serialization

from augdistill.checkpoints.config_json import read_json
from augdistill.checkpoints.foreign import Stored
from augdistill.checkpoints.torch_file import torch_arrays
from augdistill.errors import UsageError

SAFETENSORS, TORCH, FLAX = (
  *("model.safetensors", "pytorch_model.bin"),
  "flax_model.msgpack",
)


def state_dict_arrays(path: str) -> dict[str, Stored]:
  """The weights in a directory.

  Args:
    path: the directory, as `save_pretrained` wrote it.

  Returns:
    Name -> array, such as `encoder.block.0.layer.0.SelfAttention.q.weight`;
    kernels lie as torch has them, [out, in].

  Raises:
    UsageError: if there are none, a file is damaged, or one would run code.
  """
  for name, read in ((SAFETENSORS, _safetensors), (TORCH, torch_arrays)):
    file = os.path.join(path, name)
    if os.path.exists(f"{file}.index.json"):
      return _in_parts(path, f"{file}.index.json", read)
    if os.path.exists(file):
      return read(file)
  file = os.path.join(path, FLAX)
  if os.path.exists(file):
    return _flax(file)
  raise UsageError(
    f"{path} must hold weights: {SAFETENSORS}, {TORCH} or {FLAX}"
  )


def _in_parts(
  path: str, index: str, read: Callable[[str], dict[str, Stored]]
) -> dict[str, Stored]:
  must = "the JSON that says which file has which weight"
  places = read_json(index, must).get("weight_map")
  if not isinstance(places, dict) or not all(
    isinstance(name, str) for name in places.values()
  ):
    raise UsageError(
      f"{index} must be {must}, but its weight_map names no files"
    )
  found: dict[str, Stored] = {}
  for name in sorted(set(places.values())):
    if name in ("", ".", "..") or os.path.basename(name) != name:
      raise UsageError(
        f"{index} must name files beside it, got {reprlib.repr(name)}, which "
        "lies in another directory"
      )
    file = os.path.join(path, name)
    if not os.path.isfile(file):
      raise UsageError(
        f"{index} names the file {name}, which is not there; copy it there, too"
      )
    there = read(file)
    wanted = [weight for weight, place in places.items() if place == name]
    if missing := [weight for weight in wanted if weight not in there]:
      raise UsageError(
        f"{index} names {missing[0]}, which {name} does not hold"
      )
    found |= there
  return found


def _safetensors(path: str) -> dict[str, Stored]:
  try:
    with safetensors.safe_open(path, "np") as file:
      names = file.keys()
      return {name: _lazy(path, name, file.get_slice(name)) for name in names}
  except (OSError, safetensors.SafetensorError, ValueError) as error:
    raise UsageError(
      f"{path} must be a file of safetensors, but: {error}"
    ) from error


def _lazy(path: str, name: str, part: Any) -> Stored:
  dtype = _DTYPES.get(part.get_dtype())
  if dtype is None:
    raise ValueError(f"{name} is of type {part.get_dtype()}")
  shape = tuple(part.get_shape())
  return Stored(shape, dtype, functools.partial(_tensor, path, name))


def _tensor(path: str, name: str) -> np.ndarray:
  with safetensors.safe_open(path, "np") as file:
    return file.get_tensor(name)


_DTYPES = {
  "F64": np.dtype("float64"),
  "F32": np.dtype("float32"),
  "F16": np.dtype("float16"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "I64": np.dtype("int64"),
  "I32": np.dtype("int32"),
  "I16": np.dtype("int16"),
  "I8": np.dtype("int8"),
  "U8": np.dtype("uint8"),
  "BOOL": np.dtype("bool"),
}


def _flax(path: str) -> dict[str, Stored]:
  try:
    with open(path, "rb") as file:
      tree = serialization.msgpack_restore(file.read())
    return dict(_as_torch(tree))
  except Exception as error:  # Whatever msgpack makes of damaged bytes.
    raise UsageError(
      f"{path} must be flax's msgpack of a model, but: {error!r}"
    ) from error


def _as_torch(
  tree: Mapping[str, Any], parents: str = ""
) -> Iterator[tuple[str, Stored]]:
  for key, value in tree.items():
    if isinstance(value, Mapping):
      yield from _as_torch(value, f"{parents}{key}.")
      continue
    array = np.asarray(value)
    if array.dtype.kind in "OSU":
      raise ValueError(f"{parents}{key} is no array of numbers")
    if key == "kernel" and array.ndim == 2:
      array = array.T
    if key in ("kernel", "embedding", "scale"):
      key = "weight"
    read = functools.partial(np.array, array, order="C")
    yield f"{parents}{key}", Stored(array.shape, array.dtype, read)
