"""The rows of any seqio Task, as the tables that files are read into."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

from augdistill.atomic import replacing
from augdistill.data import glue
from augdistill.data.embedded import EMBEDDED
from augdistill.data.files import RawLabel, Table, parse_label
from augdistill.data.sentence_pieces import read_vocab
from augdistill.data.tasks import TEXT_FEATURES, import_seqio
from augdistill.data.vocabulary import Vocab
from augdistill.errors import UsageError, suggest
from augdistill.types import TaskKind

_SPLITS = ("train", "validation", "test")
# Features with the text, then features with the label; the first that a Task
# has is taken.
_TEXTS = (*TEXT_FEATURES, ("inputs_pretokenized",), ("inputs",))
_LABELS = ("targets_pretokenized", "targets", "label")


def read_glue(
  name: str, tfds_data_dir: str | None, cache_dir: str
) -> dict[str, Table]:
  """The splits of a task of GLUE.

  They are kept in the cache, since TFDS's versions do not change, so that
  reading them again takes neither tensorflow nor time.

  Args:
    name: a key of `glue.GLUE`.
    tfds_data_dir: where TFDS keeps its data; None is TFDS's own choice.
    cache_dir: where tables are kept.

  Returns:
    A table per labelled split; of most tasks, test is not.

  Raises:
    UsageError: if the data are neither there nor can be downloaded.
  """
  source = hashlib.sha256(f"{tfds_data_dir}".encode()).hexdigest()[:16]
  path = os.path.join(cache_dir, f"glue-{glue.VERSION}-{name}-{source}.json")
  if os.path.exists(path):
    with open(path) as file:
      return {
        split: _table(name, split, [tuple(t) for t in texts], labels)
        for split, (texts, labels) in json.load(file).items()
      }
  try:
    task = glue.glue_seqio_task(name, tfds_data_dir, download=False)
    tables = _read(name, task)
  except UsageError:
    glue.check_reachable(name, tfds_data_dir)
    tables = _read(name, glue.glue_seqio_task(name, tfds_data_dir))
  with replacing(path) as file:
    json.dump({s: (t.texts, t.labels) for s, t in tables.items()}, file)
  return tables


def read_glue_test(
  name: str, tfds_data_dir: str | None
) -> tuple[list[tuple[str, ...]], list[int]]:
  """The test rows of a task of GLUE, whose labels are hidden.

  Args:
    name: a key of `glue.GLUE`.
    tfds_data_dir: as of `read_glue`.

  Returns:
    (texts, the number of each row at GLUE).

  Raises:
    UsageError: if the data are neither there nor can be downloaded.
  """

  def read(download: bool) -> dict[str, list]:
    task = glue.glue_seqio_task(name, tfds_data_dir, download)
    return _columns(task, "test", also=("idx",))

  try:
    columns = read(download=False)
  except Exception:  # TFDS has errors of many kinds for data that is not there.
    glue.check_reachable(name, tfds_data_dir)
    columns = read(download=True)
  names = next(names for names in TEXT_FEATURES if names[0] in columns)
  texts = zip(*(columns[name] for name in names), strict=True)
  return list(texts), columns["idx"]


def read_task(
  name: str, kind: TaskKind | str | None = None
) -> tuple[dict[str, Table], Vocab | None]:
  """The splits of a Task in seqio's registry.

  Texts are its features `sentence`, or `sentence1` and `sentence2`, or
  `inputs_pretokenized`, or `inputs` decoded. Labels are
  `targets_pretokenized`, or `targets` decoded, or `label`. A split whose labels
  are all empty or -1 is unlabelled, and left out.

  Args:
    name: the Task's.
    kind: what the labels are, if it was given.

  Returns:
    A table for each of the splits train, validation and test that it has
    labels for, and the vocabulary of `inputs` if that is a SentencePiece model.

  Raises:
    UsageError: if there is no such Task, or it cannot be read.
  """
  registry = import_seqio().TaskRegistry
  if name not in registry.names():
    own = (*EMBEDDED, *glue.GLUE)
    near = suggest(name, [*own, *registry.names()])
    raise UsageError(
      f"--task must be one of {', '.join(own)}, or a seqio Task that an "
      f"imported module registers, got '{name}'.{near}"
    )
  task = registry.get(name)
  return _read(name, task, kind), _sentencepiece(task)


def _read(
  name: str, task: Any, kind: TaskKind | str | None = None
) -> dict[str, Table]:
  tables = {}
  for split in [s for s in _SPLITS if s in task.splits]:
    try:
      columns = _columns(task, split)
    except Exception as error:  # whatever the Task's own code raises
      first_line = str(error).strip().split("\n")[0]
      raise UsageError(
        f"split '{split}' of task '{name}' cannot be read: "
        f"{type(error).__name__}: {first_line}"
      ) from error
    texts = next(
      [columns[n] for n in names] for names in _TEXTS if names[0] in columns
    )
    values = next((columns[n] for n in _LABELS if n in columns), None)
    table = _table(name, split, list(zip(*texts, strict=True)), None)
    labels = _labels(values, kind, table.where)
    if labels is not None:
      tables[split] = dataclasses.replace(table, labels=labels)
  return tables


def _columns(
  task: Any, split: str, also: tuple[str, ...] = ()
) -> dict[str, list]:
  """The features that hold texts and labels, token ids decoded to text."""
  # Not try_in_mem_cache, which asks TFDS for a size it may not know.
  dataset = task.get_dataset(
    None, split=split, shuffle=False, seed=0, try_in_mem_cache=False
  )
  wanted = {*(n for names in _TEXTS for n in names), *_LABELS, *also}
  wanted = sorted(wanted & set(dataset.element_spec))
  dataset = dataset.map(lambda row: {n: row[n] for n in wanted})
  columns = {n: [] for n in wanted}
  for row in dataset.as_numpy_iterator():
    for n in wanted:
      columns[n].append(row[n])
  return {n: [_text(task, n, v) for v in c] for n, c in columns.items()}


def _text(task: Any, feature: str, value: Any) -> Any:
  """A feature's value as text or number."""
  if getattr(value, "ndim", 0):
    return task.output_features[feature].vocabulary.decode(value.tolist())
  return value.decode() if isinstance(value, bytes) else value.item()


def _labels(
  values: list | None,
  kind: TaskKind | str | None,
  where: Callable[[int], str],
) -> list[RawLabel] | None:
  if values is None or all(v in ("", "-1", -1) for v in values):
    return None
  labels = []
  for i, value in enumerate(values):
    try:
      labels.append(parse_label(value, kind))
    except ValueError as error:
      raise UsageError(f"{where(i)}: a label {error}, got {value!r}.") from None
  return labels


def _table(
  name: str,
  split: str,
  texts: list[tuple[str, ...]],
  labels: list[RawLabel] | None,
) -> Table:
  rows = list(range(1, len(texts) + 1))
  return Table(f"task '{name}', split '{split}'", texts, labels, rows)


def _sentencepiece(task: Any) -> Vocab | None:
  """The vocabulary of `inputs`, if it is a SentencePiece model."""
  seqio = import_seqio()
  import tensorflow as tf

  vocabulary = task.output_features["inputs"].vocabulary
  if not isinstance(vocabulary, seqio.SentencePieceVocabulary):
    return None
  path = vocabulary.sentencepiece_model_file
  with tf.io.gfile.GFile(path, "rb") as file:
    return read_vocab(file.read(), path, vocabulary.extra_ids)
