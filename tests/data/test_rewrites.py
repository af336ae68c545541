"""Files of rewrites: what is read, what is refused, what belongs to what."""

import json

import numpy as np
import pytest

from augdistill.data.rewrites import (
  bare,
  join_rewrites,
  read_rewrites,
  rewrite_lines,
)
from augdistill.data.texts import decode_row, encode_rows
from augdistill.errors import UsageError


def jsonl(*rows):
  return "".join(json.dumps(row) + "\n" for row in rows)


# --- reading -----------------------------------------------------------------


def test_a_jsonl_file_holds_a_list_per_text(write):
  path = write(
    "r.jsonl",
    jsonl(
      {"sentence": "the cat", "rewrites": ["a cat", "the\tdog"]},
      {"sentence": "nothing", "rewrites": []},
      {"sentence": " the  cat", "rewrites": ["one cat"], "model": "x"},
    ),
  )
  assert read_rewrites(path, pair=False) == {
    ("the cat",): [("a cat",), ("the\tdog",), ("one cat",)],
    ("nothing",): [],
  }


def test_pairs_are_lists_of_two(write):
  row = {"sentence1": "a", "sentence2": "b", "rewrites": [["c", "d"]]}
  path = write("r.jsonl", jsonl(row))
  assert read_rewrites(path, pair=True) == {("a", "b"): [("c", "d")]}


def test_a_table_holds_a_rewrite_per_line(write):
  path = write("r.tsv", "rewrite\tsentence\na cat\tthe cat\nmy cat\tthe cat\n")
  assert read_rewrites(path, pair=False) == {
    ("the cat",): [("a cat",), ("my cat",)]
  }
  path = write("r.csv", 'sentence,rewrite\n"a, b","b, a"\n')
  assert read_rewrites(path, pair=False) == {("a, b",): [("b, a",)]}


def test_a_table_of_pairs_has_four_columns(write):
  header = "sentence1\tsentence2\trewrite1\trewrite2\n"
  path = write("r.tsv", header + "a\tb\tc\td\n")
  assert read_rewrites(path, pair=True) == {("a", "b"): [("c", "d")]}


@pytest.mark.parametrize("pair", [False, True])
def test_what_is_written_is_read_again(write, pair):
  text, new = (("ä b", "x"), ("c\n", '"d"')) if pair else (("ä b",), ("c\n",))
  lines = list(rewrite_lines([(text, [new, text]), (text[::-1], [])]))
  assert len(lines) == 2
  path = write("r.jsonl", "".join(lines))
  found = read_rewrites(path, pair)
  assert found[text] == [new, text]


WRONG = {
  "no_column": (
    "r.tsv",
    "sentence\tother\na\tb\n",
    False,
    ["rewrite", "other"],
  ),
  "single_not_pairs": (
    "r.tsv",
    "sentence\trewrite\na\tb\n",
    True,
    ["pairs of texts", "sentence1, sentence2, rewrite1, rewrite2"],
  ),
  "pairs_not_single": (
    "r.jsonl",
    jsonl({"sentence1": "a", "sentence2": "b", "rewrites": []}),
    False,
    ["single texts", "columns sentence, rewrites", "without sentence"],
  ),
  "empty": (
    "r.tsv",
    "sentence\trewrite\na\t \n",
    False,
    ["line 2", "'rewrite'"],
  ),
  "empty_original": (
    "r.tsv",
    "sentence\trewrite\n\tb\n",
    False,
    ["line 2", "'sentence'"],
  ),
  "no_list": (
    "r.jsonl",
    jsonl(
      {"sentence": "a", "rewrites": ["b"]}, {"sentence": "a", "rewrites": "b"}
    ),
    False,
    ["line 2, column 'rewrites': must be a list of texts", '"b"'],
  ),
  "missing_list": (
    "r.jsonl",
    jsonl({"sentence": "a", "rewrites": ["b"]}, {"sentence": "a"}),
    False,
    ["line 2, column 'rewrites'", "null"],
  ),
  "blank_in_list": (
    "r.jsonl",
    jsonl({"sentence": "a", "rewrites": ["b", " "]}),
    False,
    ["line 1, column 'rewrites'", "none of them empty"],
  ),
  "no_pairs_in_list": (
    "r.jsonl",
    jsonl({"sentence1": "a", "sentence2": "b", "rewrites": ["b"]}),
    True,
    ["must be a list of pairs of texts"],
  ),
  "missing_file": (None, None, False, ["does not exist"]),
  "other_format": ("r.txt", "a", False, [".tsv, .csv, .jsonl"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_with_its_place(write, tmp_path, case):
  name, content, pair, said = WRONG[case]
  path = write(name, content) if name else str(tmp_path / "none.jsonl")
  with pytest.raises(UsageError) as caught:
    read_rewrites(path, pair)
  message = str(caught.value)
  assert "\n" not in message
  assert path in message
  for words in said:
    assert words in message, message


# --- joining -----------------------------------------------------------------


def join(texts, rewrites, vocab, max_length=16):
  return join_rewrites(texts, rewrites, "r.tsv", vocab, max_length)


def test_rewrites_belong_to_the_rows_of_their_text_but_for_white_space(vocab):
  rewrites = {
    ("the cat",): [("a dog",), ("my card",)],
    ("the hill",): [("the mat",)],
    ("unknown",): [("lost",)],
  }
  texts = [("a dog",), (" the   cat",), ("the hill",), ("the cat",)]
  found, note = join(texts, rewrites, vocab)
  assert found.offsets.tolist() == [0, 0, 2, 3, 5]
  assert found.counts.tolist() == [0, 2, 1, 2]
  assert found.examples.texts == [
    *(("a dog",), ("my card",), ("the mat",), ("a dog",), ("my card",))
  ]
  want = [
    len(vocab.encode([t])[0]) + 1 for t in ("a dog", "my card", "the mat")
  ]
  longest = max(want[:2])
  assert found.lengths.tolist() == [0, longest, want[2], longest]
  assert note == (
    "r.tsv: 5 rewrites of 3 of 4 rows; 1 of its 3 texts are of none"
  )


def test_letters_case_is_part_of_a_text(vocab):
  assert bare(("The  Cat\n",)) == ("The Cat",)
  with pytest.raises(UsageError):
    join([("the cat",)], {("The cat",): [("a dog",)]}, vocab)


def test_where_all_fit_nothing_is_said_of_others(vocab):
  _, note = join([("the cat",)], {("the cat",): [("a dog",)]}, vocab)
  assert note == "r.tsv: 1 rewrites of 1 of 1 rows"


def test_rewrites_of_no_row_are_refused_with_both_wordings(vocab):
  with pytest.raises(UsageError) as caught:
    join(
      [("the cat",), ("the mat",)],
      {("a dog",): [("the mat",)], ("my card",): []},
      vocab,
    )
  message = str(caught.value)
  for words in (
    "r.tsv",
    "its 2 texts 0 are among the 2",
    "'a dog'",
    "'the cat'",
  ):
    assert words in message, message
  with pytest.raises(UsageError):  # its texts match, but have no rewrites
    join([("my card",)], {("my card",): []}, vocab)


def test_long_rewrites_are_cut_as_texts_are(vocab):
  long = ("the cat sat on the mat the cat sat on the mat",)
  found, _ = join([("the cat",)], {("the cat",): [long]}, vocab, max_length=8)
  assert found.lengths.tolist() == [8]
  assert found.examples.tokens[-1] == vocab.frame.end_id


def test_the_fingerprint_is_of_the_rewrites_and_of_whose_they_are(vocab):
  texts = [("the cat",), ("the mat",)]
  one = {("the cat",): [("a dog",)], ("the mat",): [("my card",)]}
  other = {("the cat",): [("a dog",), ("my card",)]}
  prints = {
    join(*what, vocab)[0].fingerprint
    for what in ((texts, one), (texts, other), (texts[::-1], one))
  }
  assert len(prints) == 3
  assert join(texts, dict(one), vocab)[0].fingerprint in prints


# --- back to texts -----------------------------------------------------------


@pytest.mark.parametrize(
  "texts", [("the cat sat",), ("the cat sat", "a dog ran"), ("the cat", "")]
)
def test_a_row_is_decoded_to_its_texts(vocab, texts):
  tokens = encode_rows([texts], vocab, 32, 1).tokens
  padded = np.concatenate([tokens, np.zeros(3, np.int32)])
  assert decode_row(padded, vocab) == texts
