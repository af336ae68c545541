"""A teacher's answers to texts: kept on disk, and read instead of asking again.

  DIR/FINGERPRINT/teacher.json           all that the answers depend on
  DIR/FINGERPRINT/000001-CHECKSUM.npy    keys and answers of some texts

A text's key is a hash of its tokens, so that it is the same in every data set,
split and run. The fingerprint is a hash of teacher.json, so that another
teacher reads and writes elsewhere. A file is renamed into its place when it is
whole and never changes; its checksum covers the fingerprint, too, so that one
which is torn, was changed or belongs to another teacher is told. Of two answers
to a text, which two runs have asked for at a time, the older file's counts.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from augdistill import atomic
from augdistill.data.dataset import Examples
from augdistill.errors import UsageError

_KEY = np.dtype("S16")  # 128 bits; compared as bytes.


def keys_of(examples: Examples) -> np.ndarray:
  """S16[N]: a hash of the tokens of each row, and of nothing else."""
  tokens = np.ascontiguousarray(examples.tokens, "<i4")
  digests = [
    hashlib.blake2b(tokens[first:end], digest_size=_KEY.itemsize).digest()
    for first, end in zip(
      examples.offsets[:-1], examples.offsets[1:], strict=True
    )
  ]
  return np.frombuffer(b"".join(digests), _KEY)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Answers:
  """A teacher's answers to the rows of a split, several draws of each.

  Attributes:
    parts: arrays f32[K, m, C], most often memory-mapped, of m draws each.
    part: i64[N] the part that has a row's answer.
    place: i64[N] where it stands in that.
  """

  parts: Sequence[np.ndarray]
  part: np.ndarray
  place: np.ndarray

  def __len__(self) -> int:
    return len(self.place)

  @property
  def draws(self) -> int:
    """The number of draws, m."""
    return self.parts[0].shape[1]

  def at(self, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """One answer to each of the given rows.

    Args:
      rows: i64[B] their numbers.
      draws: i64[B] which draw of each.

    Returns:
      f32[B, C].
    """
    answers = np.empty((len(rows), self.parts[0].shape[2]), np.float32)
    for number in np.unique(self.part[rows]):
      its = self.part[rows] == number
      answers[its] = self.parts[number][self.place[rows[its]], draws[its]]
    return answers


def stand_ins(num_rows: int, num_outputs: int) -> Answers:
  """Answers of zeros, for who wants to know what a step costs."""
  places = np.zeros(num_rows, np.int64)
  return Answers([np.zeros((1, 1, num_outputs), np.float32)], places, places)


class Found(NamedTuple):
  """What is there of the rows that were looked for.

  Attributes:
    there: bool[N].
    answers: to all rows; what they say of those that are not there means
      nothing. None where no row is there.
    digest: sha256 of which files and places the answers come from.
  """

  there: np.ndarray
  answers: Answers | None
  digest: bytes


class AnswerStore:
  """The answers of one teacher.

  Args:
    directory: where all teachers' are; it need not exist.
    ingredients: all that the answers depend on but the texts, as JSON has it.
    draws: m, the answers to each text.
    num_outputs: C.

  Attributes:
    path: the directory of this teacher.

  Raises:
    UsageError: if it is in a bucket, cannot be written, or says of itself that
      it is another teacher's.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    ingredients: Mapping[str, Any],
    draws: int,
    num_outputs: int,
  ):
    atomic.check_local(directory)
    text = json.dumps(ingredients, indent=2, sort_keys=True) + "\n"
    self._fingerprint = hashlib.sha256(text.encode()).hexdigest()
    self._dtype = np.dtype(
      [("key", _KEY), ("answers", "<f4", (draws, num_outputs))]
    )
    self.path = pathlib.Path(directory, self._fingerprint[:16])
    self._shards: dict[pathlib.Path, np.ndarray | None] = {}
    self._claim(text)

  def _claim(self, text: str) -> None:
    said = self.path / "teacher.json"
    try:
      there = said.read_text(encoding="utf-8")
    except FileNotFoundError:
      with _writing(self.path), atomic.replacing(said) as file:
        file.write(text)
      return
    except (OSError, UnicodeDecodeError):
      there = ""
    if there != text:
      raise UsageError(
        f"{said} must say whose answers are beside it, and was changed since "
        f"it was written; remove {self.path}, to ask the teacher again"
      )

  def find(self, keys: np.ndarray) -> Found:
    """Looks for the answers to rows; says, once, which files are left aside.

    Args:
      keys: S16[N], as of `keys_of`.
    """
    part, place = np.full((2, len(keys)), -1)
    parts, names = [], []
    for path in self._files():
      if path not in self._shards:
        self._shards[path] = self._open(path)
      shard = self._shards[path]
      if shard is None:
        continue
      its = np.asarray(shard["key"])
      order = np.argsort(its, kind="stable")
      index = np.searchsorted(its, keys, sorter=order)
      index = order[np.minimum(index, len(its) - 1)]
      new = (part < 0) & (its[index] == keys)
      if new.any():
        part[new], place[new] = len(parts), index[new]
        parts.append(shard["answers"])
        names.append(path.name)
    digest = hashlib.sha256(repr(names).encode())
    digest.update(np.stack([part, place]))
    answers = Answers(parts, part, place) if parts else None
    return Found(part >= 0, answers, digest.digest())

  def add(self, keys: np.ndarray, answers: np.ndarray) -> None:
    """Keeps answers, in a file that is there as a whole or not at all.

    Args:
      keys: S16[K], K > 0.
      answers: f32[K, m, C].

    Raises:
      UsageError: if it cannot be written.
    """
    shard = np.empty(len(keys), self._dtype)
    shard["key"], shard["answers"] = keys, answers
    with _writing(self.path):
      numbers = [int(path.name.partition("-")[0]) for path in self._files()]
      number = 1 + max(numbers, default=0)
      temporary = self.path / f".{number:06}.{uuid.uuid4().hex}.tmp"
      try:
        with temporary.open("xb") as file:
          np.save(file, shard, allow_pickle=False)
          file.flush()
          os.fsync(file.fileno())
        checksum = self._checksum(temporary)
        os.replace(temporary, self.path / f"{number:06}-{checksum}.npy")
      finally:
        temporary.unlink(missing_ok=True)

  def _files(self) -> list[pathlib.Path]:
    """All files of answers, the oldest first."""
    return sorted(self.path.glob("[0-9]" * 6 + "-*.npy"))

  def _open(self, path: pathlib.Path) -> np.ndarray | None:
    """A file's keys and answers; None, which is said, if it is not sound."""
    try:
      if path.stem.partition("-")[2] == self._checksum(path):
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
        if shard.dtype == self._dtype and shard.ndim == 1 and len(shard):
          return shard
    except (OSError, ValueError):
      pass
    print(
      f"{path} is damaged, or of another teacher, and is left aside: the "
      "teacher is asked again; remove it"
    )
    return None

  def _checksum(self, path: pathlib.Path) -> str:
    start = hashlib.sha256(self._fingerprint.encode())
    with path.open("rb") as file:
      return hashlib.file_digest(file, start.copy).hexdigest()[:32]


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[None]:
  """What cannot be written in this block is said with its place."""
  try:
    yield
  except OSError as error:
    raise UsageError(
      f"cannot write to the teacher cache {path}: {error.strerror}. Choose "
      "another --teacher_cache"
    ) from error
