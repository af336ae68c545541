"""The data of a run, from one configuration: what the command line calls.

Whatever the data come from, they first become tables of texts and labels,
then a seqio Task, then memory-mapped arrays.
"""

import dataclasses
import hashlib
import json
import os
from typing import Any

import numpy as np

from augdistill.cache_dir import default_cache_dir
from augdistill.data import tasks
from augdistill.data.dataset import (
  Examples,
  balanced_subset,
  concat,
  hold_out,
  materialise,
  share_of,
  without_labels,
)
from augdistill.data.embedded import EMBEDDED, read_embedded
from augdistill.data.files import Table, read_table
from augdistill.data.glue import GLUE, glue_task
from augdistill.data.labels import (
  METRICS,
  encode_labels,
  infer_kind,
  infer_task,
)
from augdistill.data.rows import read_glue, read_task
from augdistill.data.sentence_pieces import train_vocab
from augdistill.data.vocabulary import Vocab, load_vocab
from augdistill.errors import UsageError, listing, said_of, suggest
from augdistill.types import Task, TaskKind

_FORMAT = 1  # of what is kept in the cache; to be raised when it changes
_LABELLED = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Which data, and how to read them.

  Attributes:
    task: the name of a seqio Task; or files, by split:
    train: labelled texts.
    validation: labelled texts; without, a share of `train` is held out.
    test: labelled texts.
    unlabeled: texts; labels, if there are any, are not read.
    text_column: "NAME" or "NAME1,NAME2".
    label_column: the labels' column.
    task_kind: classes, regression or multi_label, if not to be inferred.
    vocab: a vocabulary's file, as of `load_vocab`; without, the Task's own, or
      one that is trained on the texts of `train`, or of `unlabeled` where that
      is all.
    vocab_size: how many pieces a trained vocabulary has at most.
    max_length: the most tokens of an example.
    tfds_data_dir: where TFDS keeps its data.
    validation_fraction: the share of `train` to hold out.
    train_examples: learn from so many rows of `train`, balanced over classes.
    train_fraction: learn from this share of the rows of each class.
    labeled_fraction: this share of the rows of each class keeps its labels;
      the other rows count as unlabelled ones.
    seed: draws which rows are learnt from.
    validation_seed: draws what is held out, and which rows keep their labels.
      It is not the run's seed: runs of all seeds, and the teacher of a
      student, hold out the same rows.
    cache_dir: where tokenised data are kept; by default `default_cache_dir()`.
    label_names: the outputs of a model that exists already, in their order;
      the data's labels are mapped to it by name. () for regression.
    pair: whether that model reads pairs of texts.
    name: the task's name in reports; by default made from the file's name.
  """

  task: str | None = None
  train: str | None = None
  validation: str | None = None
  test: str | None = None
  unlabeled: str | None = None
  text_column: str | None = None
  label_column: str = "label"
  task_kind: str | None = None
  vocab: str | None = None
  vocab_size: int = 2200
  max_length: int = 128
  tfds_data_dir: str | None = None
  validation_fraction: float = 0.1
  train_examples: int | None = None
  train_fraction: float | None = None
  labeled_fraction: float | None = None
  seed: int = 0
  validation_seed: int = 0
  cache_dir: str | None = None
  label_names: tuple[str, ...] | None = None
  pair: bool | None = None
  name: str | None = None


@dataclasses.dataclass(frozen=True)
class Data:
  """What a run learns from and is measured on; a missing split is None.

  Attributes:
    task: what is to be learnt.
    vocab: what tokens mean.
    train: labelled rows.
    validation: labelled rows that choose the checkpoint.
    test: labelled rows that are only reported.
    unlabeled: rows without labels.
    notes: what a person should be told about the data, one line each.
  """

  task: Task
  vocab: Vocab
  train: Examples | None = None
  validation: Examples | None = None
  test: Examples | None = None
  unlabeled: Examples | None = None
  notes: tuple[str, ...] = ()


def load_data(config: DataConfig) -> Data:
  """Loads all splits of a run.

  Args:
    config: which data.

  Returns:
    The data, tokenised, from the cache where it has them already.

  Raises:
    UsageError: for anything wrong with the data or the configuration.
  """
  if config.max_length < 8:
    raise UsageError(f"max_length must be at least 8, got {config.max_length}.")
  if config.task_kind not in (None, *TaskKind):
    raise UsageError(
      f"--task_kind must be one of {listing(TaskKind)}, got "
      f"'{config.task_kind}'.{suggest(config.task_kind, TaskKind)}"
    )
  cache_dir = config.cache_dir or default_cache_dir()
  tables, declared, own_vocab = _read_tables(config, cache_dir)
  task, notes = _resolve_task(config, tables, declared)
  vocab = _resolve_vocab(config, tables, own_vocab)
  splits = _tokenise(tables, task, vocab, config.max_length, cache_dir)
  if "train" in splits and "validation" not in splits:
    splits["train"], splits["validation"] = hold_out(
      splits["train"], task, config.validation_fraction, config.validation_seed
    )
  splits |= _fewer(splits, task, config)
  return Data(task, vocab, **splits, notes=notes)


def _fewer(
  splits: dict[str, Examples], task: Task, config: DataConfig
) -> dict[str, Examples]:
  """The training rows to learn from, and those that lose their labels."""
  names = ("train_examples", "train_fraction", "labeled_fraction")
  given = [name for name in names if getattr(config, name) is not None]
  if len(given) > 1:
    raise UsageError(f"give --{given[0]} or --{given[1]}, but not both.")
  if not given:
    return {}
  if "train" not in splits:
    raise UsageError(f"--{given[0]} is of the rows of --train, which is none.")
  train = splits["train"]
  with said_of(f"--{given[0]}"):
    if config.train_examples is not None:
      n, seed = config.train_examples, config.seed
      return {"train": balanced_subset(train, task, n, seed)}
    if config.train_fraction is not None:
      name = ("train_fraction", config.seed)
      return {"train": share_of(train, task, config.train_fraction, *name)[0]}
    name = ("labeled_fraction", config.validation_seed)
    train, rest = share_of(train, task, config.labeled_fraction, *name)
  rest = without_labels(rest)
  if not len(rest):
    raise UsageError("--labeled_fraction must leave a row without a label.")
  if more := splits.get("unlabeled"):
    rest = concat(rest, more)
  return {"train": train, "unlabeled": rest}


def task_texts(
  name: str, tfds_data_dir: str | None = None
) -> list[tuple[str, ...]]:
  """The training texts of a task by name.

  Raises:
    UsageError: if there is no such task, or it has no training texts.
  """
  config = DataConfig(task=name, tfds_data_dir=tfds_data_dir)
  tables, *_ = _read_tables(config, default_cache_dir())
  if "train" not in tables:
    raise UsageError(f"task '{name}' must have training texts.")
  return tables["train"].texts


def _read_tables(
  config: DataConfig, cache_dir: str
) -> tuple[dict[str, Table], Task | None, Vocab | None]:
  """The tables by split, and what a seqio Task says of itself."""
  paths = {s: getattr(config, s) for s in (*_LABELLED, "unlabeled")}
  paths = {s: path for s, path in paths.items() if path is not None}
  declared, vocab, tables = None, None, {}
  if config.task is not None:
    if set(paths) - {"unlabeled"}:
      raise UsageError("data must be given either by --task or by files.")
    if config.task in GLUE:
      declared = glue_task(config.task)
      tables = read_glue(config.task, config.tfds_data_dir, cache_dir)
    elif config.task in EMBEDDED:
      tables = read_embedded(config.task)
    else:
      tables, vocab = read_task(config.task, config.task_kind)
  elif not paths:
    raise UsageError("data must be given, by --task NAME or --train FILE.")
  columns = tuple(c.strip() for c in (config.text_column or "").split(",") if c)
  kind = config.task_kind
  for split, path in paths.items():
    tables[split] = read_table(
      path,
      text_columns=columns or None,
      label_column=config.label_column,
      labelled=split in _LABELLED,
      kind=kind,
    )
    if split == "train" and kind is None:
      kind = infer_kind(tables["train"].labels)
  if not tables:
    raise UsageError(f"task '{config.task}' must have a labelled split.")
  _check_pairs(tables, config.pair)
  return tables, declared, vocab


def _check_pairs(tables: dict[str, Table], pair: bool | None) -> None:
  """All splits must hold pairs, or none; and as the model does."""
  shape = {True: "pairs of texts", False: "single texts"}
  for table in tables.values():
    pair = table.pair if pair is None else pair
    if table.pair != pair:
      raise UsageError(
        f"{table.path} must hold {shape[pair]}, as the model or the first "
        f"file does, got {shape[table.pair]}."
      )


def _resolve_task(
  config: DataConfig, tables: dict[str, Table], declared: Task | None
) -> tuple[Task, tuple[str, ...]]:
  """What is to be learnt, and notes on how the labels were mapped."""
  pair = next(iter(tables.values())).pair
  name = config.name or config.task or _name(tables)
  if "train" in tables:
    found = declared or infer_task(
      name, tables["train"].labels, kind=config.task_kind, pair=pair
    )
    if config.label_names is None:
      return found, ()
    return _map_labels(found, tuple(config.label_names), tables["train"].path)
  if config.label_names is None:
    raise UsageError("labelled training data must be given, by --train FILE.")
  kind = config.task_kind or (
    TaskKind.CLASSES if config.label_names else TaskKind.REGRESSION
  )
  kind = TaskKind(kind)
  return Task(name, kind, config.label_names, METRICS[kind], pair), ()


def _map_labels(
  found: Task, label_names: tuple[str, ...], path: str
) -> tuple[Task, tuple[str, ...]]:
  """The task with its names in the order of a model that exists already."""
  missing = [n for n in label_names if n not in found.label_names]
  unknown = [n for n in found.label_names if n not in label_names]
  if missing or unknown:
    raise UsageError(
      f"{path} must have the teacher's labels; the teacher lacks "
      f"{listing(unknown)}; the data lack {listing(missing)}."
    )
  notes = ()
  if found.label_names != label_names:
    notes = (f"labels of {path} are mapped by name to the teacher's order",)
  return dataclasses.replace(found, label_names=label_names), notes


def _name(tables: dict[str, Table]) -> str:
  """A name from a file's name, or from its folder's if it says only "train"."""
  path = os.path.abspath(next(iter(tables.values())).path)
  folder, file = os.path.split(path)
  stem = os.path.splitext(file)[0]
  generic = stem.lower() in ("train", "training", "test", "dev", "validation")
  return (os.path.basename(folder) if generic else stem) or stem


def _resolve_vocab(
  config: DataConfig, tables: dict[str, Table], own: Vocab | None
) -> Vocab:
  if config.vocab is not None:
    return load_vocab(config.vocab)
  if own is not None:
    return own
  source = tables.get("train") or tables.get("unlabeled")
  if source is None:
    raise UsageError("a vocabulary must be given with --vocab FILE.")
  return train_vocab(
    (text for texts in source.texts for text in texts), config.vocab_size
  )


def _tokenise(
  tables: dict[str, Table],
  task: Task,
  vocab: Vocab,
  max_length: int,
  cache_dir: str,
) -> dict[str, Examples]:
  """All splits, from the cache where they are in it."""
  labels = {s: _labels(task, table) for s, table in tables.items()}

  def make(split: str) -> Examples:
    name = tasks.register_file_task(task.name, tables, vocab, cache_dir)
    tokens, offsets = tasks.read_tokens(name, split)
    tokens, offsets = tasks.truncate(tokens, offsets, max_length, vocab.frame)
    n = len(tables[split].texts)
    return Examples(
      tokens=tokens,
      offsets=offsets,
      label=labels[split],
      has_label=np.full(n, tables[split].labels is not None),
      example_id=np.arange(n, dtype=np.int32),
      read_texts=lambda: tables[split].texts,
    )

  return {
    split: materialise(
      cache_dir,
      _key(
        _FORMAT,
        table.fingerprint,
        task.kind,
        task.label_names,
        vocab.fingerprint,
        max_length,
      ),
      lambda split=split: make(split),
    )
    for split, table in tables.items()
  }


def _labels(task: Task, table: Table) -> np.ndarray:
  if table.labels is None:
    return np.zeros((len(table.texts), task.num_outputs), np.float32)
  return encode_labels(task, table.labels, table.where)


def _key(*content: Any) -> str:
  return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
