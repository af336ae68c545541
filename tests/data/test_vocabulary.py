"""The vocabulary: rows of the table, and what may be produced."""

import os

import numpy as np
import pytest
import sentencepiece

from augdistill.data.sentence_pieces import SentencePieceVocab, train_vocab
from augdistill.data.vocabulary import load_vocab
from augdistill.errors import UsageError


def test_ids_are_t5s_and_text_is_lower_cased(vocab):
  assert (vocab.frame.end_id, vocab.unk_id) == (1, 2)
  upper, lower = vocab.encode(["The CAT sat", "the cat sat"])
  assert upper == lower
  assert vocab.decode([*lower, vocab.frame.end_id, 0, 0]) == "the cat sat"


def test_the_table_has_a_multiple_of_8_rows(vocab):
  assert vocab.size % 8 == 0
  assert vocab.num_pieces <= vocab.size < vocab.num_pieces + 8


def test_only_ordinary_pieces_may_be_produced(vocab):
  allowed = np.flatnonzero(vocab.lexicon.producible)
  assert len(vocab.lexicon.producible) == vocab.size
  assert set(range(vocab.size)) - set(allowed) == {
    *(0, vocab.frame.end_id, vocab.unk_id),
    *range(vocab.num_pieces, vocab.size),
  }
  assert vocab.pieces([vocab.size - 1, 1]) == [
    "" if vocab.size > vocab.num_pieces else vocab.pieces([vocab.size - 1])[0],
    "</s>",
  ]


def test_specials_bytes_and_markers_are_never_produced(tmp_path, texts):
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts * 3),
    model_prefix=str(tmp_path / "m"),
    vocab_size=320,
    byte_fallback=True,
    hard_vocab_limit=False,
    user_defined_symbols=["<sep>"],
    control_symbols=["<ctl>"],
    normalization_rule_name="identity",
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=3,
    minloglevel=3,
  )
  vocab = load_vocab(tmp_path / "m.model")
  pieces = vocab.pieces(range(vocab.size))
  special = {"<pad>", "</s>", "<unk>", "<s>", "<sep>", "<ctl>", ""}
  for piece, allowed in zip(pieces, vocab.lexicon.producible, strict=True):
    assert allowed == (piece not in special and not piece.startswith("<0x"))


def test_padding_and_the_end_are_protected(vocab):
  np.testing.assert_array_equal(np.flatnonzero(vocab.lexicon.protected), [0, 1])


def test_sentinels_have_rows_but_are_never_produced(vocab, texts):
  more = SentencePieceVocab(vocab.model_bytes, extra_ids=10)
  assert more.num_pieces == vocab.num_pieces + 10
  assert more.pieces([vocab.num_pieces]) == ["▁<extra_id_9>"]
  np.testing.assert_array_equal(
    np.flatnonzero(more.lexicon.producible),
    np.flatnonzero(vocab.lexicon.producible),
  )
  assert more.fingerprint != vocab.fingerprint
  assert more.encode(texts) == vocab.encode(texts)


def test_training_twice_gives_the_same_bytes(texts):
  first, second = train_vocab(texts, 60), train_vocab(iter(texts), 60)
  assert first.model_bytes == second.model_bytes
  assert first.fingerprint == second.fingerprint
  assert train_vocab(texts[:3], 60).fingerprint != first.fingerprint


def test_a_small_text_makes_a_small_vocabulary(capfd):
  assert train_vocab(["hi"], 2200).num_pieces < 10
  assert capfd.readouterr().err == ""


def test_a_very_long_text_is_trained_on_too():
  vocab = train_vocab(["some words " * 5000])
  assert vocab.unk_id not in vocab.encode(["words some"])[0]


def test_nothing_to_train_on_is_a_usage_error():
  with pytest.raises(UsageError, match="--vocab"):
    train_vocab([" "])


def test_a_saved_vocabulary_is_loaded_again(vocab, tmp_path):
  path = vocab.save(tmp_path / "new" / "vocab")
  assert path == str(tmp_path / "new" / "vocab" / "vocab.spm")
  assert os.listdir(tmp_path / "new" / "vocab") == ["vocab.spm"]
  assert load_vocab(path).fingerprint == vocab.fingerprint


def test_a_file_that_is_no_vocabulary_is_refused(write, tmp_path):
  for path in (write("a.spm", b"text"), write("b.spm", b""), str(tmp_path)):
    with pytest.raises(UsageError, match=path):
      load_vocab(path)
  with pytest.raises(UsageError, match="nowhere"):
    load_vocab("nowhere.spm")


def test_a_vocabulary_without_padding_at_0_is_refused(tmp_path, texts):
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts * 3),
    model_prefix=str(tmp_path / "m"),
    vocab_size=40,
    hard_vocab_limit=False,
    minloglevel=3,
  )
  with pytest.raises(UsageError, match=r"pad_id=-1.*--pad_id=0"):
    load_vocab(tmp_path / "m.model")


def test_t5s_file_gets_100_sentinels_and_32128_rows(shared_data):
  vocab = load_vocab(os.path.join(shared_data, "data", "vocab", "t5.spm"))
  assert (vocab.num_pieces, vocab.size) == (32_100, 32_128)
  assert vocab.lexicon.producible.sum() == 32_000 - 3
  text = "translate English to German: The house is wonderful."
  expected = [13959, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5]
  assert vocab.encode([text]) == [expected]
  assert vocab.encode(["x <extra_id_0>"])[0][-1] == 32_099
