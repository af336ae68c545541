"""Augmented texts for `augdistill augment`: made and counted."""

import argparse
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from augdistill import prng
from augdistill.augment.methods import BASES, parse
from augdistill.cli.given_rewrites import reads_rewrites
from augdistill.cli.served import network
from augdistill.cli.trained import Trained
from augdistill.data.batches import eval_batches
from augdistill.data.dataset import take
from augdistill.data.draws import permutation
from augdistill.data.load import Data, DataConfig, load_data
from augdistill.errors import UsageError
from augdistill.evaluation.outputs import decide, probabilities
from augdistill.evaluation.predict import logits_of
from augdistill.losses.named import TERMS
from augdistill.models.sizes import enct5_config
from augdistill.training.inspection import Sample, make_views
from augdistill.training.policies import build_policy
from augdistill.types import (
  Batch,
  Lexicon,
  Network,
  Params,
  Task,
  TaskKind,
)

_BATCH = 64


def augmented(
  args: argparse.Namespace,
) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
  """Augments a whole file.

  Args:
    args: the flags of `augdistill augment`.

  Returns:
    For each of the first `args.limit` texts, each view and copy: text,
    partner, augmented text, and the teacher's probabilities of text and
    augmented text where there is a teacher. And for each view the shares over
    the file: of tokens changed, from the row's own text (a), from its partner
    (b), from neither; and of copies of another class, as the teacher sees it.

  Raises:
    UsageError: for wrong data, method or teacher.
  """
  text = _method(args.method)
  teacher = Trained.load(args.teacher) if args.teacher else None
  data = _load(args, teacher)
  policy = build_policy(text, data.task.kind)
  model, params = _model(data, teacher, args.seed)
  student, student_params = _student(args.student, teacher) or (model, params)
  lexicon = Lexicon(data.vocab.producible, data.vocab.protected)
  views_of = [
    jax.jit(
      functools.partial(
        make_views, student=student, teacher=model, method=method
      )
    )
    for method in policy.methods
  ]

  names = dict.fromkeys(v.name for m in policy.methods for v in m.views)

  def ask(batch: Batch) -> np.ndarray | None:
    return np.asarray(logits_of(model, params, batch)) if teacher else None

  # Partners are drawn as in training: not among neighbours of a sorted file.
  order = permutation(len(data.train), "augment", args.seed)
  rows, sums, key = [], {}, prng.run_key(args.seed)
  for step, batch in enumerate(eval_batches(take(data.train, order), _BATCH)):
    before, views = ask(batch), {}
    for its_views in views_of:  # Of views that take turns, every one is shown.
      made = its_views(
        student_params, params, lexicon, batch, key, np.int32(step)
      )
      views = made | views
    for name in names:
      sample = views[name]
      if sample.reading is None:
        continue
      copies = _copies(batch, sample)
      after = [ask(copy) for copy, _ in copies]
      flips = _flips(data.task, batch.weight, before, after)
      _add(sums.setdefault(name, {}), sample.reading.stats | flips)
      for (copy, partner), answers in zip(copies, after, strict=True):
        shown = (batch.weight > 0) & (batch.example_id < args.limit)
        for i in np.flatnonzero(shown).tolist():
          row = {"example_id": int(batch.example_id[i]), "view": name}
          row |= _texts(data, batch, partner, copy, i)
          row |= _answers(data.task, before, answers, i)
          rows.append(row)
  rows.sort(key=lambda row: row["example_id"])
  return rows, {name: _shares(its) for name, its in sums.items()}


def _method(written: str) -> str:
  """The method whose views are shown; one without a base has kd's.

  Terms are left out: they compare models, and make no text.
  """
  if reads_rewrites(written):
    raise UsageError(
      f"{written!r} has a view of rewrites, which are not made here: their "
      "file shows them, and augdistill rewrite makes one"
    )
  calls = [str(call) for call in parse(written) if call.name not in TERMS]
  based = calls and parse(calls[0])[0].name in BASES
  return "+".join(calls if based else ["kd", *calls])


def _copies(
  batch: Batch, sample: Sample
) -> list[tuple[Batch, np.ndarray | None]]:
  """The copies of a view, each with the tokens that it was mixed with."""
  inputs = sample.reading.student
  tokens, mask = np.asarray(inputs.tokens), np.asarray(inputs.mask)
  mates = [] if sample.partners is None else np.asarray(sample.partners)
  # A copy in front of the mixed ones is the original, mixed with nothing.
  partners = [None] * (len(tokens) - len(mates)) + [
    batch.tokens[m] for m in mates
  ]
  return [
    (batch._replace(tokens=tokens[copy], mask=mask[copy]), partner)
    for copy, partner in enumerate(partners)
  ]


def _flips(
  task: Task,
  weight: np.ndarray,
  before: np.ndarray | None,
  after: list[np.ndarray | None],
) -> dict[str, tuple[float, float]]:
  """How many copies the teacher takes for another class, and of how many."""
  if before is None or task.kind == TaskKind.REGRESSION:
    return {}
  was = decide(task.kind, before)
  flips = [np.any(decide(task.kind, answer) != was, -1) for answer in after]
  total = sum(float((weight * flipped).sum()) for flipped in flips)
  return {"class_flipped": (total, len(after) * float(weight.sum()))}


def _add(
  sums: dict[str, tuple[float, float]], more: Mapping[str, tuple]
) -> None:
  for name, (total, weight) in more.items():
    before = sums.get(name, (0.0, 0.0))
    sums[name] = (before[0] + float(total), before[1] + float(weight))


def _shares(sums: dict[str, tuple[float, float]]) -> dict[str, float]:
  shares = {n: total / max(weight, 1.0) for n, (total, weight) in sums.items()}
  if "from_b" in shares:  # What was not changed is the row's own.
    shares = {"from_a": 1.0 - shares["changed"], **shares}
  order = ("changed", "from_a", "from_b", "from_neither")
  return {n: shares[n] for n in order if n in shares} | shares


def _texts(
  data: Data, batch: Batch, partner: np.ndarray | None, copy: Batch, i: int
) -> dict[str, str]:
  texts = {"text": _text(data, batch.tokens[i])}
  if partner is not None:
    texts["partner"] = _text(data, partner[i])
  return texts | {"augmented": _text(data, copy.tokens[i])}


def _answers(
  task: Task, before: np.ndarray | None, after: np.ndarray | None, i: int
) -> dict[str, Any]:
  if before is None:
    return {}
  return {
    "teacher": _named(task, before[i]),
    "teacher_augmented": _named(task, after[i]),
  }


def _load(args: argparse.Namespace, teacher: Trained | None) -> Data:
  task = teacher.served.task if teacher else None
  # The file is read as training data with nothing held out of it.
  return load_data(
    DataConfig(
      train=args.data,
      validation=args.data,
      text_column=args.text_column,
      label_column=args.label_column,
      label_names=task.label_names if task else None,
      task_kind=str(task.kind) if task else None,
      pair=task.pair if task else None,
      vocab=teacher.vocab_path if teacher else None,
      max_length=teacher.served.max_length if teacher else 128,
    )
  )


def _model(
  data: Data, teacher: Trained | None, seed: int
) -> tuple[Network, Params]:
  """The teacher; or, to show token views without one, an untrained model."""
  if teacher:
    return teacher.network, teacher.params
  shape = enct5_config("micro", data.vocab.size, data.task.num_outputs)
  model, key = network(shape), prng.stream(prng.run_key(seed), "init")
  return model, jax.jit(model.init)(key)


def _student(
  path: str | None, teacher: Trained | None
) -> tuple[Network, Params] | None:
  """The student of a run, which reads with the teacher's vocabulary."""
  if path is None:
    return None
  if teacher is None:
    raise UsageError(
      "--student DIR goes with --teacher DIR, which it learnt of"
    )
  student = Trained.load(path)
  if student.vocab.fingerprint != teacher.vocab.fingerprint:
    raise UsageError(
      "--student and --teacher must read with one vocabulary, got "
      f"{student.vocab_path} and {teacher.vocab_path}"
    )
  return student.network, student.params


def _text(data: Data, tokens: np.ndarray) -> str:
  """A row's text as the models read it; the two of a pair joined by " | "."""
  parts = np.split(tokens, np.flatnonzero(tokens == data.vocab.eos_id) + 1)
  words = [data.vocab.decode(part[part != data.vocab.pad_id]) for part in parts]
  return " | ".join(word for word in words if word)


def _named(task: Task, logits: np.ndarray) -> dict[str, float] | float:
  if task.kind == TaskKind.REGRESSION:
    return float(logits[0])
  values = probabilities(task.kind, logits[None])[0]
  return dict(zip(task.label_names, map(float, values), strict=True))
