"""Planted mistakes are red, and a clean setup is green throughout."""

import itertools
import json
import shutil

import numpy as np
import pytest

from augdistill.cli import checkup
from augdistill.data.sentence_pieces import train_vocab
from tests.cli.tiny import LABELS, TINY, ok, run, write_tsv

WORDS = {
  "app": ("app", "login", "phone", "screen", "update", "icon"),
  "card": ("card", "visa", "pin", "plastic", "chip", "number"),
  "cash": ("cash", "money", "atm", "notes", "coins", "change"),
}
FILLER = (
  *("my", "the", "please", "help", "with", "is"),
  *("not", "working", "today", "since", "a", "new"),
)
# Rows of no more than 32 tokens; else as the other tests of commands.
FLAGS = (*(f for f in TINY if "max_length" not in f), "--max_length=32")


def texts(count, seed):
  """(text, label) pairs, no text twice, each label equally often."""
  rng, seen = np.random.default_rng(seed), set()
  while len(seen) < count:
    label = LABELS[len(seen) % 3]
    words = [
      *rng.choice(FILLER, rng.integers(3, 6)),
      *rng.choice(WORDS[label], 2),
    ]
    row = (" ".join(rng.permutation(words)) + f" {seed}", label)
    if row not in seen:
      seen.add(row)
      yield row


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Clean files and a teacher that has learnt them."""
  folder = tmp_path_factory.mktemp("doctor")
  for name, count, seed in [
    ("train", 240, 1),
    ("validation", 60, 2),
    ("test", 60, 3),
  ]:
    write_tsv(folder / f"{name}.tsv", texts(count, seed))
  ok(
    *("finetune", *given(folder), *FLAGS, "--num_steps=80"),
    *("--learning_rate=0.01", "--gin.RunConfig.eval_period=40"),
    f"--output_dir={folder / 'teacher'}",
  )
  return folder


def given(folder, **files):
  """The flags of the data, some of them from other files."""
  paths = {n: folder / f"{n}.tsv" for n in ("train", "validation", "test")}
  return [f"--{name}={path}" for name, path in (paths | files).items()]


def doctor(folder, *flags, teacher=None, **files):
  """Topic -> finding, and the exit code."""
  done = run(
    *("doctor", *given(folder, **files), *FLAGS, "--method=kd", *flags),
    f"--teacher={teacher or folder / 'teacher'}",
    *(f"--output_dir={folder / 'never'}", "--json"),
  )
  assert not (folder / "never").exists()
  return {f["topic"]: f for f in json.loads(done.out)}, done.code


@pytest.fixture
def unstepped(monkeypatch):
  """Leaves out the steps, which take the time: not for tests of them."""
  monkeypatch.setattr(checkup, "judge_step", lambda experiment: [])


@pytest.fixture(scope="module")
def own_vocab(tmp_path_factory):
  """The file of a vocabulary that is not the teacher's."""
  folder = tmp_path_factory.mktemp("own")
  return train_vocab([t for t, _ in texts(240, 1)], vocab_size=45).save(folder)


def reds(findings):
  return {topic for topic, f in findings.items() if f["level"] == "red"}


def test_a_clean_setup_is_all_green(folder):
  findings, code = doctor(folder)
  levels = {topic: f["level"] for topic, f in findings.items()}
  assert levels == dict.fromkeys(
    [
      *("setup", "teacher", "classes", "duplicates", "labels"),
      *("validation leak", "test leak", "lengths", "vocabulary"),
      *("memory", "time", "disk"),
    ],
    "green",
  )
  assert code == 0
  assert "estimate" in findings["memory"]["says"]
  assert "4 steps take" in findings["time"]["says"]


ORDERS = [*itertools.permutations(LABELS)][1:]


@pytest.mark.parametrize(
  "order",
  [
    pytest.param(o, marks=[pytest.mark.slow] * (i > 1))
    for i, o in enumerate(ORDERS)
  ],
)
def test_every_permutation_of_the_teachers_classes_is_named(
  folder, unstepped, order
):
  teacher = folder / "-".join(order)
  shutil.copytree(folder / "teacher", teacher, dirs_exist_ok=True)
  gin = teacher / "student.gin"
  text = gin.read_text()
  assert str(LABELS) in text
  gin.write_text(text.replace(str(LABELS), str(order)))
  findings, code = doctor(folder, teacher=teacher)
  found = findings["teacher"]
  assert (found["level"], code) == ("red", 2)
  # What the copy calls order[c] is what the data call LABELS[c].
  for wrong, right in zip(order, LABELS, strict=True):
    assert (f"{wrong} means {right}" in found["says"]) == (wrong != right)


def test_a_teacher_that_was_never_fine_tuned_is_red_and_refused(
  folder, unstepped
):
  raw = folder / "raw"
  ok(
    *("finetune", *given(folder), *FLAGS, "--num_steps=1"),
    *("--gin.RunConfig.eval_period=1", f"--output_dir={raw}"),
  )
  findings, code = doctor(folder, teacher=raw)
  assert (reds(findings), code) == ({"teacher"}, 2)
  assert "near chance" in findings["teacher"]["says"]
  flags = [
    *("distill", *given(folder), *FLAGS, "--method=kd", f"--teacher={raw}"),
    f"--output_dir={folder / 'of_raw'}",
  ]
  refused = run(*flags)
  assert refused.code == 2
  assert "near chance" in refused.err
  assert "--force" in refused.err
  assert not (folder / "of_raw").exists()
  ok(*flags, "--force")


def test_planted_faults_of_the_data_are_red_and_a_few_are_yellow(
  folder, unstepped
):
  train = [*texts(240, 1)]
  test, validation = [*texts(60, 3)], [*texts(60, 2)]
  few = write_tsv(folder / "few.tsv", [*train, *train[:5], test[0]])
  findings, code = doctor(folder, train=few)
  doubtful = {t for t, f in findings.items() if f["level"] == "yellow"}
  assert doubtful == {"duplicates", "test leak"}
  assert code == 0
  other = {"app": "card", "card": "cash", "cash": "app"}
  many = write_tsv(
    folder / "many.tsv",
    [
      *train,
      *[(t, other[y]) for t, y in train[:20]],
      *test[:5],
      *validation[:5],
    ],
  )
  findings, code = doctor(folder, train=many)
  assert reds(findings) == {
    *("duplicates", "labels", "test leak", "validation leak"),
  }
  assert code == 2
  assert all(findings[topic]["remedy"] for topic in reds(findings))


def test_a_step_that_does_not_fit_is_red_and_not_run(folder, monkeypatch):
  monkeypatch.setattr(checkup, "_memory_of", lambda device: 1000)
  monkeypatch.setattr(checkup, "_run_steps", None)
  findings, code = doctor(folder)
  assert (reds(findings), code) == ({"memory"}, 2)
  assert "--batch_size" in findings["memory"]["remedy"]


def test_a_class_without_a_row_is_red(folder, unstepped):
  findings, code = doctor(folder, "--train_examples=2")
  assert reds(findings) == {"classes"}
  assert any(name in findings["classes"]["says"] for name in LABELS)
  assert code == 2


def test_texts_that_the_vocabulary_does_not_cover_are_red(folder, unstepped):
  rows = [(f"猫 犬 鳥 {t}", y) for t, y in texts(240, 1)]
  foreign = write_tsv(folder / "foreign.tsv", rows)
  findings, code = doctor(folder, train=foreign)
  assert "vocabulary" in reds(findings)
  assert code == 2


def test_another_vocabulary_than_the_teachers_is_red(folder, own_vocab):
  flags = f"--vocab={own_vocab}", "--method=kd+augpro_mix"
  findings, code = doctor(folder, *flags)
  assert (reds(findings), code) == ({"setup"}, 2)
  assert "must read with one vocabulary" in findings["setup"]["says"]


def test_a_vocabulary_of_the_students_own_is_pointed_out(
  folder, own_vocab, unstepped
):
  findings, code = doctor(folder, f"--vocab={own_vocab}")
  assert code == 0
  found = findings["vocabularies"]
  assert found["level"] == "yellow" and str(folder / "teacher") in found["says"]


def test_labels_that_the_teacher_does_not_have_are_red(folder):
  rows = [(t, y.replace("cash", "coin")) for t, y in texts(240, 1)]
  renamed = write_tsv(folder / "renamed.tsv", rows)
  findings, code = doctor(folder, train=renamed)
  assert (reds(findings), code) == ({"setup"}, 2)
  assert "coin" in findings["setup"]["says"]


def test_texts_that_are_cut_are_counted(folder, unstepped):
  long = write_tsv(
    folder / "long.tsv", [(f"{t} {t} {t} {t}", y) for t, y in texts(240, 1)]
  )
  findings, _ = doctor(folder, train=long)
  assert findings["lengths"]["level"] == "red"
  assert findings["lengths"]["remedy"].startswith("--max_length ")


def test_a_teacher_that_is_still_to_be_trained_is_said_to_be(folder):
  done = run(
    *("doctor", *given(folder), *FLAGS, "--method=kd", "--json"),
    *("--teacher_model=micro", f"--output_dir={folder / 'never'}"),
  )
  findings = {f["topic"]: f for f in json.loads(done.out)}
  assert findings["teacher"]["level"] == "yellow"
  assert done.code == 0
  assert "time" not in findings


def test_people_read_a_line_each(folder):
  done = ok(
    *("doctor", *given(folder), *FLAGS, "--method=kd"),
    f"--teacher={folder / 'teacher'}",
    f"--output_dir={folder / 'never'}",
  )
  lines = [line.split()[:2] for line in done.out.splitlines()]
  assert ["green", "setup"] in lines
  assert ["green", "teacher"] in lines


@pytest.mark.slow
def test_a_profile_tells_what_each_part_of_a_step_costs(folder):
  path = folder / "profiled"
  done = ok(
    *("distill", *given(folder), *FLAGS, "--method=kd+augpro_mix"),
    *(f"--teacher={folder / 'teacher'}", f"--output_dir={path}", "--profile"),
  )
  for words in (
    *("clean, student", "clean, teacher", "augpro_mix, view"),
    *("augpro_mix, student", "augpro_mix, teacher", "GFLOP/s"),
  ):
    assert words in done.out, words
  assert list((path / "profile").rglob("*.xplane.pb"))
  assert (path / "results.json").exists()
