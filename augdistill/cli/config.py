"""gin: from files, flags and bindings to one RunConfig, and back to text.

gin only evaluates factories here; nothing that it wrapped runs under jit.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.util  # gin finds packaged files only if this is imported
import inspect
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import gin
import optax

from augdistill.augment.methods import RECIPES, Recipe
from augdistill.cli import flags
from augdistill.data.load import DataConfig
from augdistill.errors import UsageError, suggest
from augdistill.models.enct5 import EncT5Config
from augdistill.models.sizes import enct5_config
from augdistill.training.methods import build_method
from augdistill.training.optimizers import make_optimizer
from augdistill.types import Task, TaskKind


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
    seed: of parameters, order, draws, dropout, held-out rows.
    teacher: directory of a fine-tuned run, or None.
    teacher_dropout: whether the teacher drops out while it teaches.
    num_microbatches: parts into which a batch is cut to save memory.
    model_parallel: devices over which parameters are cut.
    eval_batch_size: rows of an evaluation batch.
    eval_period: steps between evaluations on validation rows, each with a
      checkpoint; by default a tenth of the run.
    log_period: steps between lines of metrics.
    keep_checkpoints: how many of the newest are kept, besides the best.
    recipes: the views that a method may name.
  """

  data: DataConfig
  model: Callable[..., EncT5Config]
  optimizer: optax.GradientTransformation
  method: str
  num_steps: int
  batch_size: int
  seed: int = 0
  teacher: str | None = None
  teacher_dropout: bool = True
  num_microbatches: int = 1
  model_parallel: int = 1
  eval_batch_size: int = 256
  eval_period: int | None = None
  log_period: int = 20
  keep_checkpoints: int = 2
  recipes: Mapping[str, Recipe] = dataclasses.field(
    default_factory=lambda: RECIPES
  )

  def __post_init__(self):
    for name in ("num_steps", "batch_size", "num_microbatches", "log_period",
                 "eval_batch_size", "model_parallel", "keep_checkpoints"):
      value = getattr(self, name)
      if not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} must be a positive whole number, got {value!r}")
    if self.batch_size % self.num_microbatches:
      raise UsageError(
        f"num_microbatches must divide the batch size {self.batch_size}, got "
        f"{self.num_microbatches}"
      )


@dataclasses.dataclass(frozen=True)
class Served:
  """What a trained run needs to be used without its teacher.

  Attributes:
    model: the network's shape.
    task: what its outputs mean.
    max_length: tokens kept of a text.
  """

  model: EncT5Config
  task: Task
  max_length: int


_FACTORIES = (RunConfig, DataConfig, Served, EncT5Config, Task, make_optimizer)
for _factory in _FACTORIES:
  gin.external_configurable(_factory, module="augdistill")
_SHAPE = gin.external_configurable(enct5_config, module="augdistill")
_WRAPPED = {
  name: gin.external_configurable(recipe.make, name=name, module="augdistill")
  for name, recipe in RECIPES.items()
}


def recipes() -> dict[str, Recipe]:
  """All recipes, with defaults as gin has them now: `mixup.alpha = 0.4`."""
  return {
    name: dataclasses.replace(
      recipe, make=_bound(_WRAPPED.get(name), recipe.make)
    )
    for name, recipe in RECIPES.items()
  }


def _bound(wrapped: Callable | None, factory: Callable) -> Callable:
  """`factory` with what gin has bound to it, for when gin is empty again."""
  if wrapped is None:
    return factory
  return functools.partial(factory, **gin.get_bindings(wrapped))


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
  search = [p for p in args.gin_search_paths.split(",") if p]
  bindings = [*extra, *flags.macro_bindings(args), *args.gin_bindings]
  with parsed([run_file, *args.gin_file], bindings, search):
    try:
      config = gin.get_configurable(RunConfig)()
      # Every factory is called once, through gin, before anything costs time:
      # a typo shows at once, and the operative text is complete.
      config.model(vocab_size=8, num_outputs=2)
      through_gin = {
        name: dataclasses.replace(recipe, make=_WRAPPED.get(name, recipe.make))
        for name, recipe in RECIPES.items()
      }
      build_method(config.method, TaskKind.CLASSES, through_gin)
      config = dataclasses.replace(
        config,
        model=_bound(_SHAPE, enct5_config),
        recipes=recipes(),
      )
    except (UsageError, TypeError, ValueError) as error:
      raise UsageError(_gin_message(error)) from error
    text = gin.operative_config_str()
  _check_macros(args.gin_bindings, text)
  return config, text


def _check_macros(bindings: Sequence[str], text: str) -> None:
  """gin takes any macro; one that nothing reads is a typo."""
  used = re.findall(r"^([A-Z][A-Z_0-9]*) = ", text, re.MULTILINE)
  for binding in bindings:
    name = binding.split("=")[0].strip()
    if re.fullmatch(r"[A-Z][A-Z_0-9]*", name) and name not in used:
      raise UsageError(
        f"no macro is called {name}; there are {', '.join(used)}."
        + suggest(name, used)
      )


@contextlib.contextmanager
def parsed(
  files: Sequence[str], bindings: Sequence[str] = (), search: Sequence[str] = ()
) -> Iterator[None]:
  """gin with exactly these files and bindings; empty again afterwards.

  So what is set for one model never reaches another one.
  """
  package = os.path.dirname(
    importlib.util.find_spec("augdistill.configs").origin
  )
  gin.clear_config()
  gin.config._LOCATION_PREFIXES[:] = ["", *search, package]
  logging.disable(logging.ERROR)  # gin reports every path that it tries.
  try:
    gin.parse_config_files_and_bindings(list(files), list(bindings))
  except Exception as error:  # gin raises nearly every kind there is.
    raise UsageError(_gin_message(error)) from error
  finally:
    logging.disable(logging.NOTSET)
  try:
    yield
  finally:
    gin.clear_config()


def load_served(path: str) -> Served:
  """Reads a `student.gin`.

  Raises:
    UsageError: if it is missing or does not fit.
  """
  with parsed([path]):
    try:
      return gin.get_configurable(Served)()
    except (TypeError, ValueError) as error:
      raise UsageError(f"{path}: {_gin_message(error)}") from error


def served_text(served: Served) -> str:
  """The gin text that `load_served` reads."""
  lines = [
    "# What this model needs to be used without its teacher.",
    "Served.model = @EncT5Config()",
    "Served.task = @Task()",
    f"Served.max_length = {served.max_length}",
  ]
  for thing in (served.model, served.task):
    for field in dataclasses.fields(thing):
      value = getattr(thing, field.name)
      value = str(value) if isinstance(value, TaskKind) else value
      lines.append(f"{type(thing).__name__}.{field.name} = {value!r}")
  return "\n".join(lines) + "\n"


def _gin_message(error: Exception) -> str:
  """gin's explanation in one line, with the near name where there is one."""
  text = str(error).split("\n  In call to configurable")[0]
  if isinstance(error, UsageError):
    return text
  text, hint = " ".join(text.split()), ""
  known = {f.__name__: f for f in (*_FACTORIES, enct5_config)} | _WRAPPED
  if name := re.search(r"No configurable matching '([^']+)'", text):
    hint = suggest(name[1].split("/")[-1], known)
  elif found := re.search(r"'(\S+)' doesn't have a parameter named '(\S+)'", text):
    parameters = inspect.signature(known[found[1]]).parameters
    hint = f"; it has {', '.join(parameters)}." + suggest(found[2], parameters)
  return f"the configuration does not hold: {text[:500]}{hint}"
