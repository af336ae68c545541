"""Views read as texts: what a method makes of rows."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from augdistill import prng
from augdistill.cli.parts import Experiment
from augdistill.data.batches import first_rows
from augdistill.data.load import Data
from augdistill.data.vocabulary import Vocab
from augdistill.evaluation.outputs import probabilities
from augdistill.evaluation.predict import fetch, logits_of
from augdistill.training import mesh
from augdistill.training.inspection import Sample, make_views
from augdistill.training.policies import Policy
from augdistill.types import (
  Batch,
  Lexicon,
  Metrics,
  Network,
  Params,
  Task,
  TaskKind,
)


class Copy(NamedTuple):
  """One copy of a view, as it reads.

  Attributes:
    batch: the rows with the copy's tokens.
    partner: i32[B, L], the tokens that each row was mixed with, or None.
  """

  batch: Batch
  partner: np.ndarray | None


class Reading(NamedTuple):
  """A view, as it reads.

  Attributes:
    copies: of every row.
    stats: its own statistics, as (sum, weight).
  """

  copies: list[Copy]
  stats: Metrics


def make_reader(
  policy: Policy,
  student: Network,
  teacher: Network | None,
  lexicon: Lexicon,
  seed: int,
) -> Callable[[Params, Params | None, Batch, int], dict[str, Reading]]:
  """What reads a policy's views; of views that take turns, every one.

  Args:
    policy: whose views.
    student: the student's network.
    teacher: the teacher's network, or None where the policy needs none.
    lexicon: what the vocabulary allows augmentations to do.
    seed: the run's.

  Returns:
    (student's parameters, teacher's, batch, step) -> view's name -> how it
    reads at that step. Views that have no positions to read are left out.
  """
  makers = [
    jax.jit(
      functools.partial(
        make_views, student=student, teacher=teacher, method=method
      )
    )
    for method in policy.methods
  ]
  names = dict.fromkeys(v.name for m in policy.methods for v in m.views)
  key = prng.run_key(seed)

  def read(params, teacher_params, batch, step):
    made: dict[str, Sample] = {}
    for make in makers:
      now = np.int32(step)
      made = make(params, teacher_params, lexicon, batch, key, now) | made
    return {
      name: Reading(_copies(batch, made[name]), made[name].reading.stats)
      for name in names
      if made[name].reading is not None
    }

  return read


def _copies(batch: Batch, sample: Sample) -> list[Copy]:
  inputs = sample.reading.student
  tokens, mask = fetch(inputs.tokens), fetch(inputs.mask)
  mates = [] if sample.partners is None else fetch(sample.partners)
  # A copy in front of the mixed ones is the original, mixed with nothing.
  originals = [None] * (len(tokens) - len(mates))
  own = np.asarray(batch.tokens)
  return [
    Copy(batch._replace(tokens=tokens[i], mask=mask[i]), partner)
    for i, partner in enumerate([*originals, *(own[m] for m in mates)])
  ]


def rows_of(
  data: Data,
  batch: Batch,
  name: str,
  copy: Copy,
  answers: tuple[np.ndarray, np.ndarray] | None,
  shown: np.ndarray,
) -> Iterator[dict[str, Any]]:
  """A copy's rows, to be written down.

  Args:
    data: its vocabulary and task.
    batch: the rows as they were.
    name: of the view.
    copy: the rows as they are.
    answers: f32[B, C] the teacher's logits of both, or None.
    shown: bool[B], which rows.

  Yields:
    The number of the example, view, text, partner, augmented text, and the
    teacher's probabilities (or value) of text and augmented text.
  """
  vocab, task = data.vocab, data.task
  for i in np.flatnonzero(shown).tolist():
    row = {
      "example_id": int(batch.example_id[i]),
      "view": name,
      "text": _text(vocab, np.asarray(batch.tokens[i])),
    }
    if copy.partner is not None:
      row["partner"] = _text(vocab, copy.partner[i])
    row["augmented"] = _text(vocab, copy.batch.tokens[i])
    if answers is not None:
      before, after = answers
      row["teacher"] = _named(task, before[i])
      row["teacher_augmented"] = _named(task, after[i])
    yield row


def make_sampler(
  experiment: Experiment, batch: Batch
) -> Callable[[int, Params], list[dict[str, Any]]] | None:
  """What shows a run's views on its way, always of the same rows.

  Args:
    experiment: the run.
    batch: one of its training batches, of which the first
      `config.num_samples` rows are shown.

  Returns:
    (step, student's parameters) -> rows as of `rows_of`, with the likeliest
    names of the teacher's answers; None where there is nothing to show.
  """
  config, policy, data = experiment.config, experiment.policy, experiment.data
  teacher = experiment.teacher if policy.needs_teacher else None
  if not config.num_samples or not any(m.views for m in policy.methods):
    return None
  devices = experiment.mesh
  whole = mesh.replicated(devices)
  rows = mesh.place(first_rows(batch, config.num_samples), whole)
  read = make_reader(
    policy,
    experiment.student,
    teacher and teacher.network,
    experiment.lexicon,
    config.seed,
  )

  def sample(step: int, params: Params) -> list[dict[str, Any]]:
    theirs = experiment.teacher_params if teacher else None

    def ask(batch: Batch) -> np.ndarray:
      placed = mesh.place(batch._replace(rewrites=None), whole)
      return fetch(logits_of(teacher.network, theirs, placed))

    # Of what a view makes it can say nothing if it cannot read that.
    asked = teacher and not experiment.apart
    before, shown = ask(rows) if asked else None, np.asarray(rows.weight) > 0
    found = []
    for name, reading in read(params, theirs, rows, step).items():
      for copy in reading.copies:
        answers = (before, ask(copy.batch)) if asked else None
        found += rows_of(data, rows, name, copy, answers, shown)
    return [{k: _likeliest(v) for k, v in row.items()} for row in found]

  return sample


def _likeliest(value: Any, count: int = 3) -> Any:
  """Of an answer, the names that matter; anything else as it is."""
  if not isinstance(value, dict):
    return value
  return dict(sorted(value.items(), key=lambda item: -item[1])[:count])


def _text(vocab: Vocab, tokens: np.ndarray) -> str:
  """A row's text as the models read it; the two of a pair joined by " | "."""
  words = map(vocab.decode, vocab.frame.split(tokens))
  return " | ".join(word for word in words if word)


def _named(task: Task, logits: np.ndarray) -> dict[str, float] | float:
  if task.kind == TaskKind.REGRESSION:
    return float(logits[0])
  values = probabilities(task.kind, logits[None])[0]
  return dict(zip(task.label_names, map(float, values), strict=True))
