"""Where a run's parameters and rows go on its devices."""

import functools

import jax

from augdistill.errors import UsageError
from augdistill.training import mesh
from augdistill.types import MaskedLM, Network, Params


def place_params(
  model: Network | MaskedLM,
  params: Params,
  devices: jax.sharding.Mesh,
  over_data: bool = False,
) -> Params:
  """Puts parameters where the model's axes say, as `mesh.param_shardings`."""
  return mesh.place(params, param_shardings(model, devices, over_data))


@functools.cache
def _param_shardings(
  model: Network | MaskedLM, devices: jax.sharding.Mesh, over_data: bool
) -> Params:
  return mesh.param_shardings(model, devices, over_data)


def param_shardings(
  model: Network | MaskedLM,
  devices: jax.sharding.Mesh,
  over_data: bool = False,
) -> Params:
  """`mesh.param_shardings`, once per model, since it is traced for that."""
  return _param_shardings(model, devices, over_data)


def check_batch_size(
  batch_size: int, shape: str, num_microbatches: int = 1
) -> None:
  """Raises UsageError unless every device has its share of every microbatch."""
  devices = mesh.make_mesh(shape).shape["data"]
  check_shares(batch_size, devices, num_microbatches)


def check_shares(batch_size: int, devices: int, num_microbatches: int) -> None:
  """`check_batch_size` for devices that need not be here."""
  if batch_size % (devices * num_microbatches):
    raise UsageError(
      f"the batch size must be a multiple of {num_microbatches} "
      f"microbatches x {devices} devices, got {batch_size}"
    )
