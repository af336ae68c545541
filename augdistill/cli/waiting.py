"""Texts that wait for a model, and the one thread that answers them.

Requests come from any thread and wait in one queue. The thread takes the text
that has waited longest and, of all that wait then, those of about its length:
one batch, of one of a few shapes. Nobody waits for a batch to fill; batches
grow because texts arrive while the model runs. A request is answered when the
last of its texts is.
"""

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from augdistill.data.shapes import Shape, next_batch

Text = tuple[str, ...]


class Overloaded(Exception):
  """More texts wait than may; ask again later."""


@dataclasses.dataclass(frozen=True)
class Model:
  """What the thread runs.

  Attributes:
    encode: texts -> i32[L_i], the tokens of each.
    answer: (at most B rows of tokens, (B, L)) -> an answer to each row.
    shapes: all (B, L) that `answer` is ever asked for.
  """

  encode: Callable[[Sequence[Text]], list[np.ndarray]]
  answer: Callable[[Sequence[np.ndarray], Shape], list[Any]]
  shapes: Sequence[Shape]


@dataclasses.dataclass(eq=False)
class _Request:
  texts: Sequence[Text]
  future: Future
  answers: dict[int, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(eq=False)
class _Row:
  request: _Request
  index: int  # of its text in the request
  tokens: np.ndarray


@contextlib.contextmanager
def answering(model: Model, limit: int) -> Iterator["Waiting"]:
  """A queue whose thread runs, and has every shape compiled.

  At the end of the context nothing more is taken, and what waits is answered.

  Args:
    model: what answers.
    limit: how many texts may wait.

  Yields:
    The queue.

  Raises:
    Exception: whatever the model raised of an empty batch.
  """
  waiting, ready = Waiting(model, limit), Future()
  # In the thread that will run them: JAX's settings are a thread's own, and a
  # program of other settings would be compiled again.
  thread = threading.Thread(
    target=waiting.work, args=(ready,), name="model", daemon=True
  )
  thread.start()
  try:
    ready.result()
    yield waiting
  finally:
    waiting.close()
    thread.join()


class Waiting:
  """The queue; see `answering`."""

  def __init__(self, model: Model, limit: int):
    self._model, self._limit = model, limit
    self._changed = threading.Condition()  # guards the next three
    self._arrived: list[_Request] = []
    self._count = 0  # of texts that are in no batch yet
    self._closed = False
    self._rows: list[_Row] = []  # the thread's own, the oldest first

  def ask(self, texts: Sequence[Text]) -> Future:
    """Puts the texts of one request into the queue.

    Args:
      texts: at most `limit`; none are answered at once.

    Returns:
      A future of the answers, in the order of the texts; or of the exception
      that the model raised of any of them.

    Raises:
      Overloaded: if more than `limit` texts would wait, or the queue is closed.
    """
    future = Future()
    if not texts:
      future.set_result([])
      return future
    with self._changed:
      if self._closed or self._count + len(texts) > self._limit:
        raise Overloaded(f"{self._count} texts wait, at most {self._limit} may")
      self._count += len(texts)
      self._arrived.append(_Request(texts, future))
      self._changed.notify()
    return future

  def close(self) -> None:
    """Takes no more texts; the thread ends when nothing waits."""
    with self._changed:
      self._closed = True
      self._changed.notify()

  def work(self, ready: Future) -> None:
    """The thread: compiles, then answers until it is closed.

    Args:
      ready: is done when all shapes are compiled, or has what went wrong.
    """
    try:
      for shape in self._model.shapes:
        if not self._closed:
          self._model.answer([], shape)
    except Exception as error:
      ready.set_exception(error)
      return
    ready.set_result(None)
    while self._take_arrived():
      if self._rows:
        self._answer_batch()

  def _take_arrived(self) -> bool:
    """Waits for texts; False when there will be none."""
    with self._changed:
      self._changed.wait_for(
        lambda: self._arrived or self._rows or self._closed
      )
      arrived, self._arrived = self._arrived, []
    for request in arrived:
      # Nobody can take a request back from here on.
      if not request.future.set_running_or_notify_cancel():
        self._forget(len(request.texts))
        continue
      with self._failing([request], len(request.texts)):
        tokens = self._model.encode(request.texts)
        self._rows += [_Row(request, i, t) for i, t in enumerate(tokens)]
    return bool(arrived or self._rows)

  def _answer_batch(self) -> None:
    lengths = np.array([len(row.tokens) for row in self._rows])
    chosen, shape = next_batch(lengths, self._model.shapes)
    batch = [self._rows[i] for i in chosen]
    taken = set(batch)
    self._rows = [row for row in self._rows if row not in taken]
    self._forget(len(batch))
    with self._failing({row.request for row in batch}):
      answers = self._model.answer([row.tokens for row in batch], shape)
      for row, answer in zip(batch, answers, strict=True):
        its = row.request.answers
        its[row.index] = answer
        if len(its) == len(row.request.texts):
          row.request.future.set_result([its[i] for i in range(len(its))])

  @contextlib.contextmanager
  def _failing(
    self, requests: Iterable[_Request], uncounted: int = 0
  ) -> Iterator[None]:
    """Whatever goes wrong here is the answer to these requests only."""
    try:
      yield
    except Exception as error:
      logging.getLogger(__name__).exception("the model failed on a batch")
      failed = [r for r in requests if not r.future.done()]
      for request in failed:
        request.future.set_exception(error)
      before = len(self._rows)
      self._rows = [row for row in self._rows if row.request not in failed]
      self._forget(before - len(self._rows) + uncounted)

  def _forget(self, count: int) -> None:
    with self._changed:
      self._count -= count
