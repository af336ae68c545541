"""Vocabularies of the library tokenizers: WordPiece, BPE, Unigram."""

import dataclasses
import functools
import hashlib
import io
import json
import os
import re
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from augdistill.data.vocabulary import PAD_ID, Frame, table_rows, write_vocab
from augdistill.errors import UsageError
from augdistill.types import Lexicon

_UNUSED = re.compile(r"\[unused\d+\]")  # BERT's rows that no text has
_NO_CHARACTER = "\ufffd"  # what bytes decode to that are none
_CONFIG = "tokenizer_config.json"
_DEFAULTS = {
  "do_lower_case": True,
  "strip_accents": None,
  "tokenize_chinese_chars": True,
}
_SPARSEST = 8  # ids for each piece; a damaged id asks for any number of rows


@dataclasses.dataclass(frozen=True)
class SubwordVocab:
  """The pieces of a tokenizer.json, by id: a `Vocab`.

  Attributes:
    content: of the file.
  """

  content: bytes = dataclasses.field(repr=False)

  @functools.cached_property
  def fingerprint(self) -> str:
    """sha256 of what decides what texts become, however it is written.

    Files of one vocabulary differ in what they leave out, in how they cut and
    pad rows, and in what they call the template that puts `frame` there.
    """
    decisive = {**self._read, "frame": dataclasses.asdict(self.frame)}
    for name in ("version", "truncation", "padding", "post_processor"):
      del decisive[name]
    text = json.dumps(decisive, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

  @functools.cached_property
  def _tokenizer(self) -> Any:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_buffer(self.content)
    # Rows are cut and padded elsewhere, and what stands around texts is put
    # there, too; so that "[SEP]" in a text is letters.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer

  @functools.cached_property
  def _read(self) -> dict[str, Any]:
    """The file as the library reads it, with what the file leaves out."""
    return json.loads(self._tokenizer.to_str())

  @functools.cached_property
  def num_pieces(self) -> int:
    """How many ids have a piece, or lie below one that has."""
    return 1 + max(self._tokenizer.get_vocab().values())

  @property
  def size(self) -> int:
    """V, the rows of the embedding table."""
    return table_rows(self.num_pieces)

  @functools.cached_property
  def _specials(self) -> frozenset[int]:
    added = self._tokenizer.get_added_tokens_decoder()
    return frozenset(i for i, token in added.items() if token.special)

  @functools.cached_property
  def unk_id(self) -> int:
    """The id of what no piece covers; -1 where bytes cover everything."""
    model = self._read["model"]
    unknown = model.get("unk_token")
    if unknown is None:  # A Unigram model has its number.
      return -1 if model.get("unk_id") is None else model["unk_id"]
    return -1 if (i := self._tokenizer.token_to_id(unknown)) is None else i

  @property
  def mask_id(self) -> int | None:
    """The id of [MASK], or of <mask>; None where there is neither."""
    ids = map(self._tokenizer.token_to_id, ("[MASK]", "<mask>"))
    return next((i for i in ids if i is not None), None)

  @functools.cached_property
  def frame(self) -> Frame:
    """What the tokenizer's own template puts around texts."""
    pair = self._tokenizer.encode("a", "a")
    # Whose a token is: of text 0, of text 1, or of none.
    whose = pair.sequence_ids
    first = [i for i, text in enumerate(whose) if text == 0]
    second = [i for i, text in enumerate(whose) if text == 1]
    return Frame(
      pair.ids[second[-1] + 1],
      before=tuple(pair.ids[: first[0]]),
      between=tuple(pair.ids[first[-1] + 1 : second[0]]),
    )

  @functools.cached_property
  def lexicon(self) -> Lexicon:
    """What augmentations may do.

    They may produce ordinary pieces: no special ones, none that are kept
    unused, and no bytes that are half a character. They leave padding and
    what stands around texts. In a WordPiece model those pieces continue a
    word that begin with its mark for that, `##`.
    """
    tokenizer, frame = self._tokenizer, self.frame
    names = {i: piece for piece, i in tokenizer.get_vocab().items()}
    texts = tokenizer.decode_batch(
      [[i] for i in range(self.num_pieces)], skip_special_tokens=False
    )
    producible = np.zeros(self.size, bool)
    for i, piece in names.items():
      producible[i] = not (
        i in self._specials
        or i == self.unk_id
        or _UNUSED.fullmatch(piece)
        or _NO_CHARACTER in texts[i]
      )
    around = (PAD_ID, frame.end_id, *frame.before, *frame.between)
    protected = np.isin(np.arange(self.size), around)
    model = self._read["model"]
    if model.get("type") != "WordPiece":
      return Lexicon(producible, protected)
    mark = model["continuing_subword_prefix"]
    continues = np.zeros(self.size, bool)
    for i, piece in names.items():
      continues[i] = piece.startswith(mark)
    return Lexicon(producible, protected, continues)

  def encode(self, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text's pieces, without what stands around it."""
    return [
      encoding.ids
      for encoding in self._tokenizer.encode_batch(
        list(texts), add_special_tokens=False
      )
    ]

  def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
    """The text of ids, without padding and specials."""
    ids = [int(t) for t in tokens if t < self.num_pieces]
    return self._tokenizer.decode(ids)

  def pieces(self, tokens: Sequence[int] | np.ndarray) -> list[str]:
    """The piece of each id, "" for rows without one."""
    return [self._tokenizer.id_to_token(int(t)) or "" for t in tokens]

  def save(self, directory: str | os.PathLike) -> str:
    """Writes `tokenizer.json` into a directory; returns its path."""
    return write_vocab(directory, "tokenizer.json", self.content)

  def plain_files(self) -> dict[str, bytes]:
    """tokenizer.json, which neither cuts nor pads until it is asked to."""
    content = json.loads(self.content) | {"truncation": None, "padding": None}
    text = json.dumps(content, ensure_ascii=False)
    return {"tokenizer.json": text.encode()}

  def seqio_vocabulary(self, directory: str | os.PathLike) -> Any:
    """The same for seqio; nothing is written.

    Args:
      directory: is not needed.

    Returns:
      A seqio.Vocabulary with equal ids, which runs tokenizers in Python.
    """
    del directory
    return _seqio_vocabulary(self)


def _seqio_vocabulary(vocab: SubwordVocab) -> Any:
  import seqio
  import tensorflow as tf

  class Subwords(seqio.Vocabulary):
    """What seqio asks of a vocabulary."""

    eos_id = vocab.frame.end_id
    unk_id = vocab.unk_id if vocab.unk_id >= 0 else None
    _base_vocab_size = vocab.num_pieces

    def _encode(self, s):
      return vocab.encode([s])[0]

    def _decode(self, ids):
      return vocab.decode(ids)

    def _encode_tf(self, s):
      def ids(text: bytes) -> np.ndarray:
        return np.array(self._encode(text.decode()), np.int32)

      return tf.ensure_shape(tf.numpy_function(ids, [s], tf.int32), [None])

    def _decode_tf(self, ids):
      return tf.numpy_function(lambda t: vocab.decode(t), [ids], tf.string)

  return Subwords()


def read_tokenizer(content: bytes, source: str | os.PathLike) -> SubwordVocab:
  """Checks a tokenizer.json.

  Args:
    content: of the file.
    source: where it comes from, for messages.

  Returns:
    The vocabulary.

  Raises:
    UsageError: if tokenizers cannot read it, it puts nothing behind texts, id
      0 is an ordinary piece, or ids are larger than pieces are many.
  """
  vocab = SubwordVocab(content)
  try:
    pieces, frame = vocab.pieces([PAD_ID]), vocab.frame
    known = len(vocab._tokenizer.get_vocab())
  # tokenizers has no class of its own; where Rust panics, it is no Exception.
  except BaseException as error:
    if isinstance(error, KeyboardInterrupt | SystemExit):
      raise
    raise UsageError(
      f"vocabulary {source} must be a tokenizer.json of the library "
      "tokenizers that puts a special token behind every text, but: "
      f"{reprlib.repr(error)}"
    ) from None
  if vocab.num_pieces > _SPARSEST * known:
    raise UsageError(
      f"vocabulary {source} must number its {known:,} pieces without large "
      f"gaps, got id {vocab.num_pieces - 1:,}"
    )
  around = (*frame.before, *frame.between, frame.end_id, vocab.unk_id)
  if max(around) >= vocab.num_pieces:
    raise UsageError(
      f"vocabulary {source} must put pieces of its own around texts, got id "
      f"{max(around):,} of {vocab.num_pieces:,}"
    )
  if PAD_ID not in vocab._specials:
    raise UsageError(
      f"vocabulary {source} must have a special token at id {PAD_ID}, such as "
      f"[PAD], got {pieces[0]!r}"
    )
  if not frame.between or frame.between[0] != frame.end_id:
    raise UsageError(
      f"vocabulary {source} must end both texts of a pair alike, got "
      f"{vocab.pieces(frame.between)} and {vocab.pieces([frame.end_id])}"
    )
  return vocab


def read_word_pieces(content: bytes, source: str | os.PathLike) -> SubwordVocab:
  """BERT's vocab.txt: a piece in every line.

  Args:
    content: of the file.
    source: its path; beside it, tokenizer_config.json may say do_lower_case,
      strip_accents and tokenize_chinese_chars, as of transformers.

  Returns:
    The vocabulary, with [CLS] before and [SEP] behind texts.

  Raises:
    UsageError: if there is no such vocabulary in it.
  """
  import tokenizers
  from tokenizers import (
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
  )

  try:
    # A line ends where files have it end, not at all that Unicode breaks at.
    lines = io.StringIO(content.decode(), newline=None).read().split("\n")
  except UnicodeDecodeError:
    raise UsageError(f"vocabulary {source} must be in UTF-8.") from None
  if not lines[-1]:
    lines.pop()
  ids = {piece: i for i, piece in enumerate(lines)}
  specials = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
  if missing := [piece for piece in specials if piece not in ids]:
    raise UsageError(
      f"vocabulary {source} must have BERT's special pieces, and has no "
      f"{', '.join(missing)}."
    )
  config = _config_beside(source)
  tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
  tokenizer.normalizer = normalizers.BertNormalizer(
    lowercase=config["do_lower_case"],
    strip_accents=config["strip_accents"],
    handle_chinese_chars=config["tokenize_chinese_chars"],
  )
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.decoder = decoders.WordPiece()
  tokenizer.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]",
    pair="[CLS] $A [SEP] $B:1 [SEP]:1",
    special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")],
  )
  tokenizer.add_special_tokens(list(specials))
  return read_tokenizer(tokenizer.to_str().encode(), source)


def _config_beside(source: str | os.PathLike) -> dict[str, bool | None]:
  """What of `_DEFAULTS` the file beside it says; null counts as nothing."""
  path = os.path.join(os.path.dirname(os.fspath(source)), _CONFIG)
  found = dict(_DEFAULTS)
  try:
    with open(path, encoding="utf-8") as file:
      content = dict(json.load(file))
  except FileNotFoundError:
    return found
  except (OSError, ValueError, TypeError, RecursionError) as error:
    raise UsageError(f"{path} must be a JSON object, but: {error}") from None
  for name in _DEFAULTS:
    value = content.get(name)
    if value is None:
      continue
    if not isinstance(value, bool):
      raise UsageError(
        f"{path} must have a {name} of true or false, got {reprlib.repr(value)}"
      )
    found[name] = value
  return found
