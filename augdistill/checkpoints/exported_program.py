"""A network as a program of StableHLO, and its weights beside it.

  model.stablehlo  weights.npz

The program takes (weights, tokens i32[b, l], mask bool[b, l]), for any b and
any l that the network reads, and gives f32[b, c]; it is lowered for CPUs,
NVIDIA's GPUs and TPUs.

The weights are its argument and lie beside it, since a program of symbolic
shape is compiled once per shape: each of these would hold a copy of weights
inside. And they are in NumPy's format, which whoever has jax can read. Those
in int8 become float32 as they are read and not in the program, which would do
it again at every call; on a CPU that takes longer than the rest of the call.

References:
  jax.export: docs.jax.dev/en/latest/export.
"""

import os
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from augdistill.checkpoints import exported, flat
from augdistill.checkpoints.int8 import dequantise
from augdistill.types import Inputs, Network

PROGRAM, WEIGHTS = "model.stablehlo", "weights.npz"
PLATFORMS = ("cpu", "cuda", "tpu")


def write_program(
  directory: pathlib.Path,
  network: Network,
  weights: Mapping[str, np.ndarray],
  longest: int | None = None,
) -> None:
  """Writes the program and the weights.

  Args:
    directory: where to.
    network: what the program computes, without dropout.
    weights: name -> array, in float32 or as of `int8.quantise`.
    longest: the most tokens of a text that the network reads; None: any.
  """

  def logits(weights, tokens, mask):
    inputs = Inputs(mask=mask[None], tokens=tokens[None])
    return network.forward(flat.nested(weights), inputs, key=None).logits[0]

  limits = [] if longest is None else [f"l <= {longest}"]
  shape = export.symbolic_shape("b, l", constraints=limits)
  program = export.export(jax.jit(logits), platforms=PLATFORMS)(
    {
      name: jax.ShapeDtypeStruct(array.shape, jnp.float32)
      for name, array in dequantise(weights).items()
    },
    jax.ShapeDtypeStruct(shape, jnp.int32),
    jax.ShapeDtypeStruct(shape, jnp.bool_),
  )
  (directory / PROGRAM).write_bytes(program.serialize())
  np.savez(directory / WEIGHTS, **weights)


def read_program(directory: str | os.PathLike) -> exported.Logits:
  """What was written, as its README reads it."""
  directory = pathlib.Path(directory)
  program = export.deserialize((directory / PROGRAM).read_bytes())
  call = jax.jit(program.call)
  with np.load(directory / WEIGHTS, allow_pickle=False) as stored:
    weights = jax.device_put(dequantise(dict(stored)))
  return lambda tokens, mask: np.asarray(call(weights, tokens, mask))
