"""A trained run, read back: what a teacher is, and what predicts."""

import dataclasses
import os
from typing import Any

import jax

from augdistill.checkpoints.begin import Source, begin, fit
from augdistill.checkpoints.source import is_remote
from augdistill.checkpoints.store import Store
from augdistill.checkpoints.t5x_checkpoint import latest_t5x, t5x_arrays
from augdistill.cli.adopted import adopt_classifier, is_foreign
from augdistill.cli.served import load_served
from augdistill.data.vocabulary import Vocab, find_vocab, load_vocab
from augdistill.errors import UsageError, listing
from augdistill.models.networks import network
from augdistill.models.precision import cast_matrices
from augdistill.models.projected import without_projections
from augdistill.reports.run_directory import RunDirectory
from augdistill.reports.student_gin import Served
from augdistill.types import Network, Params

# What results.json calls the method of a pretrained model.
PRETRAINING = "masked_lm"


@dataclasses.dataclass(frozen=True)
class Trained:
  """A run, most often a finished one.

  Attributes:
    served: shape, task and length.
    network: its network.
    params: its parameters, the best ones of a finished run, as NumPy arrays.
    vocab_path: its vocabulary's file.
    pair: whether it reads pairs of texts; None: either.
  """

  served: Served
  network: Network
  params: Params
  vocab_path: str
  pair: bool | None

  @property
  def vocab(self) -> Vocab:
    """Its vocabulary."""
    return load_vocab(self.vocab_path)

  def cast(self, dtype: str | None) -> "Trained":
    """The same with matrices and activations in another type, if one is given.

    Args:
      dtype: "float32", "bfloat16", or None.
    """
    if dtype is None:
      return self
    model = dataclasses.replace(self.served.model, dtype=dtype)
    return dataclasses.replace(
      self,
      served=dataclasses.replace(self.served, model=model),
      network=network(model),
      params=cast_matrices(self.params, dtype),
    )

  @classmethod
  def load(cls, path: str) -> "Trained":
    """Reads a run, of T5X too, or a classifier of transformers.

    Raises:
      UsageError: as of `open_finished`, `of_t5x` or `adopt_classifier`.
      RunError: as of `at`.
    """
    checkpoint = checkpoint_of_t5x(path)
    if checkpoint is not None:
      return cls.of_t5x(path, checkpoint)
    if is_foreign(path):
      its = adopt_classifier(path)
      served = Served(its.config, its.task, its.max_length)
      params = jax.device_get(its.params)
      return cls(served, its.model, params, its.vocab_path, pair=None)
    run, results = open_finished(path, pretrained=False)
    return cls.at(run, results["best_step"])

  @classmethod
  def of_t5x(cls, path: str, checkpoint: str) -> "Trained":
    """Reads a checkpoint of a run of T5X with `augdistill.t5x_plugin`.

    Args:
      path: the run's directory, or the checkpoint's.
      checkpoint: the checkpoint's directory.

    Raises:
      UsageError: if the run's student.gin or vocabulary is not there, or the
        checkpoint is damaged or does not fit.
    """
    run = RunDirectory(path)
    if path == checkpoint and not run.student_gin.exists():
      run = RunDirectory(os.path.dirname(os.path.abspath(path)))
    vocab_path = find_vocab(run.vocab)
    if not run.student_gin.exists() or vocab_path is None:
      raise UsageError(
        f"{run.path} must hold student.gin and vocab/, as runs of T5X with "
        "augdistill.t5x_plugin and exports of the format t5x do; --init takes "
        "other checkpoints of T5X"
      )
    served = load_served(str(run.student_gin))
    arrays = t5x_arrays(checkpoint)
    source = Source(checkpoint, type(served.model), arrays, {})
    model = network(served.model)
    own = jax.eval_shape(model.init, jax.random.key(0))
    if new := fit(own, source).new:
      raise UsageError(
        f"{checkpoint} must hold the model of {run.student_gin}, but has no "
        f"{listing(new)}"
      )
    pair = served.task.pair
    return cls(served, model, begin(own, source), vocab_path, pair)

  @classmethod
  def at(cls, run: RunDirectory, step: int) -> "Trained":
    """What a run, finished or not, had learnt at a step.

    Raises:
      UsageError: if its student.gin does not fit.
      RunError: if there is no readable checkpoint of this step.
    """
    served = load_served(str(run.student_gin))
    with Store(run.checkpoints) as store:
      params = store.restore_params(step)
    params = without_projections(params)
    vocab_path, pair = find_vocab(run.vocab), served.task.pair
    return cls(served, network(served.model), params, vocab_path, pair)


def checkpoint_of_t5x(path: str) -> str | None:
  """The newest checkpoint of a run of T5X; None of anything else.

  Args:
    path: the run's directory, or that of one of its checkpoints.
  """
  of_ours = os.path.exists(os.path.join(path, "results.json"))
  return None if of_ours or is_remote(path) else latest_t5x(path)


def is_served_t5x(path: str) -> bool:
  """Whether a directory is what `augdistill.t5x_plugin` or an export left."""
  there = os.path.exists(os.path.join(path, "student.gin"))
  return there and checkpoint_of_t5x(path) is not None


def open_finished(
  path: str, pretrained: bool
) -> tuple[RunDirectory, dict[str, Any]]:
  """A finished run of one kind and its results.

  Args:
    path: its directory.
    pretrained: whether it is to be one of `pretrain`, or none of it.

  Raises:
    UsageError: as of `finished`, or if it is of the other kind.
  """
  run, results = finished(path)
  if (results["method"] == PRETRAINING) != pretrained:
    kinds = ("finetune or distill", "pretrain")
    raise UsageError(
      f"{path} must hold a run of augdistill {kinds[pretrained]}, but holds "
      f"one of {kinds[not pretrained]}"
    )
  return run, results


def finished(path: str) -> tuple[RunDirectory, dict[str, Any]]:
  """A finished run and its results.

  Args:
    path: its directory.

  Raises:
    UsageError: if there is none, or it has not finished.
  """
  run = RunDirectory(path)
  if not run.path.is_dir():
    raise UsageError(f"a run's directory must exist, got {path}")
  results = run.results()
  if results is None:
    raise UsageError(
      f"{path} must hold a finished run, but has no results.json; run its "
      "command again to finish it"
    )
  return run, results


def count(params: Params) -> int:
  """How many numbers a tree of parameters holds."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))
