"""The mesh of devices and what lies where on it.

One `('data', 'model')` mesh serves a laptop, a GPU node and a TPU pod: rows
of a batch are cut over 'data', and parameters over 'model' by T5X's logical
axis names. The compiler inserts the communication.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from augdistill.errors import UsageError
from augdistill.training.step import TrainState
from augdistill.types import Batch, MaskedLM, Network, Params

# T5X's rules: which mesh axis cuts a parameter's axis; the rest is replicated.
CUT_BY_MODEL = ("vocab", "mlp", "heads", "joined_kv")


def make_mesh(
  model: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Devices as a ('data', 'model') mesh.

  Args:
    model: devices over which parameters are cut; it divides the number of
      devices.
    devices: which; by default all there are.

  Returns:
    The mesh, of shape (devices / model, model).

  Raises:
    UsageError: if `model` does not divide the number of devices.
  """
  grid = np.asarray(jax.devices() if devices is None else devices)
  if model < 1 or grid.size % model:
    raise UsageError(
      f"the mesh's model axis must divide the {grid.size} devices, got {model}"
    )
  return Mesh(grid.reshape(-1, model), ("data", "model"))


def replicated(mesh: Mesh) -> NamedSharding:
  """A whole copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def param_shardings(network: Network | MaskedLM, mesh: Mesh) -> Params:
  """A sharding for every parameter, from its logical axes."""
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  model = mesh.shape["model"]

  def sharding(shape, axes):
    cut = [
      "model" if axis in CUT_BY_MODEL and size % model == 0 else None
      for axis, size in zip(axes, shape.shape, strict=True)
    ]
    # As short as the compiler writes it: a step that gets its own output back
    # then is not compiled a second time.
    while cut and (cut[-1] is None or model == 1):
      cut.pop()
    return NamedSharding(mesh, PartitionSpec(*cut))

  return jax.tree.map(sharding, shapes, network.logical_axes())


def state_shardings(
  network: Network, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
  """A sharding for every array of a train state.

  What the optimizer keeps of a parameter, in its shape, lies where the
  parameter does; the rest is small and replicated.

  Args:
    network: the student's.
    optimizer: the optax transformation of the run.
    mesh: the devices.

  Returns:
    A TrainState of shardings: the step then gives a state laid out as the one
    that it was given, and is compiled once.
  """
  whole = replicated(mesh)
  params = param_shardings(network, mesh)
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  opt_state = optax.tree_utils.tree_map_params(
    optimizer,
    lambda kept, param, sharding: (
      sharding if kept.shape == param.shape else whole
    ),
    jax.eval_shape(optimizer.init, shapes),
    shapes,
    params,
    transform_non_params=lambda _: whole,
  )
  return TrainState(whole, params, opt_state)


def place_batch(batch: Batch, mesh: Mesh) -> Batch:
  """Puts a batch of NumPy arrays on the devices, rows cut over 'data'."""
  rows = NamedSharding(mesh, PartitionSpec("data"))
  copies = NamedSharding(mesh, PartitionSpec(None, "data"))
  placed = jax.device_put(batch._replace(rewrites=None), rows)
  return placed._replace(rewrites=jax.device_put(batch.rewrites, copies))


def round_up_rows(size: int, mesh: Mesh) -> int:
  """The smallest number of rows >= `size` that every device shares equally."""
  data = mesh.shape["data"]
  return math.ceil(size / data) * data
