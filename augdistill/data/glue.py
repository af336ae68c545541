"""GLUE's single-text and pair tasks as seqio Tasks, over TFDS.

    augdistill finetune --task rte --output_dir ...

`register` puts them into seqio's registry, as `augdistill_glue_rte` and so
on, for other programs. Labels are the official names, metrics the official
ones. Test labels are hidden, so test splits are unlabelled.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from augdistill.data.tasks import encode_texts, import_seqio
from augdistill.errors import UsageError
from augdistill.types import Task, TaskKind

VERSION = "2.0.0"
_HOST = "https://dl.fbaipublicfiles.com"


@dataclasses.dataclass(frozen=True)
class GlueTask:
  """What sets a task of GLUE apart from the others.

  Attributes:
    columns: its text features in TFDS.
    label_names: in the order of TFDS; () for regression.
    metrics: the official ones.
    config: its name in TFDS; by default our own.
    suffix: of the names of its validation and test splits.
    submission: the file that the leaderboard takes.
    numbered: whether it wants labels as their numbers, not as names.
  """

  columns: tuple[str, ...]
  label_names: tuple[str, ...]
  metrics: tuple[str, ...]
  config: str | None = None
  suffix: str = ""
  submission: str = ""
  numbered: bool = False


_PAIR = ("sentence1", "sentence2")
_RTE = ("entailment", "not_entailment")
_MNLI = GlueTask(
  columns=("premise", "hypothesis"),
  label_names=("entailment", "neutral", "contradiction"),
  metrics=("accuracy",),
  config="mnli",
  suffix="_matched",
  submission="MNLI-m.tsv",
)
GLUE = {
  "cola": GlueTask(
    ("sentence",),
    ("unacceptable", "acceptable"),
    ("matthews_correlation",),
    submission="CoLA.tsv",
    numbered=True,
  ),
  "sst2": GlueTask(
    ("sentence",),
    ("negative", "positive"),
    ("accuracy",),
    submission="SST-2.tsv",
    numbered=True,
  ),
  "mrpc": GlueTask(
    _PAIR,
    ("not_equivalent", "equivalent"),
    ("f1", "accuracy"),
    submission="MRPC.tsv",
    numbered=True,
  ),
  "stsb": GlueTask(_PAIR, (), ("pearson", "spearman"), submission="STS-B.tsv"),
  "qqp": GlueTask(
    ("question1", "question2"),
    ("not_duplicate", "duplicate"),
    ("f1", "accuracy"),
    submission="QQP.tsv",
    numbered=True,
  ),
  "mnli": _MNLI,
  "mnli_matched": _MNLI,
  "mnli_mismatched": dataclasses.replace(
    _MNLI, suffix="_mismatched", submission="MNLI-mm.tsv"
  ),
  "qnli": GlueTask(
    ("question", "sentence"), _RTE, ("accuracy",), submission="QNLI.tsv"
  ),
  "rte": GlueTask(_PAIR, _RTE, ("accuracy",), submission="RTE.tsv"),
}


def glue_task(name: str) -> Task:
  """What is to be learnt in the task of this name, a key of GLUE."""
  glue = GLUE[name]
  return Task(
    name,
    TaskKind.CLASSES if glue.label_names else TaskKind.REGRESSION,
    glue.label_names,
    glue.metrics,
    pair=len(glue.columns) == 2,
  )


def glue_seqio_task(
  name: str, tfds_data_dir: str | None = None, download: bool = True
) -> Any:
  """The seqio Task of this name, a key of GLUE, not registered.

  Args:
    name: the key.
    tfds_data_dir: where TFDS keeps its data; None is TFDS's own choice.
    download: whether data that are not there are to be downloaded.

  Returns:
    A seqio.Task with features `inputs`, `sentence` or `sentence1` and
    `sentence2`, `label`: the name, the number as text, or "" if hidden; and
    `idx`, the row's number at GLUE, for TFDS has them in an order of its own.
    `inputs` are bytes; whoever has a vocabulary replaces the feature's.
  """
  seqio = import_seqio()
  glue = GLUE[name]
  splits = {
    "train": "train",
    "validation": f"validation{glue.suffix}",
    "test": f"test{glue.suffix}",
  }
  return seqio.Task(
    f"augdistill_glue_{name}",
    source=seqio.TfdsDataSource(
      f"glue/{glue.config or name}:{VERSION}",
      tfds_data_dir=tfds_data_dir,
      splits=splits,
      read_only=not download,
    ),
    preprocessors=[
      lambda dataset: _rename(dataset, glue.columns, glue.label_names),
      encode_texts,
    ],
    output_features={"inputs": seqio.Feature(seqio.ByteVocabulary())},
  )


def register() -> None:
  """Registers all of GLUE with seqio, once however often it is called."""
  registry = import_seqio().TaskRegistry
  for name in GLUE:
    task = glue_seqio_task(name)
    if task.name not in registry.names():
      registry.add_provider(task.name, task)


def check_reachable(name: str, tfds_data_dir: str | None) -> None:
  """Fails at once where TFDS would try for minutes to download.

  Args:
    name: a key of GLUE whose data TFDS does not have.
    tfds_data_dir: as of `glue_seqio_task`.

  Raises:
    UsageError: if the data are out of reach.
  """
  import requests

  try:
    requests.head(_HOST, timeout=10)
  except requests.RequestException:
    raise UsageError(
      f"task '{name}' is not in {tfds_data_dir or 'the folder of TFDS'}, and "
      f"{_HOST} cannot be reached to download it; run once with network, or "
      "say where the data are with --tfds_data_dir."
    ) from None


def submission_lines(
  name: str, rows: Sequence[tuple[int, Any]]
) -> Iterator[str]:
  """The lines of the file that GLUE's leaderboard takes.

  Args:
    name: a key of GLUE.
    rows: the number of each row at GLUE, and its label's name or its value.

  Yields:
    The header, then a line per row, by number. Values of stsb are kept to
    its scale, 0 to 5.
  """
  glue = GLUE[name]
  yield "index\tprediction\n"
  for number, said in sorted(rows):
    if not glue.label_names:
      said = f"{min(max(said, 0.0), 5.0):.3f}"
    elif glue.numbered:
      said = glue.label_names.index(said)
    yield f"{number}\t{said}\n"


def _rename(
  dataset: Any, columns: tuple[str, ...], label_names: tuple[str, ...]
) -> Any:
  """A seqio preprocessor: our names for text features, names for labels."""
  import tensorflow as tf

  ours = ("sentence",) if len(columns) == 1 else ("sentence1", "sentence2")

  @import_seqio().map_over_dataset
  def rename(row):
    texts = {o: row[c] for o, c in zip(ours, columns, strict=True)}
    if label_names:
      shown = tf.gather(tf.constant(label_names), tf.maximum(row["label"], 0))
    else:
      shown = tf.strings.as_string(row["label"], shortest=True)
    label = tf.where(row["label"] < 0, "", shown)
    return {**texts, "label": label, "idx": row["idx"]}

  return rename(dataset)
