"""What every vocabulary offers, and how one is found and read.

There are two kinds: SentencePiece models (`sentence_pieces`), and whatever
the library tokenizers reads, WordPiece and BPE among it (`subwords`).
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from augdistill.errors import UsageError, listing
from augdistill.types import Lexicon

PAD_ID = 0  # as everywhere in T5, BERT and seqio
# The files of a vocabulary, the first that is there; each has all of it but
# merges.txt and what tokenizer_config.json says of vocab.txt.
FILES = ("vocab.spm", "spiece.model", "tokenizer.json", "vocab.txt")


@dataclasses.dataclass(frozen=True)
class Frame:
  """What stands around the texts of a row.

      before text end          before text1 between text2 end

  T5 has nothing before and `</s>` elsewhere, BERT `[CLS]` and `[SEP]`, RoBERTa
  `<s>`, and `</s></s>` between two texts.

  Attributes:
    end_id: the id behind the last text.
    before: ids in front of the first text.
    between: ids between the texts of a pair; the first is `end_id`.
  """

  end_id: int
  before: tuple[int, ...]
  between: tuple[int, ...]

  def join(self, texts: Sequence[Sequence[int]]) -> list[int]:
    """The row of one text, or of two."""
    row = [*self.before, *texts[0]]
    for text in texts[1:]:
      row += [*self.between, *text]
    return [*row, self.end_id]

  def split(self, row: np.ndarray) -> list[np.ndarray]:
    """The texts of a row, without what stands around them.

    Args:
      row: i32[L], as of `join`; padding may follow.

    Returns:
      One text, or two.
    """
    ends = np.flatnonzero(row == self.end_id)
    first, last, start = ends[0], ends[-1], len(self.before)
    if first == last:
      return [row[start:last]]
    return [row[start:first], row[first + len(self.between) : last]]


@runtime_checkable
class Vocab(Protocol):
  """The pieces of a vocabulary, by id; row i of a table of embeddings is i's.

  Attributes:
    fingerprint: sha256 of everything that decides what texts become.
    num_pieces: how many ids have a piece.
    size: V, the rows of the embedding table: the number of pieces, rounded up
      so that it can be cut evenly over devices.
    unk_id: the id of what no piece covers.
    mask_id: the id of the token that stands for hidden ones; None: none.
    frame: what stands around texts.
    lexicon: what augmentations may do, as NumPy arrays.
  """

  fingerprint: str
  num_pieces: int
  size: int
  unk_id: int
  mask_id: int | None
  frame: Frame
  lexicon: Lexicon

  def encode(self, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text's pieces, without what stands around it."""
    ...

  def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
    """The text of ids, without padding and what stands around it."""
    ...

  def pieces(self, tokens: Sequence[int] | np.ndarray) -> list[str]:
    """The piece of each id, "" for rows without one."""
    ...

  def save(self, directory: str | os.PathLike) -> str:
    """Writes the vocabulary's file into a directory; returns its path."""
    ...

  def seqio_vocabulary(self, directory: str | os.PathLike) -> Any:
    """The same for seqio, which may keep files in the directory."""
    ...

  def plain_files(self) -> dict[str, bytes]:
    """Name -> content of its files for other programs; the last is whole."""
    ...


def load_vocab(path: str | os.PathLike) -> Vocab:
  """Reads a vocabulary of any kind, told by its file's name.

  Args:
    path: a SentencePiece model (.model, .spm), a tokenizer.json, BERT's
      vocab.txt; or a directory that has one of them.

  Returns:
    The vocabulary. T5's own file gets its 100 sentinels.

  Raises:
    UsageError: if there is no such file, or it cannot be used.
  """
  from augdistill.data import sentence_pieces, subwords

  path = os.fspath(path)
  file = find_vocab(path) if os.path.isdir(path) else path
  if file is None:
    raise UsageError(
      f"vocabulary {path}: the directory must have one of {listing(FILES)}"
    )
  try:
    with open(file, "rb") as opened:
      content = opened.read()
  except OSError as error:
    raise UsageError(f"vocabulary {file}: {error.strerror}.") from None
  if file.endswith(".json"):
    return subwords.read_tokenizer(content, file)
  if file.endswith(".txt"):
    return subwords.read_word_pieces(content, file)
  return sentence_pieces.read_vocab(content, file)


def find_vocab(directory: str | os.PathLike) -> str | None:
  """The path of a directory's vocabulary; None where it has none."""
  paths = (os.path.join(directory, name) for name in FILES)
  return next(filter(os.path.exists, paths), None)


def table_rows(num_pieces: int) -> int:
  """V of so many pieces.

  Rounded up to a multiple of 8, or of 128 from 32,000 pieces on, as T5 does:
  its 32,000 pieces and 100 sentinels get 32,128 rows.
  """
  multiple = 128 if num_pieces >= 32_000 else 8
  return -(-num_pieces // multiple) * multiple


def write_vocab(directory: str | os.PathLike, name: str, content: bytes) -> str:
  """Writes a vocabulary's file, whole or not at all; returns its path."""
  path = os.path.join(directory, name)
  os.makedirs(directory, exist_ok=True)
  temporary = f"{path}.{os.getpid()}.tmp"
  with open(temporary, "wb") as file:
    file.write(content)
  os.replace(temporary, path)
  return path
