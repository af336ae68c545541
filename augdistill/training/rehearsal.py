"""A step that is traced and never run: what does not fit shows for nothing.

Whether a layer map fits two depths, or a vocabulary has as many neighbours as
a view asks for, shows where networks and method meet: when a step is traced.
A run asks before it claims a directory, and before it trains a teacher.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from augdistill.training.flops import count_flops
from augdistill.training.step import grads_and_metrics
from augdistill.types import (
  Batch,
  Lexicon,
  Method,
  Metrics,
  Network,
  Params,
  Text,
)

_ROWS, _LENGTH = 2, 8  # Any will do.


def rehearse(
  method: Method,
  student: Network,
  teacher: Network | None,
  vocab_size: int,
  apart: bool = False,
) -> None:
  """Traces a step of a method; nothing is computed.

  Args:
    method: what is to be minimised.
    student: the student's network.
    teacher: the teacher's, or None.
    vocab_size: V, the student's.
    apart: whether the teacher reads with another vocabulary.

  Raises:
    UsageError: if the method does not fit the networks or the vocabularies.
  """
  jax.eval_shape(_step(method, student, teacher, vocab_size, apart))


def spares_teacher(
  method: Method,
  student: Network,
  teacher: Network,
  vocab_size: int,
  apart: bool = False,
) -> bool:
  """Whether a step need not run the teacher on a batch that has its answers.

  It must, all the same, where a term reads the teacher's layers, and need not
  have done so where the method has no clean batch.

  Args: as of `rehearse`.
  """
  what = method, student, teacher, vocab_size, apart
  with_answers, without = (
    count_flops(_step(*what, answered))["clean:teacher"]
    for answered in (True, False)
  )
  return with_answers == 0 < without


def _step(
  method: Method,
  student: Network,
  teacher: Network | None,
  vocab_size: int,
  apart: bool,
  answered: bool = False,
) -> Callable[[], tuple[Params, Metrics]]:
  """A step on rows that mean nothing."""

  def step():
    key, words = jax.random.key(0), jnp.ones(vocab_size, bool)
    row = jnp.ones(_ROWS)
    batch = Batch(
      tokens=jnp.zeros((_ROWS, _LENGTH), jnp.int32),
      mask=jnp.ones((_ROWS, _LENGTH), bool),
      label=jnp.zeros((_ROWS, student.num_outputs)),
      has_label=row > 0,
      weight=row,
      example_id=jnp.arange(_ROWS, dtype=jnp.int32),
    )
    rewrites = jax.tree.map(lambda x: x[None], batch)
    if apart:  # Its texts have other lengths.
      tokens = jnp.zeros((_ROWS, 2 * _LENGTH), jnp.int32)
      batch = batch._replace(teacher=Text(tokens, tokens == 0))
    if answered:
      batch = batch._replace(answers=batch.label)
    return grads_and_metrics(
      student.init(key),
      teacher.init(key) if teacher else None,
      Lexicon(producible=words, protected=~words),
      batch._replace(rewrites=rewrites),
      key,
      jnp.int32(0),
      student=student,
      teacher=teacher,
      method=method,
    )

  return step
