"""Small data, made here."""

import numpy as np
import pytest

from augdistill.data.dataset import Examples
from augdistill.data.sentence_pieces import train_vocab

TEXTS = (
  "the cat sat on the mat",
  "a dog ran over the hill",
  "my card has not arrived",
  "where is the new card",
  "the weather is fine today",
)


@pytest.fixture(scope="session")
def texts():
  """A few short texts."""
  return TEXTS


@pytest.fixture(scope="session")
def vocab():
  """A vocabulary of a few dozen pieces."""
  return train_vocab(TEXTS * 3, vocab_size=60)


@pytest.fixture
def write(tmp_path):
  """Writes a file and returns its path."""

  def write_file(name, content):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
      content = content.encode()
    path.write_bytes(content)
    return str(path)

  return write_file


@pytest.fixture
def make_examples():
  """Makes rows by hand: (lengths, labels) -> Examples of token 10 i + j."""

  def make(lengths, labels, num_classes=None):
    n = len(lengths)
    label = np.eye(num_classes or max(labels) + 1, dtype=np.float32)[labels]
    tokens = [10 * i + j for i in range(n) for j in range(lengths[i])]
    return Examples(
      tokens=np.array(tokens, np.int32),
      offsets=np.cumsum([0, *lengths]),
      label=label,
      has_label=np.ones(n, bool),
      example_id=np.arange(n, dtype=np.int32),
      read_texts=lambda: [(f"text {i} é",) for i in range(n)],
    )

  return make
