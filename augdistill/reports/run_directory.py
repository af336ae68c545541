"""The directory of a run: what lies where, and whose it is.

  config.gin  student.gin  command.sh  provenance.json    what was run
  metrics.jsonl  samples.jsonl  tensorboard/              as it went
  checkpoints/  vocab/                                    what it can be used by
  predictions/SPLIT.jsonl  MODEL_CARD.md  results.json    what came out

Every file is replaced as a whole, and `results.json` comes last: it means
that the run is finished.
"""

import ast
import contextlib
import copy
import difflib
import json
import os
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from augdistill import atomic, errors
from augdistill.checkpoints.folder import Folder, is_in_bucket
from augdistill.data.vocabulary import FILES
from augdistill.reports import results as results_file
from augdistill.reports.dashboards import (
  Dashboard,
  TensorBoard,
  WeightsAndBiases,
  check_wandb,
)
from augdistill.reports.metrics_file import (
  MetricsWriter,
  NoMetrics,
  read_metrics,
)
from augdistill.reports.mirror import Mirror, Watched

# What is read of a run that is in a bucket.
_READ = (
  *("config.gin", "student.gin", "command.sh", "provenance.json"),
  *("metrics.jsonl", "samples.jsonl", "wandb_run.txt", "results.json"),
  *(f"vocab/{name}" for name in FILES),
  *(f"predictions/{split}.jsonl" for split in ("validation", "test")),
)


class RunDirectory:
  """One run's files.

  Args:
    path: the directory, or gs://BUCKET/DIRECTORY; it need not exist.
    wandb: the project of Weights & Biases that also shows the run, or None.
    writes: whether files are written; of the processes of a run one does.

  Attributes:
    where: the directory as messages call it.
    path: the directory on this machine; of one in a bucket, its copy.
    writes: the same.
    argv: the command that runs in it now; empty before `claim`.
    config_gin: the configuration, as it was operative.
    student_gin: the configuration that uses the student without its teacher.
    metrics: metrics.jsonl.
    samples: samples.jsonl, augmented texts.
    checkpoints: the directory of a `checkpoints.store.Store`.
    vocab: the directory of the vocabulary.

  Raises:
    UsageError: if it is in a bucket that cannot be read.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    wandb: str | None = None,
    writes: bool = True,
  ):
    if wandb is not None:
      check_wandb()
    self.where = os.fspath(path).rstrip("/") or "/"
    self._mirror: Mirror | None = None
    if is_in_bucket(path):
      self._mirror = Mirror(self.where, _READ)
    self.path = self._mirror.here if self._mirror else pathlib.Path(path)
    self.writes = writes
    self._wandb = wandb
    self.argv: list[str] = []
    self.config_gin = self.path / "config.gin"
    self.student_gin = self.path / "student.gin"
    self.metrics = self.path / "metrics.jsonl"
    self.samples = self.path / "samples.jsonl"
    self.checkpoints = os.path.join(self.where, "checkpoints")
    self.vocab = self.path / "vocab"

  def read_only(self) -> "RunDirectory":
    """The same directory, for a process that leaves writing to another."""
    other = copy.copy(self)
    other.writes = False
    return other

  def push(self) -> None:
    """Copies what was written into the bucket, if the directory is in one.

    Raises:
      RunError: if that fails.
    """
    try:
      self._push()
    except OSError as error:
      raise errors.RunError(
        f"{self.where} must be written, but: {error.strerror} "
        f"({error.filename}). The checkpoints there are intact: mend the "
        "bucket, then run the same command again to go on from the last one"
      ) from error

  def predictions(self, split: str) -> pathlib.Path:
    """The file of the predictions on one split."""
    return self.path / "predictions" / f"{split}.jsonl"

  def check(self, config: str) -> bool:
    """Looks whether the directory may be used, and changes nothing.

    Comments and blank lines of a configuration do not count.

    Args:
      config: the text of the run's configuration.

    Returns:
      Whether there is a run of this configuration.

    Raises:
      UsageError: if there is a run of another one.
    """
    try:
      there = statements(self.config_gin.read_text(encoding="utf-8"))
    except OSError:
      return False
    diff = list(difflib.ndiff(there, statements(config)))
    old = [line[2:] for line in diff if line.startswith("- ")]
    new = [line[2:] for line in diff if line.startswith("+ ")]
    if old or new:
      raise errors.UsageError(
        f"{self.where} holds a run of another configuration: it has "
        f"{errors.listing(old, 3)}, and this one {errors.listing(new, 3)}. "
        "Choose another --output_dir, or give the flags of "
        f"{self.where}/command.sh to go on with that run"
      )
    return True

  def claim(self, config: str, argv: Sequence[str]) -> bool:
    """Makes the directory this run's own, or goes on with the run in it.

    Args:
      config: the text of the run's configuration.
      argv: the command, word by word.

    Returns:
      Whether it goes on with a run.

    Raises:
      UsageError: if there is a run of another configuration, or one cannot
        write there.
    """
    self.argv = list(argv)
    if self.check(config):
      return True
    try:
      self._write("command.sh", f"#!/bin/sh\n{shlex.join(argv)}\n")
      self._write("config.gin", config)  # the last: it makes the claim
      self._push()
    except OSError as error:
      raise errors.UsageError(
        f"cannot write to the output directory {self.where}: {error.strerror}. "
        "Choose another --output_dir"
      ) from error
    return False

  def release(self) -> None:
    """Takes a claim back, of a run that has nothing to lose yet."""
    if self.writes:
      self.config_gin.unlink(missing_ok=True)
      with contextlib.suppress(errors.RunError):  # Of what ended the run, too.
        self.push()

  def write_student(self, config: str) -> None:
    """Writes student.gin."""
    self._write("student.gin", config)

  def write_provenance(self, provenance: Mapping[str, Any]) -> None:
    """Writes provenance.json; see `reports.provenance`."""
    self._write("provenance.json", _json(provenance))

  def write_card(self, card: str) -> None:
    """Writes MODEL_CARD.md."""
    self._write("MODEL_CARD.md", card)

  def write_results(self, results: Mapping[str, Any]) -> None:
    """Writes results.json, which says that the run is finished.

    Raises:
      RunError: as of `push`.
    """
    self.push()  # In a bucket, too, it comes last.
    self._write("results.json", _json(results))
    self.push()

  def write_page(self, page: str) -> str:
    """Writes report.html; returns its place."""
    self._write("report.html", page)
    self.push()
    return f"{self.where}/report.html"

  def results(self) -> dict[str, Any] | None:
    """What came out, or None of a run that is not finished.

    Raises:
      UsageError: if results.json is not what it must be.
    """
    if not (self.path / "results.json").exists():
      return None
    return results_file.read_results(self.path, self.where)

  def metrics_writer(self, start: int) -> MetricsWriter | NoMetrics:
    """Reports metrics from here on.

    Args:
      start: steps done; what was reported of later ones is cut.
    """
    if not self.writes:
      return NoMetrics()
    dashboards: list[Dashboard] = [
      TensorBoard(self.path / "tensorboard", start)
    ]
    if self._wandb is not None:
      text = self.config_gin.read_text(encoding="utf-8")
      dashboards.append(
        WeightsAndBiases(self._wandb, self.path, macros(text), self.where)
      )
    if self._mirror:  # The last: it copies what the others wrote.
      dashboards.append(Watched(self._mirror))
    return MetricsWriter(self.metrics, self.samples, dashboards, start)

  def train_seconds(self, before: int | None = None) -> float:
    """The seconds in steps that were reported last.

    Args:
      before: only of reports up to this step; None for all.
    """
    seconds = [
      row["train_seconds"]
      for row in read_metrics(self.metrics)
      if "train_seconds" in row and (before is None or row["step"] <= before)
    ]
    return seconds[-1] if seconds else 0.0

  def _push(self) -> None:
    if self._mirror and self.writes:
      self._mirror.push()

  def _write(self, name: str, text: str) -> None:
    if not self.writes:
      return
    with atomic.replacing(self.path / name) as file:
      file.write(text)


def is_run(path: str | os.PathLike) -> bool:
  """Whether a directory, here or in a bucket, is a run's, finished or not.

  Raises:
    UsageError: if its bucket cannot be read.
  """
  if is_in_bucket(path):
    return Folder(os.fspath(path)).read("config.gin") is not None
  return os.path.exists(os.path.join(path, "config.gin"))


def _json(value: Mapping[str, Any]) -> str:
  return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def statements(config: str) -> list[str]:
  """The bindings of a configuration: no comments, no blank lines."""
  lines = [line.strip() for line in config.splitlines()]
  return [line for line in lines if line and not line.startswith("#")]


def macros(config: str) -> dict[str, Any]:
  """The macros of a configuration that are set, by name: what flags set."""
  found = {}
  for line in statements(config.replace("\\\n", " ")):
    name, _, value = line.partition(" = ")
    if name.isupper() and value != "None":
      try:
        found[name] = ast.literal_eval(value)
      except (SyntaxError, ValueError):  # A reference to something else.
        found[name] = value
  return found
