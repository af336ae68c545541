"""Augmented texts for `augdistill augment`: made, counted, shown."""

import argparse
import functools
from typing import Any

import jax
import numpy as np

from augdistill import prng
from augdistill.augment.methods import BASES, parse
from augdistill.cli.config import recipes
from augdistill.cli.trained import Trained
from augdistill.data.batches import eval_batches
from augdistill.data.load import Data, DataConfig, load_data
from augdistill.evaluation.outputs import decide, probabilities
from augdistill.evaluation.predict import logits_of
from augdistill.models.enct5 import enct5
from augdistill.models.sizes import enct5_config
from augdistill.training.methods import build_method
from augdistill.training.step import make_views
from augdistill.types import (
  Batch,
  Inputs,
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
    For each of the first `args.limit` texts and each view: text, partner,
    augmented text, and the teacher's probabilities of text and augmented
    text where there is a teacher; and for each view the shares over the file.

  Raises:
    UsageError: for wrong data, method or teacher.
  """
  teacher = Trained.load(args.teacher) if args.teacher else None
  data = _load(args, teacher)
  text = args.method
  if parse(text)[0].name not in BASES:
    text = f"kd+{text}"
  method = build_method(text, data.task.kind, recipes())
  network, params = _model(data, teacher, args.seed)
  lexicon = Lexicon(data.vocab.producible, data.vocab.protected)
  views_of = jax.jit(
    functools.partial(
      make_views,
      student=network,
      teacher=network,
      method=method,
      teacher_dropout=False,
    )
  )
  rows, counts, key = [], {}, prng.run_key(args.seed)
  for step, batch in enumerate(eval_batches(data.train, _BATCH)):
    views = views_of(params, params, lexicon, batch, key, np.int32(step))
    original = _answers(network, params, batch, teacher)
    for name, (view, partners) in views.items():
      if view.student.tokens is None:
        continue
      for copy in range(view.student.tokens.shape[0]):
        changed = batch._replace(tokens=np.asarray(view.student.tokens[copy]))
        new = _answers(network, params, changed, teacher)
        _count(counts.setdefault(name, {}), view, data.task, original, new,
               batch.weight, first=copy == 0)
        rows += _rows(name, data, batch, changed, partners, copy, original,
                      new, args.limit - step * _BATCH)
  summary = {
    name: {what: total / weight for what, (total, weight) in its.items()}
    for name, its in counts.items()
  }
  return rows, summary


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
  network = enct5(
    enct5_config("micro", data.vocab.size, data.task.num_outputs)
  )
  return network, network.init(prng.stream(prng.run_key(seed), "init"))


def _answers(
  network: Network, params: Params, batch: Batch, teacher: Trained | None
) -> np.ndarray | None:
  return np.asarray(logits_of(network, params, batch)) if teacher else None


def _count(counts, view, task: Task, original, new, weight, *, first):
  """Adds a batch's sums: token shares once per view, flips once per copy."""
  found = dict(view.stats) if first else {}
  if new is not None and task.kind != TaskKind.REGRESSION:
    same = np.all(decide(task.kind, original) == decide(task.kind, new), -1)
    found["teacher_class_flipped"] = ((weight * ~same).sum(), weight.sum())
  for name, (total, amount) in found.items():
    before = counts.get(name, (0.0, 0.0))
    counts[name] = (before[0] + float(total), before[1] + float(amount))


def _rows(name, data, batch, changed, partners, copy, original, new, limit):
  rows = []
  for i in range(min(len(batch.weight), max(limit, 0))):
    if not batch.weight[i]:
      continue
    row = {"view": name, "text": _text(data, batch.tokens[i])}
    if partners is not None:
      partner = int(partners[copy, i])
      row["partner"] = _text(data, batch.tokens[partner])
    row["augmented"] = _text(data, changed.tokens[i])
    if original is not None:
      row["teacher"] = _named(data.task, original[i])
      row["teacher_augmented"] = _named(data.task, new[i])
    rows.append(row)
  return rows


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


def show(rows: list[dict[str, Any]], summary: dict[str, dict]) -> None:
  """Prints what `augmented` returned, for a person."""
  from rich.console import Console
  from rich.table import Table

  console = Console(highlight=False)
  for row in rows:
    console.rule(row["view"], align="left")
    for key in ("text", "partner", "augmented"):
      if key in row:
        console.print(f"[bold]{key:>10}[/bold]  ", end="")
        console.print(row[key], markup=False)
    if "teacher" in row:
      console.print(f"[bold]{'teacher':>10}[/bold]  ", end="")
      console.print(
        f"{_top(row['teacher'])}  ->  {_top(row['teacher_augmented'])}",
        markup=False,
      )
  if not summary:
    console.print("this method has no view that makes tokens to show")
    return
  table = Table("view", title="over the whole file")
  names = list(dict.fromkeys(k for its in summary.values() for k in its))
  for name in names:
    table.add_column(name.replace("_", " "), justify="right")
  for view, its in summary.items():
    cells = (f"{its[n]:.1%}" if n in its else "" for n in names)
    table.add_row(view, *cells)
  console.print(table)


def _top(answer: dict[str, float] | float, count: int = 2) -> str:
  """The likeliest names with their probabilities, or the value."""
  if not isinstance(answer, dict):
    return f"{answer:.3f}"
  best = sorted(answer.items(), key=lambda item: -item[1])[:count]
  return ", ".join(f"{name} {p:.2f}" for name, p in best)
