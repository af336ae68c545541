"""A teacher's answers are asked once, and are what it would answer now."""

import dataclasses

import jax
import numpy as np
import pytest

from augdistill.cli import answering, distill, main, parts
from augdistill.cli.answering import with_answers, with_stand_ins
from augdistill.data.batches import make_batch
from augdistill.errors import UsageError
from augdistill.evaluation.predict import logits_of
from tests.cli.tiny import TINY, ok, read_jsonl, run

STEADY = "--no_teacher_dropout"
ROWS, TEXTS = 54, 12  # Most texts of this data stand there several times.


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp("teachers") / "cache"


@pytest.fixture(scope="module")
def filled(data, teacher, cache):
  """A run that has filled the cache, and what it said."""
  flags = *data, *TINY, f"--teacher={teacher}", STEADY, "--force"
  flags = *flags, f"--teacher_cache={cache}/"
  path = cache.parent / "filled"
  return path, ok("distill", *flags, f"--output_dir={path}").out


@pytest.fixture(scope="module")
def made(data, teacher, filled):
  """The parts of a run like it."""
  flags = *data, *TINY, f"--teacher={teacher}", STEADY, "--teacher_cache=c"
  argv = ["distill", *flags, "--output_dir=unused"]
  return parts.prepare(distill.configure(main.parse(argv))[0])


@pytest.fixture
def spared(monkeypatch):
  """Nothing is traced to see that kd spares the teacher: a run above did."""
  monkeypatch.setattr(answering, "spares_teacher", lambda *args: True)


def cached(made, cache, **config):
  config = {"teacher_cache": str(cache)} | config
  return dataclasses.replace(
    made, config=dataclasses.replace(made.config, **config)
  )


def files(cache):
  return {path: path.stat().st_mtime_ns for path in cache.rglob("*")}


def all_of(experiment):
  """f32[N, m, C] of the answers that it has."""
  answers = experiment.answers
  rows = np.arange(len(answers))
  return np.stack(
    [answers.at(rows, np.full(ROWS, d)) for d in range(answers.draws)], axis=1
  )


def test_a_run_that_reads_answers_is_the_run_that_asks(filled, data, teacher):
  path, said = filled
  assert f"{ROWS} rows: 0 are in" in said
  assert f"{TEXTS} texts are asked now" in said
  online = path.parent / "online"
  flags = *data, *TINY, f"--teacher={teacher}", STEADY, "--force"
  ok("distill", *flags, f"--output_dir={online}")
  one, two = (
    [row for row in read_jsonl(p / "metrics.jsonl") if "loss" in row]
    for p in (path, online)
  )
  assert len(one) == 4
  for mine, its in zip(one, two, strict=True):
    for name in ("loss", "clean/kl"):
      expected = pytest.approx(its[name], rel=1e-6, abs=1e-6)
      assert mine[name] == expected, name
    expected = pytest.approx(its["gradient_norm"], rel=1e-5)
    assert mine["gradient_norm"] == expected


@pytest.mark.usefixtures("spared")
def test_another_run_reads_what_is_there(filled, made, cache, capsys):
  before = files(cache)
  assert len(before) == 3  # A directory, its description and one file.
  answers = all_of(with_answers(cached(made, cache)))
  assert "asked now" not in capsys.readouterr().out
  assert files(cache) == before
  batch = make_batch(made.train, np.arange(ROWS), 16)
  its = logits_of(made.teacher.network, made.teacher.params, batch)
  # Not 1e-6: a batch of another shape is rounded otherwise.
  np.testing.assert_allclose(answers[:, 0], its, atol=5e-6)


@pytest.mark.usefixtures("spared")
def test_a_fill_that_is_killed_goes_on_where_it_was(
  made, tmp_path, monkeypatch, capsys
):
  few, real, calls = cached(made, tmp_path, eval_batch_size=4), [], []
  real.append(answering.answers_of)

  def killed(*args):
    calls.append(args)
    if len(calls) == TEXTS // 4:
      raise KeyboardInterrupt
    return real[0](*args)

  with monkeypatch.context() as patch:
    patch.setattr(answering, "_SECONDS", 0.0)
    patch.setattr(answering, "_SHARE", 0.0)
    patch.setattr(answering, "answers_of", killed)
    with pytest.raises(KeyboardInterrupt):
      with_answers(few)
  assert len(list(tmp_path.glob("*/*.npy"))) == 2
  capsys.readouterr()
  resumed = all_of(with_answers(few))
  assert "4 texts are asked now" in capsys.readouterr().out
  whole = cached(made, tmp_path / "whole", eval_batch_size=4)
  np.testing.assert_array_equal(resumed, all_of(with_answers(whole)))


@pytest.mark.usefixtures("spared")
def test_another_teacher_is_asked_itself(made, cache, capsys):
  params = jax.tree.map(lambda x: x * np.float32(1.01), made.teacher.params)
  teacher = dataclasses.replace(made.teacher, params=params)
  other = dataclasses.replace(made, teacher=teacher)
  new = all_of(with_answers(cached(other, cache)))
  assert f"{TEXTS} texts are asked now" in capsys.readouterr().out
  assert np.abs(new - all_of(with_answers(cached(made, cache)))).max() > 0.01


@pytest.mark.usefixtures("spared")
def test_a_teacher_that_answers_otherwise_by_now_is_told(
  made, cache, monkeypatch
):
  """As after a change of a model's code, of which no fingerprint knows."""
  real = answering.answers_of
  monkeypatch.setattr(answering, "answers_of", lambda *a: real(*a) + 0.1)
  with pytest.raises(UsageError, match=r"is 0\.1 away .* remove the directory"):
    with_answers(cached(made, cache))


@pytest.mark.usefixtures("spared")
def test_every_draw_of_a_dropping_teacher_is_kept(made, cache, capsys):
  drops = {"teacher_dropout": True, "teacher_cache_draws": 2}
  first = all_of(with_answers(cached(made, cache, **drops)))
  assert f"{TEXTS} texts are asked now" in capsys.readouterr().out
  assert first.shape[1] == 2
  assert np.all(np.ptp(first, axis=1).max(axis=-1) > 1e-3)
  # They are asked again beside other rows, and are the same.
  np.testing.assert_array_equal(
    all_of(with_answers(cached(made, cache, **drops))), first
  )
  assert "asked now" not in capsys.readouterr().out


@pytest.mark.usefixtures("spared")
def test_a_teacher_of_its_own_vocabulary_is_known_by_its_own_tokens(
  made, cache, capsys
):
  with_answers(cached(made, cache))
  rows = dataclasses.replace(made.train, tokens=made.train.tokens * 0 + 5)
  apart = dataclasses.replace(made, apart=True, train=rows)
  capsys.readouterr()
  with_answers(cached(apart, cache))
  assert "asked now" not in capsys.readouterr().out


@pytest.mark.usefixtures("spared")
@pytest.mark.parametrize(
  ("broken", "said"),
  [("are_alike", "a disk that all hosts share"), ("is_first", "lacks 54 rows")],
)
def test_processes_that_do_not_see_the_same_files_say_so(
  made, tmp_path, monkeypatch, broken, said
):
  monkeypatch.setattr(answering.processes, broken, lambda *args: False)
  with pytest.raises(UsageError, match=said):
    with_answers(cached(made, tmp_path))


def test_a_method_that_reads_layers_asks_and_says_so(
  made, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(answering, "spares_teacher", lambda *args: False)
  there = cached(made, tmp_path / "none")
  assert with_answers(there).answers is None
  assert "it is asked at every step" in capsys.readouterr().out
  assert with_stand_ins(there).answers is None
  assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("spared")
def test_what_a_step_costs_is_seen_without_asking(made, tmp_path):
  there = cached(made, tmp_path / "none")
  assert all_of(with_stand_ins(there)).shape == (ROWS, 1, 3)
  assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (("--teacher_cache=c",), "give --no_teacher_dropout, or --teacher_cache_"),
    (("--teacher_cache_draws=2",), "is for --teacher_cache DIR"),
    (("--teacher_cache=c", STEADY, "--teacher_cache_draws=2"), "not both"),
    (("--teacher_cache=c", "--teacher_cache_draws=0"), "at least 1, got 0"),
    (("--teacher_cache=gs://b/c", STEADY), "gs://b/c must be a path of this"),
  ],
)
def test_what_cannot_be_kept_is_refused(data, tmp_path, flags, said):
  flags = *data, *TINY, "--teacher=t", *flags
  done = run("distill", *flags, f"--output_dir={tmp_path / 'run'}")
  assert done.code == 2
  assert said in done.err
  assert not (tmp_path / "run").exists()
