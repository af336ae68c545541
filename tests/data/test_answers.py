"""A teacher's answers on disk: found by content, told where they are wrong."""

import dataclasses
import json

import numpy as np
import pytest

from augdistill.data.answers import AnswerStore, keys_of, stand_ins
from augdistill.data.batches import train_batches
from augdistill.data.dataset import concat, take
from augdistill.data.draws import choices
from augdistill.errors import UsageError

DRAWS, OUTPUTS = 3, 2
INGREDIENTS = {"parameters": "abc", "jax": "1"}


@pytest.fixture
def examples(make_examples):
  return make_examples([3, 1, 9, 4, 2], [0, 1, 0, 1, 1])


@pytest.fixture
def given():
  rng = np.random.default_rng(0)
  return rng.normal(size=(5, DRAWS, OUTPUTS)).astype(np.float32)


@pytest.fixture
def store(tmp_path):
  return AnswerStore(tmp_path / "cache", INGREDIENTS, DRAWS, OUTPUTS)


@pytest.fixture
def filled(store, examples, given):
  """A store with two files, of three rows and of two."""
  keys = keys_of(examples)
  store.add(keys[:3], given[:3])
  store.add(keys[3:], given[3:])
  return store


def files(store):
  return sorted(store.path.glob("*.npy"))


def all_draws(answers, rows):
  rows = np.asarray(rows)
  draws = [answers.at(rows, np.full(len(rows), d)) for d in range(DRAWS)]
  return np.stack(draws, axis=1)


def test_a_key_is_of_the_tokens_alone(examples):
  keys = keys_of(examples)
  assert len(set(keys.tolist())) == 5
  other = take(concat(examples, examples), [9, 0, 5])
  other = dataclasses.replace(other, label=1 - other.label)
  assert keys_of(other).tolist() == [keys[i] for i in (4, 0, 0)]


def test_a_key_tells_where_a_text_ends(make_examples):
  one, two = make_examples([2, 3], [0, 0]), make_examples([3, 2], [0, 0])
  two = dataclasses.replace(two, tokens=one.tokens)
  assert not set(keys_of(one)) & set(keys_of(two))


def test_nothing_is_found_in_an_empty_store(store, examples):
  found = store.find(keys_of(examples))
  assert not found.there.any()
  assert found.answers is None


def test_what_was_kept_is_found_whatever_the_order(filled, examples, given):
  order = [4, 1, 1, 0]
  found = filled.find(keys_of(take(examples, order)))
  assert found.there.all()
  np.testing.assert_array_equal(
    all_draws(found.answers, range(4)), given[order]
  )
  np.testing.assert_array_equal(
    found.answers.at(np.array([3, 0]), np.array([2, 1])),
    [given[0, 2], given[4, 1]],
  )


def test_answers_are_read_from_the_disk_when_they_are_wanted(filled, examples):
  found = filled.find(keys_of(examples))
  assert [type(part) for part in found.answers.parts] == [np.memmap] * 2


def test_another_run_adds_what_is_missing(filled, examples, make_examples):
  more = make_examples([3, 5], [0, 1])
  more = dataclasses.replace(more, tokens=more.tokens + 1000)
  keys = keys_of(concat(examples, more))
  there = filled.find(keys).there
  assert there.tolist() == [True] * 5 + [False] * 2
  filled.add(keys[5:], np.ones((2, DRAWS, OUTPUTS), np.float32))
  assert filled.find(keys).there.all()
  assert len(files(filled)) == 3


def test_of_two_answers_the_older_file_counts(filled, examples, given):
  keys = keys_of(examples)
  before = filled.find(keys)
  filled.add(keys, np.zeros_like(given))
  after = filled.find(keys)
  np.testing.assert_array_equal(all_draws(after.answers, range(5)), given)
  assert after.digest == before.digest


def test_another_teacher_has_answers_of_its_own(filled, tmp_path, examples):
  for name in INGREDIENTS:
    other = AnswerStore(
      tmp_path / "cache", INGREDIENTS | {name: "other"}, DRAWS, OUTPUTS
    )
    assert other.path != filled.path
    assert not other.find(keys_of(examples)).there.any()


def test_what_the_answers_depend_on_can_be_read(filled):
  said = json.loads((filled.path / "teacher.json").read_text())
  assert said == INGREDIENTS


def truncated(path):
  path.write_bytes(path.read_bytes()[:-5])


def one_bit_changed(path):
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(bytes(content))


def emptied(path):
  path.write_bytes(b"")


@pytest.mark.parametrize("harm", [truncated, one_bit_changed, emptied])
def test_a_damaged_file_is_left_aside_and_said(
  filled, examples, given, capsys, harm
):
  harm(files(filled)[1])
  filled = AnswerStore(filled.path.parent, INGREDIENTS, DRAWS, OUTPUTS)
  found = filled.find(keys_of(examples))
  assert found.there.tolist() == [True] * 3 + [False] * 2
  np.testing.assert_array_equal(all_draws(found.answers, range(3)), given[:3])
  said = capsys.readouterr().out
  assert str(files(filled)[1]) in said
  assert "remove it" in said
  # What is asked again stands beside it.
  filled.add(keys_of(examples)[3:], given[3:])
  found = filled.find(keys_of(examples))
  np.testing.assert_array_equal(all_draws(found.answers, range(5)), given)
  assert not capsys.readouterr().out  # It was said.


def test_a_file_of_another_teacher_is_left_aside(
  filled, tmp_path, examples, capsys
):
  other = AnswerStore(tmp_path / "cache", {"a": 1}, DRAWS, OUTPUTS)
  for path in files(filled):
    (other.path / path.name).write_bytes(path.read_bytes())
  assert not other.find(keys_of(examples)).there.any()
  assert "of another teacher" in capsys.readouterr().out


def test_a_changed_description_is_refused(filled, tmp_path):
  path = filled.path / "teacher.json"
  path.write_text(path.read_text().replace("abc", "abd"))
  with pytest.raises(UsageError, match=r"teacher.json.*remove"):
    AnswerStore(tmp_path / "cache", INGREDIENTS, DRAWS, OUTPUTS)


def test_a_fill_that_is_killed_leaves_whole_files(
  filled, examples, given, monkeypatch
):
  def killed(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr("augdistill.data.answers.np.save", killed)
  with pytest.raises(KeyboardInterrupt):
    filled.add(keys_of(examples), given)
  assert len(list(filled.path.iterdir())) == 3  # With teacher.json.
  assert filled.find(keys_of(examples)).there.all()


def test_a_full_store_is_read_and_not_written(filled, tmp_path, examples):
  def state():
    folder = tmp_path / "cache"
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

  before = state()
  store = AnswerStore(tmp_path / "cache", INGREDIENTS, DRAWS, OUTPUTS)
  assert store.find(keys_of(examples)).there.all()
  assert state() == before


@pytest.mark.parametrize("where", ["gs://bucket/cache", "file/cache"])
def test_a_place_that_takes_nothing_is_refused(tmp_path, where):
  (tmp_path / "file").write_text("")
  path = where if "://" in where else tmp_path / where
  with pytest.raises(UsageError, match="cache"):
    AnswerStore(path, INGREDIENTS, DRAWS, OUTPUTS)


def test_a_batch_carries_an_answer_to_each_of_its_rows(filled, examples, given):
  answers = filled.find(keys_of(examples)).answers
  batches = [
    train_batches(examples, 4, seed, answers=answers) for seed in (0, 1)
  ]
  seen = set()
  for step in range(20):
    batch = batches[0](step)
    assert batch.answers.shape == (4, OUTPUTS)
    for example, answer in zip(batch.example_id, batch.answers, strict=True):
      (draw,) = np.flatnonzero((given[example] == answer).all(axis=-1))
      seen.add((int(example), int(draw)))
    again = train_batches(examples, 4, 0, answers=answers)(step)
    np.testing.assert_array_equal(again.answers, batch.answers)
  assert len(seen) == 5 * DRAWS  # Every draw has its turn.


def test_hosts_have_the_answers_of_their_rows(filled, examples):
  answers = filled.find(keys_of(examples)).answers
  whole = train_batches(examples, 4, 0, answers=answers)(3)
  parts = [
    train_batches(examples, 4, 0, answers=answers, host=((i,), 2))(3)
    for i in (0, 1)
  ]
  np.testing.assert_array_equal(
    np.concatenate([part.answers for part in parts]), whole.answers
  )


def test_choices_are_even_and_a_function_of_their_name():
  drawn = choices(3000, 3, "answers", 0, 1)
  assert drawn.dtype == np.int64
  assert np.all(np.abs(np.bincount(drawn, minlength=3) - 1000) < 100)
  np.testing.assert_array_equal(drawn, choices(3000, 3, "answers", 0, 1))
  assert np.any(drawn != choices(3000, 3, "answers", 0, 2))


def test_stand_ins_fit_a_batch(examples):
  batch = train_batches(examples, 4, 0, answers=stand_ins(5, OUTPUTS))(0)
  np.testing.assert_array_equal(batch.answers, np.zeros((4, OUTPUTS)))
