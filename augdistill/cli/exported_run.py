"""What an export is made of: a run's model, its own rows, and its teacher."""

import dataclasses
import os

import numpy as np

from augdistill.checkpoints.store import Store
from augdistill.cli.served import load_served
from augdistill.cli.trained import Trained, open_finished
from augdistill.data.dataset import Examples
from augdistill.data.files import read_table
from augdistill.data.labels import encode_labels
from augdistill.data.load import load_data
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

  Raises:
    UsageError: if it is no run of finetune or distill.
    RunError: if its checkpoint cannot be read.
  """
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


def rows_of(run: ExportedRun) -> tuple[str, Examples]:
  """Rows that the run was measured on, or else others that it has seen.

  Those of a finished run lie in it, with its predictions. Otherwise they are
  loaded as the run loads them.

  Returns:
    Their split, and the rows: of test, validation, unlabeled or train, the
    first that there is.

  Raises:
    UsageError: if there are none any more.
  """
  served, vocab = run.trained.served, run.trained.vocab
  task = served.task
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
    return _loaded_rows(run)


def _loaded_rows(run: ExportedRun) -> tuple[str, Examples]:
  from augdistill.cli import config  # It imports all that trains.

  served = run.trained.served
  data = load_data(
    dataclasses.replace(
      config.read(str(run.directory.config_gin)).data,
      vocab=run.trained.vocab_path,
      label_names=served.task.label_names,
      task_kind=str(served.task.kind),
      max_length=served.max_length,
      pair=served.task.pair,
    )
  )
  for split in ("test", "validation", "unlabeled", "train"):
    if (rows := getattr(data, split)) is not None:
      return split, rows
  raise UsageError("there must be some, to compare an export with the run")


def teacher_of(run: ExportedRun) -> tuple[Trained | None, str]:
  """The run's teacher, and why there is none to be measured."""
  path = _macros(run.directory).get("TEACHER")
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
