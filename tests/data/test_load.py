"""All of a run's data from one configuration."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from augdistill.data.load import DataConfig, load_data
from augdistill.errors import UsageError
from augdistill.types import TaskKind


@pytest.fixture
def config(write, tmp_path):
  """Training and test files of two classes, in a cache of their own."""
  rows = [
    f"{word} number {i}\t{name}"
    for i in range(20)
    for word, name in (("card", "lost"), ("cash", "found"))
  ]
  header = "sentence\tlabel\n"
  return DataConfig(
    train=write("shop/train.tsv", header + "\n".join(rows)),
    test=write("shop/test.tsv", header + "cash\tfound\ncard\tlost\n"),
    cache_dir=str(tmp_path / "cache"),
  )


def _rows(examples):
  return list(zip(examples.texts, examples.label.tolist(), strict=True))


def test_files_load_end_to_end(config):
  data = load_data(config)
  assert data.task.name == "shop"
  assert data.task.kind == TaskKind.CLASSES
  assert data.task.label_names == ("found", "lost")
  assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 2)
  assert data.unlabeled is None
  assert _rows(data.test) == [(("cash",), [1, 0]), (("card",), [0, 1])]
  for i, (text,) in enumerate(data.train.texts):
    row = data.train.tokens[data.train.offsets[i] : data.train.offsets[i + 1]]
    assert data.vocab.decode(row) == text
    assert row[-1] == data.vocab.frame.end_id
  held, rest = set(data.validation.example_id), set(data.train.example_id)
  assert held | rest == set(range(40))
  assert data.validation.label.sum(0).tolist() == [2, 2]


def test_loading_again_gives_the_same_without_tensorflow(config):
  first = load_data(config)
  script = f"""
import sys
from augdistill.data.load import DataConfig, load_data
data = load_data(DataConfig(**{dataclasses.asdict(config)!r}))
assert data.train.texts
heavy = {{"tensorflow", "seqio", "tensorflow_datasets"}} & set(sys.modules)
assert not heavy, heavy
print(data.train.fingerprint, data.validation.fingerprint,
      data.vocab.fingerprint)
"""
  run = subprocess.run(
    [sys.executable, "-W", "error", "-c", script],
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
  )
  assert run.returncode == 0, run.stderr
  assert run.stdout.split() == [
    first.train.fingerprint,
    first.validation.fingerprint,
    first.vocab.fingerprint,
  ]


def test_a_changed_file_is_read_anew(config, write):
  load_data(config)
  test = write("shop/test.tsv", "sentence\tlabel\ncash\tlost\n")
  changed = load_data(dataclasses.replace(config, test=test))
  assert _rows(changed.test) == [(("cash",), [0, 1])]


@pytest.mark.parametrize(
  "changes",
  [
    {"label_names": ("lost", "found")},
    {"max_length": 8},
  ],
)
def test_the_cache_does_not_answer_another_question(config, changes, tmp_path):
  load_data(config)
  changed = dataclasses.replace(config, **changes)
  fresh = dataclasses.replace(changed, cache_dir=str(tmp_path / "fresh"))
  data, expected = load_data(changed), load_data(fresh)
  assert data.train.fingerprint == expected.train.fingerprint
  assert data.train.fingerprint != load_data(config).train.fingerprint


def test_a_given_vocabulary_is_taken(config, vocab, tmp_path):
  load_data(config)  # its tokens in the cache are of another vocabulary
  path = vocab.save(tmp_path)
  data = load_data(dataclasses.replace(config, vocab=path))
  assert data.vocab.fingerprint == vocab.fingerprint
  tokens = [*vocab.encode(["cash"])[0], vocab.frame.end_id]
  assert data.test.tokens[: data.test.offsets[1]].tolist() == tokens


def test_given_validation_data_keep_all_training_rows(config):
  data = load_data(dataclasses.replace(config, validation=config.test))
  assert (len(data.train), len(data.validation)) == (40, 2)


def test_training_examples_are_drawn_from_what_is_not_held_out(config):
  config = dataclasses.replace(config, train_examples=10)
  data = load_data(config)
  assert data.train.label.sum(0).tolist() == [5, 5]
  assert len(data.validation) == 4
  assert not set(data.train.example_id) & set(data.validation.example_id)
  other = load_data(dataclasses.replace(config, seed=1))
  assert set(other.train.example_id) != set(data.train.example_id)
  assert load_data(config).train.fingerprint == data.train.fingerprint


def test_a_share_of_the_training_rows_is_of_what_is_not_held_out(config):
  config = dataclasses.replace(config, train_fraction=0.5)
  data = load_data(config)
  assert data.train.label.sum(0).tolist() == [9, 9]
  assert not set(data.train.example_id) & set(data.validation.example_id)
  other = load_data(dataclasses.replace(config, seed=1))
  assert set(other.train.example_id) != set(data.train.example_id)


def test_a_share_keeps_its_labels_and_the_other_rows_are_unlabelled(config):
  config = dataclasses.replace(config, labeled_fraction=0.25)
  data = load_data(config)
  assert data.train.has_label.all()
  assert data.train.label.sum(0).tolist() in ([4, 5], [5, 4])
  assert (len(data.train), len(data.unlabeled)) == (9, 27)
  assert not data.unlabeled.has_label.any()
  assert not data.unlabeled.label.any()
  parts = (data.train, data.unlabeled, data.validation)
  ids = [i for part in parts for i in part.example_id]
  assert sorted(ids) == list(range(40))
  # Whichever seed a run has, so that a student meets no row of its teacher.
  other = load_data(dataclasses.replace(config, seed=1))
  assert other.train.fingerprint == data.train.fingerprint
  assert other.unlabeled.fingerprint == data.unlabeled.fingerprint


def test_unlabelled_texts_follow_on_rows_that_lost_their_labels(config, write):
  path = write("more.tsv", "sentence\nnew card\n")
  config = dataclasses.replace(config, labeled_fraction=0.25, unlabeled=path)
  data = load_data(config)
  assert len(data.unlabeled) == 28
  assert data.unlabeled.texts[-1] == ("new card",)
  assert len(set(data.unlabeled.example_id)) == 28


@pytest.mark.parametrize(
  "given, message",
  [
    (("train_examples", "train_fraction"), "train_examples or --train_f"),
    (("train_examples", "labeled_fraction"), "train_examples or --labeled_f"),
    (("train_fraction", "labeled_fraction"), "train_fraction or --labeled_f"),
    (("labeled_fraction",), "leave a row without a label"),
  ],
)
def test_fewer_rows_are_asked_for_in_one_way(config, given, message):
  values = {name: 1 if name == "train_examples" else 1.0 for name in given}
  config = dataclasses.replace(config, **values)
  with pytest.raises(UsageError, match=message):
    load_data(config)


@pytest.mark.parametrize(
  "name, value",
  [
    ("train_fraction", 0.0),
    ("train_fraction", 1.5),
    ("labeled_fraction", -0.5),
    ("train_examples", 0),
    ("train_examples", 99),
  ],
)
def test_a_share_that_cannot_be_is_said_with_its_flag(config, name, value):
  message = rf"^--{name}: the .* got {value}\."
  with pytest.raises(UsageError, match=message):
    load_data(dataclasses.replace(config, **{name: value}))


def test_a_share_is_of_labelled_texts_alone(config, write):
  config = dataclasses.replace(
    config,
    train=None,
    unlabeled=write("more.tsv", "sentence\nnew card\nmy cash\nlost it\n"),
    label_names=("found", "lost"),
    train_fraction=0.5,
  )
  with pytest.raises(UsageError, match="--train_fraction is of the rows"):
    load_data(config)


def test_long_texts_are_cut_to_the_maximal_length(config):
  data = load_data(dataclasses.replace(config, max_length=8))
  assert data.train.lengths.max() <= 8
  ends = data.train.tokens[data.train.offsets[1:] - 1]
  assert (ends == data.vocab.frame.end_id).all()


def test_unlabelled_texts_have_no_label(config, write):
  path = write("more.tsv", "sentence\tlabel\nnew card\tno such label\n")
  data = load_data(dataclasses.replace(config, unlabeled=path))
  assert data.unlabeled.texts == [("new card",)]
  assert not data.unlabeled.has_label.any()
  assert data.unlabeled.label.tolist() == [[0, 0]]
  assert data.train.has_label.all()


def test_regression_pairs_need_no_special_case(config, write):
  lines = ["sentence1\tsentence2\tlabel", "a\tb\t2.5", "a\tc\t3", "d\te\t0.5"]
  path = write("sts.tsv", "\n".join(lines))
  data = load_data(
    dataclasses.replace(config, train=path, validation=path, test=None)
  )
  assert data.task.kind == TaskKind.REGRESSION
  assert data.task.pair
  assert data.task.name == "sts"
  np.testing.assert_array_equal(data.train.label, [[2.5], [3], [0.5]])
  assert (data.train.tokens == data.vocab.frame.end_id).sum() == 6


def test_a_test_file_of_integers_is_regression_if_training_is(config, write):
  train = write("a.tsv", "sentence\tlabel\na\t2.5\nb\t3\n")
  test = write("b.tsv", "sentence\tlabel\na\t2\n")
  data = load_data(dataclasses.replace(config, train=train, test=test))
  assert data.test.label.tolist() == [[2.0]]


def test_sets_of_labels_need_no_special_case(config, write):
  rows = [("a", ["x", "y"]), ("b", []), ("c", ["z"])]
  lines = [json.dumps({"sentence": s, "label": n}) for s, n in rows]
  train = write("m.jsonl", "\n".join(lines))
  test = write("t.tsv", "sentence\tlabel\na\tz|x\nb\t\n")
  data = load_data(
    dataclasses.replace(config, train=train, validation=train, test=test)
  )
  assert data.task.kind == TaskKind.MULTI_LABEL
  assert data.train.label.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
  assert data.test.label.tolist() == [[1, 0, 1], [0, 0, 0]]
  assert data.train.has_label.all()


def test_labels_follow_the_teachers_order_by_name(config):
  names = ("lost", "found")
  data = load_data(dataclasses.replace(config, label_names=names))
  assert data.task.label_names == names
  assert _rows(data.test) == [(("cash",), [0, 1]), (("card",), [1, 0])]
  (note,) = data.notes
  assert config.train in note
  assert "by name" in note
  same = dataclasses.replace(config, label_names=("found", "lost"))
  assert load_data(same).notes == ()


@pytest.mark.parametrize(
  ("names", "said"),
  [
    (("found", "stolen"), "teacher lacks lost; the data lack stolen"),
    (("found", "lost", "stolen"), "the data lack stolen"),
    (("found",), "teacher lacks lost"),
  ],
)
def test_a_label_set_that_is_not_the_teachers_is_refused(config, names, said):
  with pytest.raises(UsageError, match=said) as caught:
    load_data(dataclasses.replace(config, label_names=names))
  assert config.train in str(caught.value)


def test_a_trained_run_is_asked_without_training_data(config, vocab, tmp_path):
  known = dataclasses.replace(
    config,
    train=None,
    vocab=vocab.save(tmp_path),
    label_names=("lost", "found"),
    task_kind="classes",
  )
  assert load_data(known).test.label.tolist() == [[0, 1], [1, 0]]
  asked = load_data(
    dataclasses.replace(known, test=None, unlabeled=config.test)
  )
  assert asked.unlabeled.texts == [("cash",), ("card",)]
  assert (asked.train, asked.validation, asked.test) == (None, None, None)


def test_a_label_never_seen_in_training_is_refused(config, write):
  path = write("t.tsv", "sentence\tlabel\ncash\tfound\ncard\tlots\n")
  with pytest.raises(UsageError, match="Did you mean 'lost'") as caught:
    load_data(dataclasses.replace(config, test=path))
  assert f"{path}, line 3" in str(caught.value)


def test_all_files_must_be_of_one_shape(config, write):
  pairs = write("p.tsv", "sentence1\tsentence2\tlabel\na\tb\tlost\n")
  with pytest.raises(UsageError, match=r"single texts.*got pairs") as caught:
    load_data(dataclasses.replace(config, test=pairs))
  assert pairs in str(caught.value)
  with pytest.raises(UsageError, match=r"pairs of texts.*got single"):
    load_data(dataclasses.replace(config, pair=True))


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"train": None, "test": None}, "--task NAME or --train"),
    ({"task": "cola"}, "either by --task or by files"),
    ({"train": None}, "--train"),
    ({"train": None, "label_names": ("lost", "found")}, "--vocab"),
    ({"max_length": 7}, "at least 8, got 7"),
    ({"text_column": "a,b,c"}, "one or two columns, got a,b,c"),
    ({"train_examples": 37}, "from 1 to 36, got 37"),
    ({"validation_fraction": 1.0}, "between 0 and 1, got 1.0"),
    ({"vocab": "nowhere.spm"}, "nowhere.spm"),
    ({"task_kind": "clases"}, "Did you mean 'classes'"),
  ],
)
def test_a_configuration_that_cannot_be_is_refused(config, changes, said):
  with pytest.raises(UsageError, match=said):
    load_data(dataclasses.replace(config, **changes))


def test_columns_of_other_names_may_be_listed_with_blanks(config, write):
  path = write("q.csv", "q,a,gold\nwhy,so,x\nhow,thus,y\n")
  data = load_data(
    dataclasses.replace(
      config,
      train=path,
      validation=path,
      test=None,
      text_column="q, a",
      label_column="gold",
    )
  )
  assert data.train.texts == [("why", "so"), ("how", "thus")]


def test_importing_the_room_is_cheap():
  script = """
import importlib, pkgutil, sys
import augdistill.data
for module in pkgutil.iter_modules(augdistill.data.__path__):
  if module.name != "features":  # For T5X alone, which has imported seqio.
    importlib.import_module(f"augdistill.data.{module.name}")
heavy = {"tensorflow", "seqio", "tensorflow_datasets", "sentencepiece"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
  subprocess.run([sys.executable, "-c", script], check=True)


def test_banking77_loads_with_its_77_classes(shared_data, tmp_path):
  folder = os.path.join(shared_data, "data", "banking77")
  data = load_data(
    DataConfig(
      train=os.path.join(folder, "train.tsv"),
      test=os.path.join(folder, "test.tsv"),
      train_examples=1000,
      cache_dir=str(tmp_path),
    )
  )
  assert data.task.name == "banking77"
  assert data.task.num_outputs == 77
  assert (len(data.train), len(data.validation)) == (1000, 1000)
  assert set(data.train.label.sum(0).tolist()) == {12, 13}
  assert data.test.label.sum(0).tolist() == [40] * 77
  assert 1500 < data.vocab.num_pieces <= 2200


def test_stsb_loads_as_regression_of_pairs(shared_data, tmp_path):
  folder = os.path.join(shared_data, "data", "stsb")
  files = {
    split: os.path.join(folder, f"{split}.tsv")
    for split in ("train", "validation", "test")
  }
  data = load_data(DataConfig(**files, cache_dir=str(tmp_path)))
  assert (data.task.kind, data.task.pair) == (TaskKind.REGRESSION, True)
  assert (len(data.train), len(data.validation), len(data.test)) == (
    *(5749, 1500),
    1379,
  )
  assert round(float(data.train.label.mean()), 4) == 2.7010
