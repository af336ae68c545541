"""Texts that wait for a model: which share a batch, and who gets which answer.

The model here says a text's letters; a gate holds it where a test wants.
"""

import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest

from augdistill.cli.waiting import Model, Overloaded, answering
from augdistill.data.shapes import shapes_up_to

SHAPES = shapes_up_to(32, (1, 4))


class Letters:
  """A model whose answer to a text is the text; bad ones make it fail."""

  def __init__(self):
    self.open, self.entered = threading.Event(), threading.Semaphore(0)
    self.open.set()
    self.batches, self.threads = [], set()
    self.model = Model(self.encode, self.answer, SHAPES)

  def encode(self, texts):
    if ("unreadable",) in texts:
      raise ValueError("encode")
    return [np.array([ord(c) for c in text], np.int32) for (text,) in texts]

  def answer(self, rows, shape):
    texts = ["".join(map(chr, row)) for row in rows]
    self.batches.append((texts, shape))
    self.threads.add(threading.current_thread())
    self.entered.release()
    assert self.open.wait(10)
    if "bad" in texts:
      raise ValueError("answer")
    return texts


@pytest.fixture
def letters():
  return Letters()


@pytest.fixture
def waiting(letters):
  with answering(letters.model, limit=6) as waiting:
    letters.batches.clear()
    for _ in SHAPES:
      letters.entered.acquire()
    yield waiting
    letters.open.set()


@pytest.fixture
def busy(letters, waiting):
  """The queue, while the model is at the text "first"."""
  letters.open.clear()
  first = waiting.ask([("first",)])
  assert letters.entered.acquire(timeout=10)
  yield waiting
  letters.open.set()
  assert first.result(10) == ["first"]


def test_every_shape_is_compiled_in_the_thread_that_runs_it(letters):
  with answering(letters.model, limit=6) as waiting:
    assert letters.batches == [([], shape) for shape in SHAPES]
    assert waiting.ask([("a",)]).result(10) == ["a"]
  (thread,) = letters.threads
  assert thread is not threading.current_thread()
  assert not thread.is_alive()


def test_a_model_that_cannot_be_compiled_is_an_error():
  def fail(rows, shape):
    raise ValueError("compile")

  failing = answering(Model(list, fail, SHAPES), limit=6)
  with pytest.raises(ValueError, match="compile"), failing:
    pass


def test_texts_that_wait_together_share_a_batch_by_length(letters, busy):
  short, long = ("a", "b", "c"), ("x" * 20, "y" * 30)
  futures = [
    busy.ask([(short[0],), (long[0],)]),
    busy.ask([(short[1],)]),
    busy.ask([(long[1],), (short[2],)]),
  ]
  letters.open.set()
  answers = [future.result(10) for future in futures]
  assert answers == [["a", "x" * 20], ["b"], ["y" * 30, "c"]]
  assert letters.batches == [
    (["first"], (1, 16)),
    ([*short], (4, 16)),
    ([*long], (4, 32)),
  ]


def test_a_lone_text_is_not_kept_waiting(letters, waiting):
  assert waiting.ask([("a",)]).result(10) == ["a"]
  assert waiting.ask([]).result(0) == []
  assert letters.batches == [(["a"], (1, 16))]


def test_more_texts_than_may_wait_are_refused_and_the_others_answered(
  letters, busy
):
  futures = [busy.ask([("a",), ("b",)]), busy.ask([("c",)] * 3)]
  with pytest.raises(Overloaded, match="5 texts wait, at most 6"):
    busy.ask([("d",), ("e",)])
  futures.append(busy.ask([("f",)]))
  letters.open.set()
  answers = [future.result(10) for future in futures]
  assert answers == [["a", "b"], ["c"] * 3, ["f"]]
  assert busy.ask([("g",)] * 6).result(10) == ["g"] * 6


def test_a_failing_batch_fails_for_its_requests_only(letters, busy):
  # Of the second, a part is in the batch that fails, and a part never runs.
  failing = [busy.ask([("bad",)]), busy.ask([("a",), ("x" * 20,)])]
  unreadable = busy.ask([("unreadable",)])
  good = busy.ask([("y" * 20,)])
  letters.open.set()
  for future in failing:
    with pytest.raises(ValueError, match="answer"):
      future.result(10)
  with pytest.raises(ValueError, match="encode"):
    unreadable.result(10)
  assert good.result(10) == ["y" * 20]
  assert letters.batches[-1] == (["y" * 20], (1, 32))
  # Nobody waits any more.
  assert busy.ask([("g",)] * 6).result(10) == ["g"] * 6


def test_what_waits_at_the_end_is_answered(letters):
  with answering(letters.model, limit=6) as waiting:
    letters.batches.clear()
    letters.open.clear()
    futures = [waiting.ask([(text,)]) for text in ("a", "b", "x" * 20)]
    while not letters.batches:  # The model is at one, and others wait.
      time.sleep(0.01)
    threading.Timer(0.1, letters.open.set).start()
  assert [future.result(0) for future in futures] == [["a"], ["b"], ["x" * 20]]
  with pytest.raises(Overloaded):
    waiting.ask([("d",)])


def test_a_request_that_was_taken_back_is_not_run(letters, busy):
  gone, other = busy.ask([("a",)] * 5), busy.ask([("b",)])
  assert gone.cancel()
  letters.open.set()
  assert other.result(10) == ["b"]
  with pytest.raises(CancelledError):
    gone.result(0)
  assert letters.batches[1:] == [(["b"], (1, 16))]
  assert busy.ask([("g",)] * 6).result(10) == ["g"] * 6
