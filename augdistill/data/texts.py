"""Texts without a data set around them: to tokens, and back."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from augdistill.data.dataset import Examples
from augdistill.data.tasks import truncate
from augdistill.data.vocabulary import Vocab


def encode_rows(
  texts: Sequence[tuple[str, ...]],
  vocab: Vocab,
  max_length: int,
  num_outputs: int,
) -> Examples:
  """Rows without labels, tokenised as a data set's are.

  Args:
    texts: per row one text, or two for pairs.
    vocab: makes the tokens.
    max_length: the most tokens of a row.
    num_outputs: C, of the model that will read them.

  Returns:
    N rows, numbered from 0.
  """
  rows = [vocab.frame.join(vocab.encode(parts)) for parts in texts]
  flat = np.array([t for row in rows for t in row], np.int32)
  offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
  flat, offsets = truncate(flat, offsets, max_length, vocab.frame)
  n = len(texts)
  return Examples(
    tokens=flat,
    offsets=offsets,
    label=np.zeros((n, num_outputs), np.float32),
    has_label=np.zeros(n, bool),
    example_id=np.arange(n, dtype=np.int32),
    read_texts=lambda: list(texts),
  )


def read_again(examples: Examples, vocab: Vocab, max_length: int) -> Examples:
  """The same rows and labels, tokenised with another vocabulary.

  Args:
    examples: the rows, with their texts.
    vocab: makes the tokens.
    max_length: the most tokens of a row.
  """
  rows = encode_rows(examples.texts, vocab, max_length, examples.label.shape[1])
  return dataclasses.replace(examples, tokens=rows.tokens, offsets=rows.offsets)


def decode_row(tokens: np.ndarray, vocab: Vocab) -> tuple[str, ...]:
  """The texts of a row, as a model reads them; the inverse of `encode_rows`.

  Args:
    tokens: i32[L] of one row, with what stands around texts; what follows
      that, padding, is left out.
    vocab: made the tokens.

  Returns:
    One text, or two for pairs; "" for one of which nothing is left.
  """
  return tuple(map(vocab.decode, vocab.frame.split(tokens)))
