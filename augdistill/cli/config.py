"""The configuration of a run: from files, flags and bindings, and as text."""

import argparse
import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
import optax

from augdistill.augment.methods import RECIPES, Recipe
from augdistill.cli import flags
from augdistill.cli.bindings import configurable, parsed
from augdistill.cli.pretrained import model_like
from augdistill.cli.rewrite_options import RewriteOptions
from augdistill.data.load import DataConfig
from augdistill.errors import UsageError
from augdistill.models.networks import ModelConfig
from augdistill.models.sizes import enct5_config
from augdistill.training.optimizers import make_optimizer
from augdistill.training.policies import build_policy
from augdistill.types import TaskKind


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """One run: the injection point of `finetune` and `distill`.

  Attributes:
    data: which data.
    model: factory of the network's shape, given `vocab_size` and
      `num_outputs`.
    optimizer: an optax transformation.
    method: in the grammar of `augdistill.augment.methods`.
    num_steps: optimizer steps of the whole run.
    batch_size: B, rows of a step over all devices.
    seed: of parameters, order, draws, dropout.
    teacher: directory of a fine-tuned run, or None.
    teacher_dropout: whether the teacher drops out while it teaches.
    teacher_cache: directory that keeps the teacher's answers to the training
      rows, or None, to ask it at every step.
    teacher_cache_draws: how many answers with dropout it keeps of each row, of
      which every step takes one; None for the one without dropout.
    num_microbatches: parts into which a batch is cut to save memory.
    remat: whether the student's layers are computed again in the backward
      pass, to save memory.
    mesh: the shape of the devices, as of `augdistill.training.mesh.mesh_shape`.
    shard_teacher: whether the teacher's parameters are cut over all devices,
      and gathered layer by layer.
    teacher_dtype: of the teacher's matrices and activations, "float32" or
      "bfloat16"; by default its activations are those of its own run, and its
      parameters float32.
    eval_batch_size: rows of an evaluation batch.
    eval_period: steps between evaluations on validation rows, each with a
      checkpoint; by default about a tenth of the run.
    log_period: steps between lines of metrics.
    keep_checkpoints: how many of the newest are kept, besides the best.
    num_samples: rows of which every evaluation shows the augmented texts; 0
      for none.
    init_layers: which layers of `init`, or else of the teacher, the student
      begins with, as of `augdistill.models.selection`; by default all of
      `init`, or none.
    init: pretrained weights that the model begins with, as of
      `augdistill.cli.pretrained.source_of`; by default it begins at random.
    rewrites: a file of other texts of the training rows, or None.
    generator: directory of a pretrained run that makes them, or None.
    rewriting: how it does.
    recipes: the views that a method may name.
  """

  data: DataConfig
  model: Callable[..., ModelConfig]
  optimizer: optax.GradientTransformation
  method: str
  num_steps: int
  batch_size: int
  seed: int = 0
  teacher: str | None = None
  teacher_dropout: bool = True
  teacher_cache: str | None = None
  teacher_cache_draws: int | None = None
  num_microbatches: int = 1
  remat: bool = False
  mesh: str = "x1"
  shard_teacher: bool = False
  teacher_dtype: str | None = None
  eval_batch_size: int = 256
  eval_period: int | None = None
  log_period: int = 20
  keep_checkpoints: int = 2
  num_samples: int = 8
  init_layers: str | None = None
  init: str | None = None
  rewrites: str | None = None
  generator: str | None = None
  rewriting: RewriteOptions = dataclasses.field(default_factory=RewriteOptions)
  recipes: Mapping[str, Recipe] = dataclasses.field(
    default_factory=lambda: RECIPES
  )

  def __post_init__(self):
    check_numbers(self)
    if self.teacher_dtype not in (None, "float32", "bfloat16"):
      raise UsageError(
        "teacher_dtype must be 'float32' or 'bfloat16', got "
        f"{self.teacher_dtype!r}"
      )
    if self.num_samples < 0:
      raise UsageError(f"num_samples must be >= 0, got {self.num_samples}")


def check_numbers(config: Any) -> None:
  """Raises UsageError where a run's count is below 1 or its seed is none."""
  for name in (
    *("num_steps", "batch_size", "num_microbatches", "eval_batch_size"),
    *("eval_period", "log_period", "keep_checkpoints", "teacher_cache_draws"),
  ):
    value = getattr(config, name, None)
    if value is not None and value < 1:
      raise UsageError(f"{name} must be at least 1, got {value}")
  if not 0 <= config.seed < 2**32:
    raise UsageError(f"seed must be in [0, 2^32), got {config.seed}")


_RUN = configurable(RunConfig)
_VIEWS: dict[str, Callable] = {}


def _register_views() -> None:
  """Makes gin know every view; a gin file may have imported new ones."""
  for name, recipe in RECIPES.items():
    if name not in _VIEWS:
      _VIEWS[name] = configurable(recipe.make, name)


_register_views()
for _factory in (
  *(DataConfig, enct5_config, model_like, make_optimizer),
  RewriteOptions,
):
  configurable(_factory)


def resolve(
  run_file: str, args: argparse.Namespace, extra: Sequence[str] = ()
) -> tuple[RunConfig, str]:
  """The configuration of a run, and its text.

  Args:
    run_file: the run's own gin file, read first.
    args: parsed flags, with `gin_file`, `gin_search_paths`, `gin_bindings`.
    extra: further bindings, between files and flags.

  Returns:
    The configuration; and the operative gin text, which gives the same again.

  Raises:
    UsageError: for anything that gin or a factory does not accept.
  """
  with opened(run_file, args, extra):
    _register_views()
    config = _RUN()
    # Every factory is called once, through gin, before anything costs time:
    # a typo shows at once, and the operative text is complete.
    shape = config.model(vocab_size=8, num_outputs=2)
    build_policy(config.method, TaskKind.CLASSES, _recipes(_VIEWS))
    config = dataclasses.replace(
      config,
      model=functools.partial(dataclasses.replace, shape),
      recipes=_recipes({n: _bound(view) for n, view in _VIEWS.items()}),
    )
    return config, gin.operative_config_str()


def read(path: str) -> RunConfig:
  """The configuration of a run that there is, from its config.gin.

  Raises:
    UsageError: as of `resolve`.
  """
  with parsed([path]):
    _register_views()
    return _RUN()


def opened(
  run_file: str, args: argparse.Namespace, extra: Sequence[str] = ()
) -> contextlib.AbstractContextManager[None]:
  """gin with a run's files, flags and bindings; arguments as of `resolve`."""
  search = [path for path in args.gin_search_paths.split(",") if path]
  files = [f"augdistill/configs/{run_file}", *args.gin_file]
  bindings = [*extra, *flags.macro_bindings(args), *args.gin_bindings]
  return parsed(files, bindings, search)


def _recipes(makers: Mapping[str, Callable]) -> dict[str, Recipe]:
  """All recipes, with these factories: `mixup.alpha = 0.4` is a default."""
  return {
    name: dataclasses.replace(RECIPES[name], make=make)
    for name, make in makers.items()
  }


def _bound(configured: Callable) -> Callable:
  """A factory with what gin has bound to it, for when gin is empty again."""
  bindings = gin.get_bindings(configured)
  return functools.partial(inspect.unwrap(configured), **bindings)
