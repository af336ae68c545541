"""Files as seqio Tasks, and rows that are too long."""

import itertools

import numpy as np
import pytest

from augdistill.data.files import Table
from augdistill.data.tasks import (
  import_seqio,
  read_tokens,
  register_file_task,
  truncate,
)
from augdistill.data.texts import encode_rows
from augdistill.data.vocabulary import Frame

_EOS = 1
_T5 = Frame(_EOS, before=(), between=(_EOS,))


def _cut(rows, max_length):
  tokens = np.array([t for row in rows for t in row], np.int32)
  offsets = np.cumsum([0, *map(len, rows)])
  tokens, offsets = truncate(tokens, offsets, max_length, _T5)
  assert tokens.dtype == np.int32
  return [tokens[a:b].tolist() for a, b in itertools.pairwise(offsets)]


@pytest.mark.parametrize(
  ("row", "cut"),
  [
    ([5, 6, 7, 1], [5, 6, 7, 1]),
    ([5, 6, 7, 8, 9, 10, 1], [5, 6, 7, 8, 9, 1]),
    ([5, 6, 7, 8, 1, 9, 1], [5, 6, 7, 1, 9, 1]),  # the longer one is cut
    ([5, 1, 6, 7, 8, 9, 10, 1], [5, 1, 6, 7, 8, 1]),
    ([5, 6, 7, 8, 1, 9, 10, 11, 1], [5, 6, 1, 9, 10, 1]),  # then both
    ([5, 6, 7, 1, 9, 10, 11, 1], [5, 6, 1, 9, 10, 1]),
  ],
)
def test_long_rows_are_cut_to_length_and_keep_their_ends(row, cut):
  assert _cut([[5, 1], row, [6, 1]], 6) == [[5, 1], cut, [6, 1]]


def test_of_two_texts_as_long_the_second_is_cut_first():
  row = [5, 6, 7, 8, 1, 9, 10, 11, 12, 1]
  assert _cut([row], 7) == [[5, 6, 7, 1, 9, 10, 1]]


def _table(texts, labels=None):
  return Table("a.tsv", texts, labels, list(range(2, len(texts) + 2)))


def test_files_become_a_task_that_any_seqio_program_can_read(vocab, tmp_path):
  pairs = [("the cat", "a dog"), ("my card", "the weather is fine")]
  splits = {
    "train": _table(pairs, ["x", ("y", "z")]),
    "unlabeled": _table(pairs[:1]),
  }
  name = register_file_task("my file/1", splits, vocab, tmp_path)
  assert name == register_file_task("my file/1", splits, vocab, tmp_path)
  task = import_seqio().get_mixture_or_task(name)
  assert set(task.splits) == {"train", "unlabeled"}
  rows = list(task.get_dataset(None, "train", shuffle=False))
  for row, pair in zip(rows, pairs, strict=True):
    first, second = vocab.encode(pair)
    assert row["inputs"].numpy().tolist() == [*first, _EOS, *second, _EOS]
    assert row["sentence2"].numpy().decode() == pair[1]
  assert [row["label"].numpy() for row in rows] == [b"x", b'["y", "z"]']
  (row,) = task.get_dataset(None, "unlabeled", shuffle=False)
  assert row["label"].numpy() == b""


def test_other_contents_are_another_task(vocab, tmp_path):
  names = {
    register_file_task("a", {"train": _table([(text,)], ["x"])}, v, tmp_path)
    for text in ("one", "two")
    for v in (vocab, type(vocab)(vocab.model_bytes, extra_ids=3))
  }
  assert len(names) == 4


def test_tensorflow_and_python_make_the_same_tokens(vocab, texts, tmp_path):
  odd = ["", " ", "  two  blanks ", "Ünïcödé ☃ ﬁ", "tab\tnew\nline", "</s>"]
  rows = [(t,) for t in (*texts, *odd)]
  name = register_file_task("a", {"train": _table(rows)}, vocab, tmp_path)
  tokens, offsets = read_tokens(name, "train")
  expected = encode_rows(rows, vocab, 128, num_outputs=2)
  np.testing.assert_array_equal(tokens, expected.tokens)
  np.testing.assert_array_equal(offsets, expected.offsets)
  assert tokens.dtype == np.int32
