"""The mesh of devices and what lies where on it.

One `('data', 'model')` mesh serves a laptop, a GPU node and a TPU pod: rows
of a batch are cut over 'data', and parameters over 'model' by T5X's logical
axis names. The compiler inserts the communication.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from augdistill.errors import UsageError
from augdistill.training import processes
from augdistill.training.step import TrainState
from augdistill.types import Batch, MaskedLM, Network, Params

# T5X's rules: which mesh axis cuts a parameter's axis; the rest is replicated.
CUT_BY_MODEL = ("vocab", "mlp", "heads", "joined_kv")


# A slice's type, as Google Cloud calls it. The number counts TensorCores of v2,
# v3, v4 and v5p, and chips of the others; JAX sees two cores of v4 and v5p as
# one device. https://cloud.google.com/tpu/docs/tpus-in-gke#accelerator-types
_SLICE = re.compile(r"(v2|v3|v4|v5p|v5e|v5litepod|v6e)-(\d+)(?:/(\d+))?")
_TWO_CORES = ("v4", "v5p")
_SHAPE = re.compile(r"(\d*)x(\d+)")


def mesh_shape(text: str, count: int) -> tuple[int, int]:
  """The shape of a mesh, from what it is called.

  Args:
    text: "DATAxMODEL", such as "4x2"; "xMODEL" for all devices there are; or
      the type of a TPU slice, such as "v4-32", all of it on 'data', or
      "v4-32/4", parameters cut over 4.
    count: how many devices there are.

  Returns:
    (data, model).

  Raises:
    UsageError: if it is none of these, or needs another number of devices.
  """
  whole, sliced = _SHAPE.fullmatch(text), _SLICE.fullmatch(text)
  if whole:
    model = int(whole[2])
    wanted = int(whole[1]) * model if whole[1] else count
  elif sliced:
    model = int(sliced[3] or 1)
    wanted = int(sliced[2]) // (2 if sliced[1] in _TWO_CORES else 1)
  else:
    raise UsageError(
      "a mesh must be DATAxMODEL, such as 4x2 or x2, or the type of a TPU "
      f"slice, such as v4-32 or v4-32/4, got {text!r}"
    )
  if wanted != count:
    raise UsageError(
      f"the mesh {text} needs {wanted} devices, and there are {count}"
    )
  if model < 1 or count % model:
    raise UsageError(
      f"the mesh's model axis must divide the {count} devices, got {text}"
    )
  return count // model, model


def make_mesh(
  shape: str = "x1", devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Devices as a ('data', 'model') mesh.

  Args:
    shape: as of `mesh_shape`.
    devices: which; by default all there are, of all hosts.

  Returns:
    The mesh. On TPUs neighbours in it are neighbours on the chips' network.

  Raises:
    UsageError: as of `mesh_shape`.
  """
  devices = jax.devices() if devices is None else devices
  grid = mesh_shape(shape, len(devices))
  if devices[0].platform == "tpu":
    ordered = mesh_utils.create_device_mesh(
      grid, devices, allow_split_physical_axes=True
    )
  else:
    ordered = np.asarray(devices).reshape(grid)
  return Mesh(ordered, ("data", "model"))


def replicated(mesh: Mesh) -> NamedSharding:
  """A whole copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def param_shardings(
  network: Network | MaskedLM, mesh: Mesh, over_data: bool = False
) -> Params:
  """A sharding for every parameter, from its logical axes.

  Args:
    network: whose parameters.
    mesh: the devices.
    over_data: whether matrices are also cut over 'data', along the longest
      axis that 'model' leaves whole. A layer's are then gathered when it runs
      (FSDP, Zhao et al. 2023, arXiv:2304.11277): less memory, more traffic.

  Returns:
    A tree of shardings like the parameters.
  """
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  model, data = mesh.shape["model"], mesh.shape["data"]

  def sharding(shape, axes):
    cut = [
      "model" if axis in CUT_BY_MODEL and size % model == 0 else None
      for axis, size in zip(axes, shape.shape, strict=True)
    ]
    free = [
      axis
      for axis, size in enumerate(shape.shape)
      if cut[axis] is None and size % data == 0
    ]
    if over_data and len(shape.shape) > 1 and free:
      cut[max(free, key=lambda axis: shape.shape[axis])] = "data"
    # As short as the compiler writes it: a step that gets its own output back
    # then is not compiled a second time.
    cut = [axis if axis and mesh.shape[axis] > 1 else None for axis in cut]
    while cut and cut[-1] is None:
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


def place(tree: Any, where: Any) -> Any:
  """Puts arrays that every host has on the devices of all hosts.

  Args:
    tree: arrays and keys, the same on every host.
    where: a sharding for all of them, or a tree of shardings like `tree`.

  Returns:
    A tree like it, of arrays that no host need have whole.
  """
  if isinstance(where, Sharding):
    where = jax.tree.map(lambda _: where, tree)
  if not processes.are_several():
    return jax.device_put(tree, where)

  def put(x, sharding):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      data = put(jax.random.key_data(x), sharding)
      return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
      return jax.jit(lambda x: x, out_shardings=sharding)(x)
    x = np.asarray(x)
    return jax.make_array_from_callback(
      x.shape, sharding, lambda index: x[index]
    )

  return jax.tree.map(put, tree, where)


def shares_here(mesh: Mesh) -> tuple[tuple[int, ...], int]:
  """Which of the equal shares of a batch the devices of this host need.

  Args:
    mesh: the devices, of all hosts.

  Returns:
    The shares' numbers, ascending, and how many shares there are: one per row
    of the mesh. Hosts that hold parts of one row's parameters need the same.
  """
  host = jax.process_index()
  mine = [
    number
    for number, row in enumerate(mesh.devices)
    if any(device.process_index == host for device in row)
  ]
  return tuple(mine), mesh.shape["data"]


def place_batch(batch: Batch, mesh: Mesh) -> Batch:
  """Puts a host's rows of a batch on its devices, rows cut over 'data'.

  Args:
    batch: NumPy arrays, those of `shares_here` one behind the other.
    mesh: the devices, of all hosts.

  Returns:
    The whole batch; no host holds all of it.
  """
  mine, count = shares_here(mesh)

  def put(axis):
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))

    def one(rows):
      size = rows.shape[axis] // len(mine)  # of a share
      shape = list(rows.shape)
      shape[axis] = size * count

      def share(index):
        number = (index[axis].start or 0) // size
        first = mine.index(number) * size
        return rows[(*index[:axis], slice(first, first + size))]

      return jax.make_array_from_callback(tuple(shape), sharding, share)

    return one

  placed = jax.tree.map(put(0), batch._replace(rewrites=None))
  return placed._replace(rewrites=jax.tree.map(put(1), batch.rewrites))


def round_up_rows(size: int, mesh: Mesh) -> int:
  """The smallest number of rows >= `size` that every device shares equally."""
  data = mesh.shape["data"]
  return math.ceil(size / data) * data
