"""What a student begins with: random parameters, or those of another model."""

from collections.abc import Callable

from augdistill.cli import pretrained
from augdistill.cli.config import RunConfig
from augdistill.cli.trained import Trained
from augdistill.models.networks import ModelConfig, network
from augdistill.models.projected import without_projections
from augdistill.models.selection import select_layers, selected_layers
from augdistill.types import Params, Task


def beginning(
  config: RunConfig, shape: ModelConfig, task: Task, teacher: Trained | None
) -> Callable[[Params], Params]:
  """What the student begins with: random parameters, or another model's."""
  if config.init is not None:
    return inheriting(config, shape, task)
  if config.init_layers is None:
    return lambda params: params
  select = selecting(config.init_layers, shape, teacher.served.model)
  return lambda params: params | select(params, teacher.params)


def inheriting(
  config: RunConfig, shape: ModelConfig, task: Task
) -> Callable[[Params], Params]:
  """The student's random parameters -> those that --init gives it."""
  layers = None
  if config.init_layers is not None:
    there = pretrained.source_of(config.init).shape["num_layers"]
    layers = selected_layers(config.init_layers, shape.num_layers, there)
  return pretrained.inheriting(config.init, network(shape), task, layers)


def selecting(
  selection: str, shape: ModelConfig, teacher: ModelConfig
) -> Callable[[Params, Params], Params]:
  """(student's parameters, teacher's) -> the student's first ones."""
  layers = selected_layers(selection, shape.num_layers, teacher.num_layers)

  def select(mine, theirs):
    return select_layers(theirs, without_projections(mine), layers)

  return select
