"""The job of `pretrain`: its configuration, its data, its step, its scores."""

import argparse
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import gin
import jax
import optax

from augdistill import prng
from augdistill.augment.masking import Mask, mask_tokens
from augdistill.cli import fit
from augdistill.cli.bindings import configurable
from augdistill.cli.config import check_numbers, opened
from augdistill.cli.experiment import Job, fingerprints
from augdistill.cli.placing import check_batch_size, place_params
from augdistill.cli.pretrained import (
  ServedMaskedLM,
  masked_network,
  served_masked_text,
)
from augdistill.cli.trained import PRETRAINING, count
from augdistill.data.batches import eval_batches, train_batches
from augdistill.data.dataset import Examples, concat, hold_out
from augdistill.data.load import Data, DataConfig, load_data
from augdistill.errors import UsageError
from augdistill.evaluation.masked import METRICS, fill_in_scores
from augdistill.models.enct5 import EncT5Config
from augdistill.reports.results import build_results
from augdistill.reports.run_directory import RunDirectory
from augdistill.training import mesh
from augdistill.training.pretraining import pretrain_step
from augdistill.types import Lexicon, MaskedLM, Params, TaskKind


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
  """One run: the injection point of `pretrain`.

  Attributes:
    data: which data; labels are read where there are some, but not learnt.
    model: factory of the network's shape, given `vocab_size` and
      `num_outputs`.
    optimizer: an optax transformation.
    masking: what is hidden of a batch while training.
    num_steps: optimizer steps of the whole run.
    batch_size: B, rows of a step over all devices.
    seed: of parameters, order, masks, dropout.
    mesh: the shape of the devices, as of `RunConfig`.
    eval_batch_size: rows of an evaluation batch.
    eval_period: steps between evaluations on validation rows, each with a
      checkpoint; by default about a tenth of the run.
    log_period: steps between lines of metrics.
    keep_checkpoints: how many of the newest are kept, besides the best.
  """

  data: DataConfig
  model: Callable[..., EncT5Config]
  optimizer: optax.GradientTransformation
  masking: Mask
  num_steps: int
  batch_size: int
  seed: int = 0
  mesh: str = "x1"
  eval_batch_size: int = 256
  eval_period: int | None = None
  log_period: int = 20
  keep_checkpoints: int = 2

  def __post_init__(self):
    check_numbers(self)


_CONFIG = configurable(PretrainConfig)
configurable(mask_tokens)


def resolve(args: argparse.Namespace) -> tuple[PretrainConfig, str]:
  """The configuration of a run, and its text; as `config.resolve`."""
  with opened("runs/pretrain.gin", args):
    config = _CONFIG()
    shape = config.model(vocab_size=8, num_outputs=1)
    model = functools.partial(dataclasses.replace, shape)
    config = dataclasses.replace(config, model=model)
    return config, gin.operative_config_str()


@dataclasses.dataclass(frozen=True)
class Pretraining:
  """The made parts of a run.

  Attributes:
    config: what was asked for.
    data: its texts; `train` holds all that is learnt from.
    served: what the model needs to be used.
    model: the network that learns.
    mesh: the devices.
  """

  config: PretrainConfig
  data: Data
  served: ServedMaskedLM
  model: MaskedLM
  mesh: jax.sharding.Mesh

  @functools.cached_property
  def lexicon(self) -> Lexicon:
    """What the vocabulary allows, on every device."""
    vocab = self.data.vocab
    return mesh.place(vocab.lexicon, mesh.replicated(self.mesh))


def prepare(config: PretrainConfig) -> Job:
  """Makes the parts of a run, and writes nothing but the data cache.

  Raises:
    UsageError: if data and configuration do not fit.
  """
  check_batch_size(config.batch_size, config.mesh)
  data = load_texts(config.data)
  # One output, which nothing computes: the shape has a place for it.
  shape = config.model(vocab_size=data.vocab.size, num_outputs=1)
  parts = Pretraining(
    config,
    data,
    ServedMaskedLM(shape, config.data.max_length),
    masked_network(shape),
    mesh.make_mesh(config.mesh),
  )
  return Job(
    training=training(parts),
    seed=config.seed,
    keep=config.keep_checkpoints,
    best=METRICS[0],
    vocab=data.vocab,
    fingerprints=fingerprints(data),
    label_names=(),
    served=served_masked_text(parts.served),
    report=functools.partial(report, parts),
  )


def load_texts(config: DataConfig) -> Data:
  """Texts to learn from, those to score on, and what tokens mean.

  Labelled rows are split as a run of `finetune` splits them, so that nothing
  is learnt from rows that it validates on. Where all rows are unlabelled, the
  share of them is held out.

  Args:
    config: which data.

  Returns:
    The data, with all rows to learn from in `train`.

  Raises:
    UsageError: for anything wrong with them.
  """
  if config.task is None and config.train is None:
    if config.unlabeled is None:
      raise UsageError(
        "pretraining needs texts: --task NAME, --train FILE or --unlabeled FILE"
      )
    # Without labels the task is any: its one output is never computed.
    config = dataclasses.replace(
      config, label_names=(), task_kind=str(TaskKind.REGRESSION)
    )
  data = load_data(config)
  for note in data.notes:
    print(note)
  train, validation = data.train, data.validation
  if train is None:
    train, held_out = data.unlabeled, validation
    if held_out is None:
      train, validation = hold_out(
        train, data.task, config.validation_fraction, config.validation_seed
      )
  elif data.unlabeled is not None:
    train = concat(train, data.unlabeled)
  return dataclasses.replace(
    data, train=train, validation=validation, unlabeled=None
  )


def training(parts: Pretraining) -> fit.Training:
  """What the loop does."""
  config, devices = parts.config, parts.mesh
  return fit.Training(
    name=PRETRAINING,
    num_steps=config.num_steps,
    eval_period=config.eval_period,
    log_period=config.log_period,
    initial_state=lambda: fit.initial_state(
      parts.model, config.optimizer, config.seed, devices
    ),
    make_step=lambda: make_step(parts),
    batch_at=train_batches(
      parts.data.train,
      config.batch_size,
      config.seed,
      host=mesh.shares_here(devices),
    ),
    score=lambda params: score(parts, params, parts.data.validation),
  )


def make_step(parts: Pretraining) -> Callable:
  """The compiled step: (its number, state, NumPy batch) -> (state, metrics)."""
  config, devices = parts.config, parts.mesh
  key = mesh.place(prng.run_key(config.seed), mesh.replicated(devices))
  compiled = jax.jit(
    functools.partial(
      pretrain_step,
      model=parts.model,
      mask=config.masking,
      optimizer=config.optimizer,
    ),
    donate_argnums=0,
  )

  def step(number, state, batch):
    del number
    placed = mesh.place_batch(batch, devices)
    return compiled(state, parts.lexicon, placed, key)

  return step


# Nothing that is asked for is seen, or copying it would be taken for a guess;
# and every run is asked the same.
_scoring_mask = functools.cache(
  functools.partial(mask_tokens, hidden_share=1.0, random_share=0.0)
)
_SCORING_SEED = 0


def score(
  parts: Pretraining, params: Params, examples: Examples
) -> dict[str, float]:
  """The metrics of parameters on a split."""
  devices = parts.mesh
  size = mesh.round_up_rows(parts.config.eval_batch_size, devices)
  return fill_in_scores(
    parts.model,
    place_params(parts.model, params, devices),
    eval_batches(examples, size, host=mesh.shares_here(devices)),
    _scoring_mask(),
    prng.stream(prng.run_key(_SCORING_SEED), "evaluation"),
    parts.lexicon,
    functools.partial(mesh.place_batch, mesh=devices),
  )


def report(
  parts: Pretraining, run: RunDirectory, params: Params, step: int, seconds
) -> dict[str, Any]:
  """Writes results.json; as `scoring.report`."""
  config, data = parts.config, parts.data
  results = build_results(
    method=PRETRAINING,
    task=data.task.name,
    seed=config.seed,
    metrics={
      split: score(parts, params, examples)
      for split in ("validation", "test")
      if (examples := getattr(data, split)) is not None
    },
    teacher_metrics={},
    agreement=None,
    num_params={"student": count(params), "teacher": None},
    num_steps=config.num_steps,
    best_step=step,
    train_seconds=seconds,
    batch_size=config.batch_size,
  )
  run.write_results(results)
  return results
