"""Planted faults of data sets are counted."""

import numpy as np

from augdistill.data import quality
from augdistill.data.dataset import Examples


def examples(rows, classes=3):
  """Rows of (text or texts, class or None)."""
  texts = [(t,) if isinstance(t, str) else t for t, _ in rows]
  label = np.array([np.eye(classes)[c or 0] for _, c in rows], np.float32)
  return Examples(
    tokens=np.zeros(0, np.int32),
    offsets=np.zeros(len(rows) + 1, np.int64),
    label=label,
    has_label=np.array([c is not None for _, c in rows]),
    example_id=np.arange(len(rows), dtype=np.int32),
    read_texts=lambda: texts,
  )


TRAIN = examples(
  [
    ("the cat", 0),
    ("a dog", 1),
    ("The  CAT ", 0),
    ("a dog", 2),
    ("a fish", None),
    ("a fish", 2),
    ("the cat", 0),
  ]
)


def test_repeated_rows_are_those_after_the_first():
  expected = [False, False, True, True, False, True, True]
  np.testing.assert_array_equal(quality.repeated(TRAIN), expected)


def test_contradicted_rows_have_a_text_with_two_labels():
  expected = [False, True, False, True, False, False, False]
  np.testing.assert_array_equal(quality.contradicted(TRAIN), expected)


def test_leaked_rows_have_a_text_of_the_training_rows():
  test = examples([("THE cat", 1), ("the cats", 0), ("a dog", 1)])
  expected = [True, False, True]
  np.testing.assert_array_equal(quality.leaked(TRAIN, test), expected)


def test_pairs_are_the_same_only_as_pairs():
  rows = examples([(("a", "b"), 0), (("b", "a"), 0), (("A ", "b"), 0)])
  expected = [False, False, True]
  np.testing.assert_array_equal(quality.repeated(rows), expected)


def test_the_most_repeated_texts_come_first():
  assert quality.most_repeated(TRAIN) == ["the cat", "a dog", "a fish"]
  assert quality.most_repeated(TRAIN, 1) == ["the cat"]
  assert quality.most_repeated(examples([("a", 0), ("b", 0)])) == []


def test_classes_are_counted_over_labelled_rows():
  counts = quality.class_counts(TRAIN, 4)
  np.testing.assert_array_equal(counts, [3, 1, 2, 0])


def test_lengths_are_those_before_rows_are_cut(vocab, texts):
  rows = examples([(t, 0) for t in texts])
  expected = [len(vocab.encode([t])[0]) + 1 for t in texts]
  found = quality.lengths(rows, vocab, max_length=14)
  np.testing.assert_array_equal(found.tokens, expected)
  assert found.share_cut == np.mean(np.array(expected) > 14)
  assert 0 < found.share_cut < 1
  counts, edges = found.histogram(4)
  assert counts.sum() == len(texts)
  assert edges[-1] == max(expected)
  pairs = examples([((texts[0], texts[1]), 0)])
  both = quality.lengths(pairs, vocab, max_length=9).tokens
  np.testing.assert_array_equal(both, [expected[0] + expected[1]])


def test_of_very_many_rows_an_even_sample_is_counted(vocab, monkeypatch):
  monkeypatch.setattr(quality, "_COUNTED", 10)
  rows = examples([("cat " * (i + 1), 0) for i in range(100)])
  found = quality.lengths(rows, vocab, 9)
  assert len(found.tokens) == 10
  assert found.tokens[0] < found.tokens[5] < found.tokens[-1]


def test_unknown_tokens_are_counted(vocab):
  known, unknown = vocab.encode(["cat"])[0], vocab.encode(["猫"])[0]
  assert vocab.unk_id in unknown
  tokens = np.array(known + unknown, np.int32)
  rows = examples([("cat 猫", 0)])
  rows = Examples(
    tokens=tokens,
    offsets=np.array([0, len(tokens)]),
    label=rows.label,
    has_label=rows.has_label,
    example_id=rows.example_id,
    read_texts=rows.read_texts,
  )
  share = quality.unknown_share(rows, vocab)
  assert share == np.mean(tokens == vocab.unk_id) > 0
