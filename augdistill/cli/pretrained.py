"""A pretrained model, read back: what rewrites texts and begins other runs."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from augdistill.checkpoints.begin import Source, begin, fit
from augdistill.checkpoints.flat import named_leaves
from augdistill.checkpoints.foreign import Stored
from augdistill.checkpoints.source import open_source
from augdistill.checkpoints.store import Store
from augdistill.cli.adopted import adopt_masked, is_foreign
from augdistill.cli.bindings import configurable, parsed
from augdistill.cli.trained import (
  PRETRAINING,
  Trained,
  finished,
  is_served_t5x,
  open_finished,
)
from augdistill.data.vocabulary import Vocab, find_vocab, load_vocab
from augdistill.errors import UsageError
from augdistill.models.masked_t5 import masked_t5
from augdistill.models.networks import ModelConfig
from augdistill.reports.run_directory import is_run
from augdistill.reports.student_gin import gin_text
from augdistill.types import MaskedLM, Network, Params, Task

# As in models/networks.py: one per shape, traced and compiled once.
masked_network = functools.cache(masked_t5)


@dataclasses.dataclass(frozen=True)
class ServedMaskedLM:
  """How a pretrained model is used.

  Attributes:
    model: the network's shape; it has no outputs of its own.
    max_length: tokens kept of a text.
  """

  model: ModelConfig
  max_length: int


_SERVED = configurable(ServedMaskedLM)


def served_masked_text(served: ServedMaskedLM) -> str:
  """The gin text that `Pretrained.load` reads."""
  return gin_text(
    "# What this masked language model needs to be used.", served, ("model",)
  )


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A masked language model: a finished run of `pretrain`, or a foreign one.

  Attributes:
    served: shape and length.
    network: its network.
    params: its best parameters.
    vocab_path: its vocabulary's file.
  """

  served: ServedMaskedLM
  network: MaskedLM
  params: Params
  vocab_path: str

  @functools.cached_property
  def vocab(self) -> Vocab:
    """Its vocabulary."""
    return load_vocab(self.vocab_path)

  @functools.cached_property
  def fingerprint(self) -> str:
    """sha256 of all that decides what it says."""
    digest = hashlib.sha256(f"{self.served}{self.vocab.fingerprint}".encode())
    for name, leaf in named_leaves(jax.device_get(self.params)):
      digest.update(f"{name}{leaf.dtype}{leaf.shape}".encode())
      digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()

  @classmethod
  def load(cls, path: str) -> "Pretrained":
    """Reads the run in directory `path`, or a BERT that transformers saved.

    Raises:
      UsageError: if there is none, it has not finished, or it is of another
        command; if it is another model, or has no head for masked words.
    """
    if is_foreign(path):
      its = adopt_masked(path)
      served = ServedMaskedLM(its.config, its.max_length)
      return cls(served, its.model, its.params, its.vocab_path)
    run, results = open_finished(path, pretrained=True)
    with parsed([str(run.student_gin)]):
      served = _SERVED()
    with Store(run.checkpoints) as store:
      params = jax.device_put(store.restore_params(results["best_step"]))
    network = masked_network(served.model)
    return cls(served, network, params, find_vocab(run.vocab))


def check_generator(path: str) -> None:
  """Raises UsageError unless there is something that may rewrite texts."""
  if is_foreign(path):
    open_source(path)
  else:
    open_finished(path, pretrained=True)


def source_of(path: str) -> Source:
  """What a model may begin with: a finished run, or foreign weights.

  Of a run of T5X with `augdistill.t5x_plugin`, its newest checkpoint.

  Raises:
    UsageError: if there is nothing that can be read, or a run that has not
      finished.
  """
  of_t5x = is_served_t5x(path)
  if not of_t5x and not is_run(path):
    return open_source(path)
  run: Pretrained | Trained
  if not of_t5x and finished(path)[1]["method"] == PRETRAINING:
    run, task = Pretrained.load(path), None
  else:
    run = Trained.load(path)
    task = run.served.task
  arrays = {
    name: Stored(leaf.shape, leaf.dtype, functools.partial(np.asarray, leaf))
    for name, leaf in named_leaves(run.params)
  }
  model = run.served.model
  shape = dataclasses.asdict(model)
  return Source(path, type(model), arrays, shape, run.vocab_path, task)


def model_like(
  path: str,
  vocab_size: int,
  num_outputs: int,
  dropout_rate: float = 0.1,
  dtype: str = "float32",
  num_layers: int | None = None,
) -> ModelConfig:
  """The shape of a model that begins with weights from elsewhere.

  Args:
    path: where they are, as of `source_of`.
    vocab_size: V.
    num_outputs: C.
    dropout_rate: in [0, 1).
    dtype: of activations, "float32" or "bfloat16".
    num_layers: fewer than there, for a model of some of its layers.

  Returns:
    The configuration of the network.

  Raises:
    UsageError: as of `source_of`.
  """
  own = {
    "vocab_size": vocab_size,
    "num_outputs": num_outputs,
    "dropout_rate": dropout_rate,
    "dtype": dtype,
  }
  own |= {} if num_layers is None else {"num_layers": num_layers}
  return source_of(path).config(**own)


def vocab_path(path: str, vocab: str | None = None) -> str:
  """The vocabulary's file that goes with what a model begins with.

  Args:
    path: as of `source_of`.
    vocab: the one that was given, for weights that lie without theirs.

  Raises:
    UsageError: if there is none.
  """
  found = source_of(path).vocab_path or vocab
  if found is None:
    raise UsageError(
      f"{path} has no vocabulary beside it: give the file that "
      "it was trained with, --vocab FILE"
    )
  return found


def inheriting(
  path: str,
  student: Network,
  task: Task,
  layers: Sequence[int] | None = None,
) -> Callable[[Params], Params]:
  """Makes first parameters that hold weights from elsewhere; says what is new.

  Args:
    path: where they are, as of `source_of`.
    student: the network that begins with them.
    task: what its outputs are to mean.
    layers: the layers that it begins with; by default all.

  Returns:
    The student's random parameters -> those that it begins with.

  Raises:
    UsageError: if the two are not of one size.
  """
  source = source_of(path).for_task(task)
  if layers is not None:
    source = source.with_layers(layers)
  # What does not fit shows now, before a run's directory is claimed.
  shapes = jax.eval_shape(student.init, jax.random.key(0))
  print(f"beginning with {path}: {fit(shapes, source)}")
  return lambda params: begin(params, source)
