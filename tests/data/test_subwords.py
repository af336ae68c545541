"""WordPiece and BPE: the ids of the library tokenizers, framed by us."""

import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
  decoders,
  models,
  pre_tokenizers,
  processors,
  trainers,
)

from augdistill.data.load import DataConfig, load_data
from augdistill.data.tasks import truncate
from augdistill.data.texts import decode_row, encode_rows
from augdistill.data.vocabulary import Frame, load_vocab
from augdistill.errors import UsageError

TEXTS = [
  "My card has not arrived yet, what should I do?",
  "the exchange rate was wrong",
  "Zoë paid 12.50 € at the café",
  "unbelievably unarrivable [SEP] cards",
]
PIECES = [
  *("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
  *("my", "card", "##s", "has", "not", "arrived", "un", "##arriv", "##able"),
  *("the", "rate", ",", "?", "zoe", "[", "]", "sep", "cafe", "paid", "at"),
]


def bert_like(**config):
  """A tokenizer.json as BERT has one."""
  ids = {piece: i for i, piece in enumerate(PIECES)}
  tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
  tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.decoder = decoders.WordPiece()
  tokenizer.add_special_tokens([p for p in PIECES[:6] if p != "[unused0]"])
  tokenizer.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]",
    pair="[CLS] $A [SEP] $B:1 [SEP]:1",
    special_tokens=[("[CLS]", 3), ("[SEP]", 4)],
  )
  # As saved beside a sentence encoder, whose rows are cut and padded.
  tokenizer.enable_truncation(4)
  tokenizer.enable_padding(length=16)
  return tokenizer


def roberta_like():
  """A byte-level BPE with RoBERTa's template."""
  tokenizer = tokenizers.Tokenizer(models.BPE(unk_token=None))
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=330,
    special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(TEXTS * 3, trainer)
  tokenizer.post_processor = processors.RobertaProcessing(
    ("</s>", 2), ("<s>", 0), add_prefix_space=False
  )
  return tokenizer


KINDS = {"bert": bert_like, "roberta": roberta_like}


@pytest.fixture(params=KINDS)
def both(request, tmp_path):
  """The library's tokenizer, neither cutting nor padding, and ours."""
  theirs = KINDS[request.param]()
  path = tmp_path / "tokenizer.json"
  theirs.save(str(path))
  theirs.no_truncation()
  theirs.no_padding()
  theirs.encode_special_tokens = True
  return theirs, load_vocab(path)


def test_rows_are_those_of_the_library(both):
  theirs, vocab = both
  singles = encode_rows([(text,) for text in TEXTS], vocab, 512, 2)
  pairs = encode_rows([(TEXTS[0], text) for text in TEXTS], vocab, 512, 2)
  for rows, others in ((singles, ()), (pairs, TEXTS[:1])):
    for i, text in enumerate(TEXTS):
      got = rows.tokens[rows.offsets[i] : rows.offsets[i + 1]]
      assert got.tolist() == theirs.encode(*others, text).ids


def test_rows_of_a_task_are_those_of_texts(both, tmp_path):
  _, vocab = both
  lines = ["sentence1\tsentence2\tlabel"]
  lines += [f"{TEXTS[0]}\t{text}\tx{i % 2}" for i, text in enumerate(TEXTS)]
  (tmp_path / "a.tsv").write_text("\n".join(lines) + "\n")
  data = load_data(
    DataConfig(
      train=str(tmp_path / "a.tsv"),
      test=str(tmp_path / "a.tsv"),
      vocab=vocab.save(tmp_path / "vocab"),
      max_length=24,
      cache_dir=str(tmp_path),
    )
  )
  expected = encode_rows([(TEXTS[0], text) for text in TEXTS], vocab, 24, 2)
  np.testing.assert_array_equal(data.test.tokens, expected.tokens)
  np.testing.assert_array_equal(data.test.offsets, expected.offsets)
  assert data.vocab.fingerprint == vocab.fingerprint


def test_long_rows_keep_what_stands_around_texts(both):
  _, vocab = both
  before, between, end = (
    len(vocab.frame.before),
    len(vocab.frame.between),
    vocab.frame.end_id,
  )
  row = vocab.frame.join([[90] * 12, [91] * 5])
  offsets = np.array([0, len(row)])
  cut, _ = truncate(np.array(row, np.int32), offsets, 12, vocab.frame)
  assert cut[-1] == end and tuple(cut[:before]) == vocab.frame.before
  texts = vocab.frame.split(cut)
  room = 12 - before - between - 1
  assert [len(text) for text in texts] == [room - room // 2, room // 2]


def test_a_row_is_split_into_its_texts_again(both):
  _, vocab = both
  for parts in (TEXTS[1:2], TEXTS[1:3], ["", TEXTS[1]], [TEXTS[1], ""], [""]):
    ids = vocab.encode(parts)
    row = np.array([*vocab.frame.join(ids), 0, 0, 0], np.int32)
    assert [text.tolist() for text in vocab.frame.split(row)] == ids
    decoded = tuple(vocab.decode(tokens) for tokens in ids)
    assert decode_row(row, vocab) == decoded


def test_a_separator_in_a_text_ends_nothing(both):
  _, vocab = both
  rows = encode_rows([("the [SEP] </s> rate",)], vocab, 64, 2)
  assert (rows.tokens == vocab.frame.end_id).sum() == 1


def test_only_ordinary_pieces_may_be_produced(both):
  theirs, vocab = both
  allowed = np.flatnonzero(vocab.lexicon.producible)
  ids = theirs.get_vocab()
  forbidden = {"[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
  forbidden |= {"<s>", "<pad>", "</s>", "<unk>", "<mask>"}
  assert not {ids[name] for name in forbidden & set(ids)} & set(allowed)
  assert {ids[name] for name in ("card", "the") if name in ids} <= set(allowed)
  for i in map(
    int, allowed
  ):  # Neither rows without a piece, nor halves of characters.
    assert vocab.pieces([i])[0] and "\ufffd" not in vocab.decode([i])
  assert vocab.size % 8 == 0 and len(vocab.lexicon.protected) == vocab.size
  protected = set(np.flatnonzero(vocab.lexicon.protected))
  frame = vocab.frame
  assert protected == {0, frame.end_id, *frame.before, *frame.between}


def test_pieces_that_continue_a_word_are_known_by_their_mark(tmp_path):
  bert_like().save(str(tmp_path / "tokenizer.json"))
  lexicon = load_vocab(tmp_path).lexicon
  marked = [piece.startswith("##") for piece in PIECES]
  np.testing.assert_array_equal(lexicon.continues[: len(PIECES)], marked)
  roberta_like().save(str(tmp_path / "tokenizer.json"))
  assert load_vocab(tmp_path).lexicon.continues is None


def test_a_vocab_txt_gives_the_same_as_the_tokenizer_json(tmp_path):
  (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
  bert_like().save(str(tmp_path / "other.json"))
  one, other = load_vocab(tmp_path), load_vocab(tmp_path / "other.json")
  assert one.encode(TEXTS) == other.encode(TEXTS)
  assert one.frame == other.frame == Frame(4, (3,), (4,))
  for a, b in zip(one.lexicon, other.lexicon, strict=True):
    np.testing.assert_array_equal(a, b)
  assert one.unk_id == 2
  assert one.fingerprint == other.fingerprint


def test_what_is_written_otherwise_is_the_same_vocabulary(tmp_path):
  old, new = (json.loads(bert_like().to_str()) for _ in range(2))
  del old["model"]["type"]  # as BERT's own file is written
  new |= {"truncation": None, "padding": None}
  specials = {"sep": ["[SEP]", 4], "cls": ["[CLS]", 3]}
  new["post_processor"] = {"type": "BertProcessing", **specials}
  bert_like().save(str(tmp_path / "tokenizer.json"))
  vocab = load_vocab(tmp_path)
  for other in (old, new):
    (tmp_path / "other.json").write_text(json.dumps(other, indent=1))
    found = load_vocab(tmp_path / "other.json")
    assert found.fingerprint == vocab.fingerprint
    assert found.encode(TEXTS) == vocab.encode(TEXTS)
    for a, b in zip(found.lexicon, vocab.lexicon, strict=True):
      np.testing.assert_array_equal(a, b)


def test_what_reads_texts_otherwise_is_another_vocabulary(tmp_path):
  def cased(content):
    content["normalizer"]["lowercase"] = False

  def turned(content):
    ids = content["model"]["vocab"]
    ids["my"], ids["card"] = ids["card"], ids["my"]

  def framed(content):
    for template in ("single", "pair"):
      pieces = content["post_processor"][template]
      pieces.insert(0, pieces[0])

  prints = set()
  for change in (lambda content: None, cased, turned, framed):
    content = json.loads(bert_like().to_str())
    change(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    prints.add(load_vocab(tmp_path).fingerprint)
  assert len(prints) == 4


def test_case_is_kept_where_the_file_beside_says_so(tmp_path):
  (tmp_path / "vocab.txt").write_text("\n".join([*PIECES, "The"]) + "\n")
  lower = load_vocab(tmp_path).encode(["The"])
  config = tmp_path / "tokenizer_config.json"
  config.write_text(json.dumps({"do_lower_case": False}))
  assert lower == [[PIECES.index("the")]]
  assert load_vocab(tmp_path).encode(["The"]) == [[len(PIECES)]]
  config.write_text("[")
  with pytest.raises(UsageError, match=r"tokenizer_config\.json must be"):
    load_vocab(tmp_path)


def test_what_is_saved_is_the_same_vocabulary(both, tmp_path):
  _, vocab = both
  path = vocab.save(tmp_path / "new")
  assert load_vocab(path).fingerprint == vocab.fingerprint
  assert load_vocab(tmp_path / "new").encode(TEXTS) == vocab.encode(TEXTS)


def _without_template():
  tokenizer = bert_like()
  tokenizer.post_processor = processors.TemplateProcessing(
    single="$A", pair="$A $B", special_tokens=[]
  )
  return tokenizer


def _with_a_word_first():
  return tokenizers.Tokenizer(
    models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]")
  )


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("tokenizer.json", "{}", "must be a tokenizer.json of the library"),
    ("tokenizer.json", "not json", "must be a tokenizer.json of the library"),
    ("tokenizer.json", _without_template, "a special token behind every text"),
    ("tokenizer.json", _with_a_word_first, "a special token behind every text"),
    ("vocab.txt", "my\ncard\n", r"has no \[PAD\], \[UNK\], \[CLS\], \[SEP\]"),
    ("vocab.txt", b"\xff\xfe", "must be in UTF-8"),
    ("notes", "x", "the directory must have one of"),
  ],
)
def test_what_is_no_vocabulary_is_told(tmp_path, name, content, message):
  if callable(content):
    content = content().to_str()
  content = content if isinstance(content, bytes) else content.encode()
  (tmp_path / name).write_bytes(content)
  path = tmp_path if name == "notes" else tmp_path / name
  with pytest.raises(UsageError, match=message):
    load_vocab(path)


def test_an_ordinary_piece_must_not_stand_for_padding(tmp_path):
  content = json.loads(bert_like().to_str())
  content["added_tokens"] = [
    token for token in content["added_tokens"] if token["id"]
  ]
  (tmp_path / "tokenizer.json").write_text(json.dumps(content))
  with pytest.raises(UsageError, match=r"special token at id 0.*'\[PAD\]'"):
    load_vocab(tmp_path)


def changed(tmp_path, *path, value):
  """bert_like's file with one of its values replaced."""
  content = json.loads(bert_like().to_str())
  place = content
  for key in path[:-1]:
    place = place[key]
  place[path[-1]] = value
  file = tmp_path / "tokenizer.json"
  file.write_text(json.dumps(content))
  return file


def test_an_id_far_from_the_others_asks_for_no_rows(tmp_path):
  file = changed(tmp_path, "model", "vocab", "paid", value=4_000_000_000)
  with pytest.raises(UsageError, match="without large gaps, got id 4,000,000,"):
    load_vocab(file)


def test_what_stands_around_texts_is_of_the_vocabulary(tmp_path):
  path = "post_processor", "special_tokens", "[SEP]", "ids"
  file = changed(tmp_path, *path, value=[99])
  with pytest.raises(
    UsageError, match="pieces of its own around texts, got id"
  ):
    load_vocab(file)


def test_a_library_that_panics_is_no_crash(tmp_path):
  file = changed(tmp_path, "post_processor", "special_tokens", value={})
  with pytest.raises(UsageError, match=r"must be a tokenizer\.json of the lib"):
    load_vocab(file)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_tokenizer_is_an_error_of_use_or_reads(
  tmp_path_factory, data
):
  file = tmp_path_factory.getbasetemp() / "damaged_tokenizer.json"
  content = bytearray(bert_like().to_str().encode())
  for _ in range(data.draw(st.integers(0, 3))):
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
  if data.draw(st.booleans()):
    content = content[: data.draw(st.integers(0, len(content)))]
  file.write_bytes(content)
  try:
    vocab = load_vocab(file)
  except UsageError:
    return
  assert vocab.encode(TEXTS) and len(vocab.lexicon.producible) == vocab.size


@pytest.mark.parametrize(
  "name", ["do_lower_case", "strip_accents", "tokenize_chinese_chars"]
)
def test_what_stands_beside_a_vocab_txt_is_true_or_false(tmp_path, name):
  (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
  config = tmp_path / "tokenizer_config.json"
  config.write_text(json.dumps({name: "yes"}))
  with pytest.raises(UsageError, match=f"{name} of true or false, got 'yes'"):
    load_vocab(tmp_path)
  whole = load_vocab_without(config, tmp_path)
  config.write_text(json.dumps({name: None}))
  assert load_vocab(tmp_path).encode(TEXTS) == whole.encode(TEXTS)
  config.write_text("[" * 100_000)
  with pytest.raises(UsageError, match=r"tokenizer_config\.json must be"):
    load_vocab(tmp_path)


def load_vocab_without(config, directory):
  config.unlink()
  return load_vocab(directory)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_piece_may_hold_what_unicode_breaks_lines_at(tmp_path, end):
  pieces = (*PIECES, "a\u2028b", "\x85", "last")
  (tmp_path / "vocab.txt").write_bytes(end.join(pieces).encode())
  vocab = load_vocab(tmp_path)
  assert vocab.pieces(range(len(pieces))) == list(pieces)
