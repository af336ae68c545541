"""The embedded data set: its files, its counts, and no leak into the test."""

import collections
import hashlib
import importlib.resources
import re

import pytest

FOLDER = importlib.resources.files("augdistill.data") / "helpdesk"
SPLITS = ("train", "validation", "test")
NUM_INTENTS = 20


def read(split):
  """The (sentence, label) rows of a split."""
  lines = (FOLDER / f"{split}.tsv").read_text("utf-8").split("\n")
  assert lines[0] == "sentence\tlabel"
  assert lines[-1] == ""
  return [tuple(line.split("\t")) for line in lines[1:-1]]


def character_sequences(sentence):
  text = " ".join(re.sub(r"[^a-z0-9 ]", "", sentence.lower()).split())
  return {text[k : k + 4] for k in range(max(1, len(text) - 3))}


def words(sentence):
  return set(re.findall(r"[a-z0-9']+", sentence.lower()))


def near_duplicates(ours, others):
  """Pairs of sentences whose sets of parts have a high Jaccard similarity."""
  pairs = set()
  for parts, threshold in ((character_sequences, 0.55), (words, 0.65)):
    other_parts = [parts(sentence) for sentence in others]
    having = collections.defaultdict(list)
    for row, their_parts in enumerate(other_parts):
      for part in their_parts:
        having[part].append(row)
    for sentence in ours:
      own = parts(sentence)
      shared = collections.Counter()
      for part in own:
        shared.update(having.get(part, ()))
      for row, both in shared.items():
        if both >= threshold * (len(own) + len(other_parts[row]) - both):
          pairs.add((sentence, others[row]))
  return pairs


def test_there_are_enough_sentences_and_test_rows():
  counts = {split: len(read(split)) for split in SPLITS}
  assert sum(counts.values()) >= 3000
  assert counts["test"] >= 1000
  assert counts["validation"] >= 200


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_has_all_intents_about_equally_often(split):
  counts = collections.Counter(label for _, label in read(split))
  assert len(counts) == NUM_INTENTS
  assert min(counts.values()) >= 0.9 * max(counts.values())


@pytest.mark.parametrize("split", SPLITS)
def test_a_row_is_one_clean_sentence_and_one_label(split):
  for row in read(split):
    assert len(row) == 2, row
    sentence, label = row
    assert sentence == " ".join(sentence.split()), row
    assert 0 < len(sentence) <= 220, row
    assert sentence.isascii() and sentence.isprintable(), row
    assert re.fullmatch("[a-z_]+", label), row


@pytest.mark.parametrize("split", SPLITS)
def test_the_order_of_rows_depends_on_no_label(split):
  keys = [hashlib.sha256(s.encode()).hexdigest() for s, _ in read(split)]
  assert keys == sorted(keys)


def test_no_sentence_stands_twice():
  sentences = [sentence for split in SPLITS for sentence, _ in read(split)]
  assert len(set(sentences)) == len(sentences)


def test_the_hard_rows_are_rows_of_the_test_of_every_intent():
  hard = read("test_hard")
  assert len(hard) >= 300
  assert len({label for _, label in hard}) == NUM_INTENTS
  assert set(hard) <= set(read("test"))


def test_no_test_row_is_a_near_duplicate_of_a_row_to_learn_from():
  learnt = [s for split in ("train", "validation") for s, _ in read(split)]
  assert not near_duplicates([s for s, _ in read("test")], learnt)


@pytest.mark.parametrize(
  "sentence",
  [
    "Please reset my pasword, it has expired",
    "please reset my password it has expired today",
    "It has expired: reset my password please",
  ],
)
def test_the_search_finds_a_near_duplicate(sentence):
  known = ["Please reset my password, it has expired.", "The wifi is down"]
  assert near_duplicates([sentence], known) == {(sentence, known[0])}


def test_the_search_leaves_another_request_with_the_same_words_alone():
  known = ["Please reset my password, it has expired."]
  assert not near_duplicates(["My badge has expired, please extend it"], known)


def test_the_counts_in_the_readme_are_true():
  text = (FOLDER / "README.md").read_text("utf-8")
  files = (*SPLITS, "test_hard")
  counts = {
    f: collections.Counter(label for _, label in read(f)) for f in files
  }
  for label in counts["train"]:
    row = " | ".join([label] + [str(counts[f][label]) for f in files])
    assert f"| {row} |" in text
  totals = " | ".join(str(sum(counts[f].values())) for f in files)
  assert f"| **all** | {totals} |" in text


def test_the_readme_gives_origin_licence_and_limits():
  text = (FOLDER / "README.md").read_text("utf-8")
  for part in ("## Origin", "synthetic", "## Limits", "CC0-1.0"):
    assert part in text


def test_all_of_it_is_under_a_megabyte():
  assert sum(len(f.read_bytes()) for f in FOLDER.iterdir()) < 1_000_000
