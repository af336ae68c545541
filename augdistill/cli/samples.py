"""Augmented texts for `augdistill augment`: made and counted."""

import argparse
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from augdistill import prng
from augdistill.augment.methods import BASES, parse, written_out
from augdistill.cli.given_rewrites import reads_rewrites
from augdistill.cli.sampling import make_reader, rows_of
from augdistill.cli.trained import Trained
from augdistill.data.batches import eval_batches
from augdistill.data.dataset import take
from augdistill.data.draws import permutation
from augdistill.data.load import Data, DataConfig, load_data
from augdistill.errors import UsageError
from augdistill.evaluation.outputs import decide
from augdistill.evaluation.predict import logits_of
from augdistill.losses.named import TERMS
from augdistill.models.networks import network
from augdistill.models.sizes import enct5_config
from augdistill.training.policies import build_policy
from augdistill.types import Batch, Network, Params, Task, TaskKind

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
  text = _method(written_out(args.method))
  teacher = Trained.load(args.teacher) if args.teacher else None
  data = _load(args, teacher)
  policy = build_policy(text, data.task.kind)
  model, params = _model(data, teacher, args.seed)
  student, student_params = _student(args.student, teacher) or (model, params)
  lexicon = data.vocab.lexicon
  read = make_reader(policy, student, model, lexicon, args.seed)

  def ask(batch: Batch) -> np.ndarray:
    return np.asarray(logits_of(model, params, batch))

  # Partners are drawn as in training: not among neighbours of a sorted file.
  order = permutation(len(data.train), "augment", args.seed)
  rows, sums = [], {}
  for step, batch in enumerate(eval_batches(take(data.train, order), _BATCH)):
    before = ask(batch) if teacher else None
    shown = (batch.weight > 0) & (batch.example_id < args.limit)
    for name, reading in read(student_params, params, batch, step).items():
      after = [ask(copy.batch) if teacher else None for copy in reading.copies]
      flips = _flips(data.task, batch.weight, before, after)
      _add(sums.setdefault(name, {}), reading.stats | flips)
      for copy, answer in zip(reading.copies, after, strict=True):
        answers = (before, answer) if teacher else None
        rows += rows_of(data, batch, name, copy, answers, shown)
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
      pair=teacher.pair if teacher else None,
      vocab=teacher.vocab_path if teacher else None,
      max_length=teacher.served.max_length if teacher else 128,
    )
  )


def _model(
  data: Data, teacher: Trained | None, seed: int
) -> tuple[Network, Params]:
  """The teacher; or, to show token views without one, an untrained model."""
  if teacher:
    return teacher.network, jax.device_put(teacher.params)
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
  return student.network, jax.device_put(student.params)
