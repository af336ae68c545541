"""What an export is made of: a run's model, its own rows, and its teacher."""

import dataclasses
import os

import numpy as np

from augdistill.checkpoints.store import Store
from augdistill.cli.served import load_served
from augdistill.cli.trained import (
  Trained,
  checkpoint_of_t5x,
  open_finished,
)
from augdistill.data.dataset import Examples
from augdistill.data.files import read_table
from augdistill.data.labels import encode_labels
from augdistill.data.load import Data, DataConfig, load_data
from augdistill.data.texts import encode_rows
from augdistill.errors import AugdistillError, UsageError, said_of
from augdistill.evaluation.metrics import higher_is_better
from augdistill.reports.run_directory import RunDirectory, macros


@dataclasses.dataclass(frozen=True)
class ExportedRun:
  """A run that is to be exported.

  Attributes:
    directory: its own.
    trained: its model.
    step: the step of its parameters.
    method: the method, as the user wrote it.
    finished: whether there are no more steps to come.
  """

  directory: RunDirectory
  trained: Trained
  step: int
  method: str
  finished: bool


def open_run(path: str) -> ExportedRun:
  """A run with its best parameters; of one that goes on, the best so far.

  Of a run of T5X they are those of its newest checkpoint.

  Raises:
    UsageError: if it is no run of finetune or distill, or of T5X.
    RunError: if its checkpoint cannot be read.
  """
  if checkpoint := checkpoint_of_t5x(path):
    return _of_t5x(path, checkpoint)
  run = RunDirectory(path)
  interrupted = run.student_gin.exists() and run.results() is None
  if not interrupted or not Store(run.checkpoints).steps():
    run, results = open_finished(path, pretrained=False)
    step = results["best_step"]
    return ExportedRun(
      run, Trained.at(run, step), step, results["method"], True
    )
  try:
    metric = load_served(str(run.student_gin)).task.metrics[0]
  except UsageError as error:
    raise UsageError(
      f"{path} must hold a run of augdistill finetune or distill, but it has "
      f"not finished, and: {error}"
    ) from error
  with Store(
    run.checkpoints, best_metric=metric, higher=higher_is_better(metric)
  ) as store:
    step = store.best_step() or store.latest_step()
  method = str(_macros(run).get("METHOD"))
  return ExportedRun(run, Trained.at(run, step), step, method, False)


def _of_t5x(path: str, checkpoint: str) -> ExportedRun:
  trained = Trained.of_t5x(path, checkpoint)
  run = RunDirectory(os.path.dirname(os.path.abspath(checkpoint)))
  number = checkpoint.rsplit("_", 1)[-1]
  step = int(number) if number.isdecimal() else 0
  method = str(_macros(run).get("METHOD", "ft"))
  # It does not say how far it was to go.
  return ExportedRun(run, trained, step, method, True)


def rows_of(run: ExportedRun, given: str | None) -> tuple[str, Examples]:
  """Rows that the run was measured on, or else others that it has seen.

  Those of a finished run lie in it, with its predictions. Otherwise they are
  loaded as the run loads them.

  Args:
    run: the run.
    given: a file of rows to use instead, labelled ones, or None.

  Returns:
    Their split, or "given", and the rows: of test, validation, unlabeled or
    train, the first that there is.

  Raises:
    UsageError: if there are none any more.
  """
  served, vocab = run.trained.served, run.trained.vocab
  task = served.task
  if given is not None:
    return "given", _loaded(run, DataConfig(test=given)).test
  for split in ("test", "validation"):
    file = run.directory.predictions(split)
    if run.finished and file.exists():
      table = read_table(str(file), kind=task.kind)
      rows = encode_rows(
        table.texts, vocab, served.max_length, task.num_outputs
      )
      return split, dataclasses.replace(
        rows,
        label=encode_labels(task, table.labels, table.where),
        has_label=np.ones(len(rows), bool),
      )
  with said_of(f"the rows of {run.directory.where}"):
    return _own_rows(run)


def _own_rows(run: ExportedRun) -> tuple[str, Examples]:
  from augdistill.cli import config  # It imports all that trains.

  if checkpoint_of_t5x(run.directory.where):
    raise UsageError(
      "they must be given, since a run of T5X does not hold them: --data FILE"
    )
  own = config.read(str(run.directory.config_gin)).data
  data = _loaded(run, own)
  for split in ("test", "validation", "unlabeled", "train"):
    if (rows := getattr(data, split)) is not None:
      return split, rows
  raise UsageError("there must be some, to compare an export with the run")


def _loaded(run: ExportedRun, config: DataConfig) -> Data:
  """Data as the run's model reads them."""
  task = run.trained.served.task
  return load_data(
    dataclasses.replace(
      config,
      vocab=run.trained.vocab_path,
      label_names=task.label_names,
      task_kind=str(task.kind),
      max_length=run.trained.served.max_length,
      pair=run.trained.pair,
    )
  )


def teacher_of(run: ExportedRun) -> tuple[Trained | None, str]:
  """The run's teacher, and why there is none to be measured."""
  told = _macros(run.directory)
  path = told.get("TEACHER") or told.get("TEACHER_CHECKPOINT")
  if path is None:
    return None, "the run has no teacher"
  beside = os.path.join(run.directory.path, "teacher")
  path = path if os.path.isdir(path) or not os.path.isdir(beside) else beside
  try:
    teacher = Trained.load(path)
    if teacher.vocab.fingerprint != run.trained.vocab.fingerprint:
      return None, f"{path} has another vocabulary than the run"
  except AugdistillError as error:
    return None, str(error)
  return teacher, ""


def _macros(run: RunDirectory) -> dict:
  try:
    return macros(run.config_gin.read_text(encoding="utf-8"))
  except OSError:
    return {}
