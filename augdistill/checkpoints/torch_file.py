"""Tensors from a file of `torch.save`, without torch, and running nothing.

Such a file is a zip archive: `data.pkl`, a pickle of what was saved, and the
tensors' bytes beside it; before torch 1.6 they stood one behind the other. A
pickle may call any function; here it may build
dictionaries and tensors, and whatever else it asks for is refused. Nor may a
damaged file, or one that was made for it, fill the memory: no more is read,
or made of it, than the file is large.
"""

import collections
import functools
import io
import math
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from augdistill.checkpoints.foreign import Stored
from augdistill.errors import UsageError

_TYPES = {
  "FloatStorage": np.float32,
  "DoubleStorage": np.float64,
  "HalfStorage": np.float16,
  "BFloat16Storage": ml_dtypes.bfloat16,
  "LongStorage": np.int64,
  "IntStorage": np.int32,
  "ShortStorage": np.int16,
  "CharStorage": np.int8,
  "ByteStorage": np.uint8,
  "BoolStorage": np.bool_,
}
# A file of torch before 1.6 begins with it.
_MAGIC = 0x1950A86A20F9469CFC6C

# The instructions of a pickle that torch.save writes; others make other
# objects, or two of one, which a few bytes may repeat to any size.
_INSTRUCTIONS = re.compile(
  "PROTO|FRAME|STOP|MARK|NONE|NEWTRUE|NEWFALSE|(BIN)?INT[12]?|LONG[14]?|"
  "(BIN)?FLOAT|(SHORT_)?BIN(STRING|BYTES|UNICODE)|STRING|UNICODE|BINUNICODE8|"
  "(EMPTY_)?(DICT|LIST|TUPLE)|TUPLE[123]|APPENDS?|SETITEMS?|BUILD|REDUCE|"
  "(STACK_)?GLOBAL|BINPERSID|MEMOIZE|(LONG_)?(BIN)?(PUT|GET)"
)


class _Storage(NamedTuple):
  """The bytes of one or more tensors."""

  dtype: Any
  key: str
  size: int


class _Tensor(NamedTuple):
  """A window onto a storage; offset and strides in elements."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class _Refused(Exception):
  """The pickle asked for something that is no tensor."""


def torch_arrays(path: str) -> dict[str, Stored]:
  """The tensors of a file that `torch.save` wrote of a dictionary.

  Args:
    path: the file.

  Returns:
    Name -> array.

  Raises:
    UsageError: if the file is damaged, or asks for anything but tensors.
  """
  try:
    opened = _zip if zipfile.is_zipfile(path) else _stream
    tree, fetch, big = opened(path)
  except _Refused as error:
    raise UsageError(
      f"{path} must hold tensors alone, but asks for {error}, which could run "
      "code; convert it to safetensors where you trust it"
    ) from None
  except Exception as error:  # Whatever zip and pickle make of damaged bytes.
    raise UsageError(
      f"{path} must be a file of torch.save, but: {error!r}; convert it to "
      "safetensors"
    ) from error
  if not isinstance(tree, Mapping) or not all(
    isinstance(name, str) for name in tree
  ):
    raise UsageError(f"{path} must hold a dictionary of tensors")
  return {
    name: Stored(
      leaf.shape,
      np.dtype(leaf.storage.dtype),
      functools.partial(_read, path, fetch, big, name, leaf),
    )
    for name, leaf in tree.items()
    if isinstance(leaf, _Tensor)
  }


# What was saved; a storage -> its bytes; whether they are big-endian.
_Opened = tuple[Any, Callable[[_Storage], bytes], bool]


def _zip(path: str) -> _Opened:
  """A file of torch 1.6 or later: a pickle in an archive, and bytes beside."""
  with zipfile.ZipFile(path) as archive:
    names = archive.namelist()
    (pickled,) = [n for n in names if n.split("/")[1:] == ["data.pkl"]]
    root = pickled.removesuffix("data.pkl")
    big = f"{root}byteorder" in names and (
      _entry(archive, f"{root}byteorder").strip() == b"big"
    )
    tree, _ = _unpickled(_entry(archive, pickled))

  def fetch(storage):
    with zipfile.ZipFile(path) as archive:
      return _entry(archive, f"{root}data/{storage.key}")

  return tree, fetch, big


def _stream(path: str) -> _Opened:
  """A file of torch before 1.6: five pickles, and the storages behind them.

  They hold a magic number, a version, what machine wrote them, what was saved,
  and the keys of its storages in the order in which these follow, each behind
  its number of elements.
  """
  with open(path, "rb") as file:
    magic, version, machine, (tree, storages), keys = (
      _next_pickle(file),
      _next_pickle(file),
      _next_pickle(file),
      _unpickled(_pickle_bytes(file)),
      _next_pickle(file),
    )
    if (magic, version) != (_MAGIC, 1001):
      raise ValueError("it begins as no such file does")
    sizes = {storage.key: storage for storage in storages}
    size = os.fstat(file.fileno()).st_size
    places, at = {}, file.tell()
    for key in keys:
      storage = sizes[key]
      places[key] = at + 8
      at += 8 + storage.size * np.dtype(storage.dtype).itemsize
    if at != size or len(places) != len(sizes):
      raise ValueError(f"its storages need {at} bytes, and it has {size}")

  def fetch(storage):
    with open(path, "rb") as file:
      file.seek(places[storage.key])
      return file.read(storage.size * np.dtype(storage.dtype).itemsize)

  return tree, fetch, not machine["little_endian"]


def _pickle_bytes(file: io.BufferedIOBase) -> bytes:
  """The pickle that begins where the file is; goes behind it."""
  begin = file.tell()
  for _ in pickletools.genops(file):
    pass
  size = file.tell() - begin
  file.seek(begin)
  return file.read(size)


def _next_pickle(file: io.BufferedIOBase) -> Any:
  return _unpickled(_pickle_bytes(file))[0]


def _unpickled(content: bytes) -> tuple[Any, set[_Storage]]:
  """What was pickled, and the storages that it speaks of."""
  _check_instructions(content)
  unpickler = _Unpickler(io.BytesIO(content))
  return unpickler.load(), unpickler.storages


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
  """A file of an archive, which torch.save does not compress."""
  entry, whole = archive.getinfo(name), os.fstat(archive.fp.fileno()).st_size
  if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > whole:
    raise ValueError(f"{name} is compressed, or larger than the file")
  return archive.read(entry)


def _check_instructions(content: bytes) -> None:
  """Raises where a pickle does what torch.save has no need to do.

  It takes no number beyond its own size for a place in its memory, and no
  tuple from there: tuples of the same tuple, of the same tuple, ... grow as
  powers of 2 where they are hashed or shown.
  """
  tuples, last, count = set(), "", 0
  for instruction, argument, _ in pickletools.genops(content):
    name = instruction.name
    if not _INSTRUCTIONS.fullmatch(name):
      raise _Refused(f"the instruction {name}")
    if name == "MEMOIZE" or name.endswith("PUT"):
      place = count if name == "MEMOIZE" else argument
      count += 1
      if place > len(content):
        raise ValueError(f"place {place} of its memory is beyond its size")
      (tuples.add if last.startswith("TUPLE") else tuples.discard)(place)
      continue  # `last` made what is kept again, if it is.
    if name.endswith("GET") and argument in tuples:
      raise _Refused("a tuple twice")
    last = name


class _Unpickler(pickle.Unpickler):
  """Builds dictionaries and `_Tensor`s, and refuses everything else."""

  def __init__(self, file: io.BufferedIOBase):
    super().__init__(file)
    self.storages: set[_Storage] = set()

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ("collections", "OrderedDict"):
      return collections.OrderedDict
    # New functions, since a pickle may set attributes of what it gets.
    if module == "torch._utils" and name == "_rebuild_tensor_v2":
      return lambda *arguments: _rebuild(*arguments)
    if module == "torch._utils" and name == "_rebuild_parameter":
      return lambda *arguments: _parameter(*arguments)
    if module == "torch" and name in _TYPES:
      return name  # Of a type, which a pickle could call.
    raise _Refused(f"{module}.{name}")

  def persistent_load(self, pid: Any) -> _Storage:
    kind, dtype, key, _, size, *view = pid
    if kind != "storage" or dtype not in _TYPES or view not in ([], [None]):
      raise _Refused("a reference that is no tensor's")
    storage = _Storage(_TYPES[dtype], str(key), int(size))
    self.storages.add(storage)
    return storage


def _parameter(tensor: Any, *_) -> _Tensor:
  """What `torch._utils._rebuild_parameter` is called with."""
  if not isinstance(tensor, _Tensor):
    raise ValueError("a parameter must be a tensor")
  return tensor


def _rebuild(
  storage: Any, offset: int, shape: Sequence[int], strides: Sequence[int], *_
) -> _Tensor:
  """What `torch._utils._rebuild_tensor_v2` is called with, checked."""
  shape, strides = tuple(map(int, shape)), tuple(map(int, strides))
  if not isinstance(storage, _Storage) or len(shape) != len(strides):
    raise ValueError("a tensor must have a storage, and a stride per axis")
  last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
  inside = 0 not in shape and offset + last >= storage.size
  large = math.prod(shape) > storage.size  # Rows that are one row, repeated.
  if min((offset, *shape, *strides), default=0) < 0 or inside or large:
    raise ValueError(f"a tensor must lie inside its storage, got {shape}")
  return _Tensor(storage, int(offset), shape, strides)


def _read(
  path: str,
  fetch: Callable[[_Storage], bytes],
  big: bool,
  name: str,
  tensor: _Tensor,
) -> np.ndarray:
  storage = tensor.storage
  dtype = np.dtype(storage.dtype)
  try:
    content = fetch(storage)
  except Exception as error:  # As above.
    raise UsageError(f"{path} must hold {name}, but: {error!r}") from error
  if len(content) != storage.size * dtype.itemsize:
    raise UsageError(
      f"{path} must hold {storage.size * dtype.itemsize} bytes of {name}, got "
      f"{len(content)}"
    )
  flat = np.frombuffer(content, dtype)
  flat = flat.byteswap() if big else flat
  if math.prod(tensor.shape) == 0:
    return np.zeros(tensor.shape, dtype)
  window = np.lib.stride_tricks.as_strided(
    flat[tensor.offset :],
    tensor.shape,
    [stride * dtype.itemsize for stride in tensor.strides],
  )
  return np.array(window, order="C")
