"""What may be wrong with a data set, in numbers.

Two rows have one text where they differ in nothing but case and white space.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from augdistill.data.dataset import Examples
from augdistill.data.vocabulary import Vocab

# Rows whose tokens are counted anew; an even sample of more is as good.
_COUNTED = 20_000


class Lengths(NamedTuple):
  """How long the texts of some rows are.

  Attributes:
    tokens: i64[N], the tokens of each row before it is cut.
    max_length: where it is cut.
  """

  tokens: np.ndarray
  max_length: int

  @property
  def share_cut(self) -> float:
    """The share of the rows that are longer than `max_length`."""
    return float(np.mean(self.tokens > self.max_length))

  def histogram(
    self, bins: int = 10
  ) -> tuple[Int[np.ndarray, " bins"], Float[np.ndarray, " edges"]]:
    """Rows in bins of equal width, from 0 to the longest, and the edges."""
    return np.histogram(self.tokens, bins, (0, self.tokens.max()))


def same_text(texts: tuple[str, ...]) -> tuple[str, ...]:
  """A row's texts without what does not make them others."""
  return tuple(" ".join(text.casefold().split()) for text in texts)


def repeated(examples: Examples) -> Bool[np.ndarray, " N"]:
  """Rows whose text stands in an earlier row already."""
  seen: set[tuple[str, ...]] = set()
  again = np.zeros(len(examples), bool)
  for row, texts in enumerate(map(same_text, examples.texts)):
    again[row] = texts in seen
    seen.add(texts)
  return again


def contradicted(examples: Examples) -> Bool[np.ndarray, " N"]:
  """Labelled rows whose text has another label in another row."""
  labels: dict[tuple[str, ...], set[bytes]] = {}
  rows = [
    (same_text(texts), label.tobytes()) if has_label else None
    for texts, label, has_label in zip(
      examples.texts, examples.label, examples.has_label, strict=True
    )
  ]
  for row in filter(None, rows):
    labels.setdefault(row[0], set()).add(row[1])
  return np.array([row is not None and len(labels[row[0]]) > 1 for row in rows])


def leaked(train: Examples, held_out: Examples) -> Bool[np.ndarray, " N"]:
  """Rows of `held_out` whose text is among those of `train`."""
  learnt = {same_text(texts) for texts in train.texts}
  return np.array([same_text(texts) in learnt for texts in held_out.texts])


def lengths(examples: Examples, vocab: Vocab, max_length: int) -> Lengths:
  """How many tokens the rows have, of an even sample if there are very many."""
  rows = np.unique(
    np.linspace(0, len(examples) - 1, min(len(examples), _COUNTED)).astype(int)
  )
  counts = [
    len(vocab.frame.join(vocab.encode(examples.texts[row]))) for row in rows
  ]
  return Lengths(np.array(counts, np.int64), max_length)


def unknown_share(examples: Examples, vocab: Vocab) -> float:
  """The share of the tokens that no piece of the vocabulary covers."""
  return float(np.mean(np.asarray(examples.tokens) == vocab.unk_id))


def class_counts(examples: Examples, num_classes: int) -> Int[np.ndarray, " C"]:
  """How many labelled rows each class has."""
  classes = np.argmax(examples.label[examples.has_label], axis=-1)
  return np.bincount(classes, minlength=num_classes)


def most_repeated(examples: Examples, count: int = 3) -> list[str]:
  """The texts that stand in the most rows, those of two rows or more."""
  tally = Counter(map(same_text, examples.texts))
  return [" / ".join(texts) for texts, n in tally.most_common(count) if n > 1]
