"""A SentencePiece vocabulary: read from a file, or trained on texts.

T5's file of 32,000 pieces gets its 100 sentinels in code.
"""

import dataclasses
import functools
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from augdistill.data.vocabulary import PAD_ID, Frame, table_rows, write_vocab
from augdistill.errors import UsageError
from augdistill.types import Lexicon

_T5_SHA256 = "d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86"
_T5_SENTINELS = 100
# SentencePiece skips texts of more than 4,192 bytes; a character has up to 4.
_TRAINED_CHARACTERS = 1000


@dataclasses.dataclass(frozen=True)
class SentencePieceVocab:
  """The pieces of a SentencePiece model, by id: a `Vocab`.

  Attributes:
    model_bytes: the SentencePiece model, as in its file.
    extra_ids: how many sentinels `<extra_id_i>` follow the model's pieces.
  """

  mask_id: ClassVar[None] = None
  model_bytes: bytes = dataclasses.field(repr=False)
  extra_ids: int = 0

  @functools.cached_property
  def fingerprint(self) -> str:
    """sha256 of the model and the number of sentinels."""
    content = self.model_bytes + b"+%d" % self.extra_ids
    return hashlib.sha256(content).hexdigest()

  @functools.cached_property
  def _model(self) -> Any:
    """The model's protocol buffer, sentinels added as seqio adds them."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(self.model_bytes)
    for i in reversed(range(self.extra_ids)):
      user_defined = model.SentencePiece.USER_DEFINED
      model.pieces.add(piece=f"▁<extra_id_{i}>", score=0.0, type=user_defined)
    return model

  @functools.cached_property
  def _processor(self) -> Any:
    import sentencepiece

    model = self._model.SerializeToString()
    return sentencepiece.SentencePieceProcessor(model_proto=model)

  @property
  def num_pieces(self) -> int:
    """How many ids have a piece, sentinels included."""
    return len(self._model.pieces)

  @property
  def size(self) -> int:
    """V, the rows of the embedding table."""
    return table_rows(self.num_pieces)

  @property
  def frame(self) -> Frame:
    """Every text ends in the end of the sentence."""
    end_id = self._processor.eos_id()
    return Frame(end_id, before=(), between=(end_id,))

  @property
  def unk_id(self) -> int:
    """The id of what no piece covers."""
    return self._processor.unk_id()

  @functools.cached_property
  def lexicon(self) -> Lexicon:
    """What augmentations may do.

    They may produce ordinary pieces only: neither padding, end of sentence,
    unknown and other specials, nor sentinels, nor single bytes, nor rows
    without a piece. They leave padding and the end of the sentence.
    """
    ordinary = np.zeros(self.size, bool)
    types = [piece.type for piece in self._model.pieces]
    ordinary[: len(types)] = np.equal(types, self._model.SentencePiece.NORMAL)
    protected = np.isin(np.arange(self.size), (PAD_ID, self.frame.end_id))
    return Lexicon(ordinary, protected)

  def encode(self, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text's pieces, without the end of the sentence."""
    return self._processor.encode(list(texts))

  def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
    """The text of ids, without padding and end of sentence."""
    return self._processor.decode([int(t) for t in tokens])

  def pieces(self, tokens: Sequence[int] | np.ndarray) -> list[str]:
    """The piece of each id, "" for rows without one."""
    return [
      self._processor.id_to_piece(int(t)) if t < self.num_pieces else ""
      for t in tokens
    ]

  def save(self, directory: str | os.PathLike) -> str:
    """Writes `vocab.spm` into a directory; returns its path."""
    return write_vocab(directory, "vocab.spm", self.model_bytes)

  def plain_files(self) -> dict[str, bytes]:
    """spiece.model as it was; vocab.spm, with sentinels where there are any."""
    files = {"spiece.model": self.model_bytes}
    if self.extra_ids:
      files["vocab.spm"] = self._model.SerializeToString()
    return files

  def seqio_vocabulary(self, directory: str | os.PathLike) -> Any:
    """The same vocabulary for seqio, which reads it from a file.

    Args:
      directory: where the file is put; seqio reads it late and may read it
        again, so it must stay.

    Returns:
      A seqio.SentencePieceVocabulary with equal ids.
    """
    import seqio

    path = self.save(os.path.join(directory, f"vocab-{self.fingerprint[:16]}"))
    return seqio.SentencePieceVocabulary(path, extra_ids=self.extra_ids)


def read_vocab(
  model: bytes, source: str | os.PathLike, extra_ids: int | None = None
) -> SentencePieceVocab:
  """Checks a SentencePiece model.

  Args:
    model: the content of its file.
    source: where it comes from, for messages.
    extra_ids: the number of sentinels; by default 100 for T5's own file, else
      none.

  Returns:
    The vocabulary.

  Raises:
    UsageError: if it is no SentencePiece model, or one without padding at id
      0 or without an end of sentence.
  """
  if extra_ids is None:
    t5 = hashlib.sha256(model).hexdigest() == _T5_SHA256
    extra_ids = _T5_SENTINELS if t5 else 0
  vocab = SentencePieceVocab(model, extra_ids)
  try:
    ids = (vocab._processor.pad_id(), vocab.frame.end_id)
  except Exception:  # classes of protobuf and sentencepiece
    raise UsageError(
      f"vocabulary {source} must be a SentencePiece model (.spm, .model), a "
      "tokenizer.json or a vocab.txt."
    ) from None
  if ids[0] != PAD_ID or ids[1] < 0:
    raise UsageError(
      f"vocabulary {source} must have padding at id 0 and an end of sentence, "
      f"got pad_id={ids[0]}, eos_id={ids[1]}; train it with --pad_id=0 "
      "--eos_id=1 --unk_id=2 --bos_id=-1."
    )
  return vocab


def train_vocab(
  texts: Iterable[str], vocab_size: int = 2200
) -> SentencePieceVocab:
  """Trains a unigram vocabulary; the same texts give the same bytes.

  Text is lower-cased and brought to Unicode's NFKC form. Small texts do not
  hold as many pieces as asked for; then there are fewer.

  Args:
    texts: what to train on, in any order that is always the same.
    vocab_size: how many pieces there are at most.

  Returns:
    A vocabulary with padding 0, end of sentence 1, unknown 2.

  Raises:
    UsageError: if the texts cannot be trained on.
  """
  import sentencepiece

  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=(t[:_TRAINED_CHARACTERS] for t in texts),
      model_writer=model,
      vocab_size=vocab_size,
      hard_vocab_limit=False,
      normalization_rule_name="nmt_nfkc_cf",
      character_coverage=1.0,
      byte_fallback=False,
      pad_id=PAD_ID,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      minloglevel=3,
    )
  except (RuntimeError, ValueError, OSError) as error:
    reason = str(error).strip().splitlines()[-1]
    raise UsageError(
      f"no vocabulary could be trained on the training texts ({reason}); "
      "give one with --vocab FILE."
    ) from None
  return SentencePieceVocab(model.getvalue())
