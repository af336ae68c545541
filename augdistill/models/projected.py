"""A student that learns to speak of its layers in the teacher's width.

Each hidden state has a matrix of its own, which is learnt with the student
and thrown away afterwards: the model that is served does not need it.

References:
  Jiao et al. 2020, TinyBERT, arXiv:1909.10351, equation 8.
"""

import dataclasses

import jax
import jax.numpy as jnp

from augdistill import prng
from augdistill.models.dense import times_matrix
from augdistill.models.t5_layers import fan_in_normal
from augdistill.types import Inputs, Network, Outputs, Params

PROJECTIONS = "projections"


def with_projections(network: Network, teacher_width: int) -> Network:
  """`network` whose outputs have `projected`: a matrix times each hidden state.

    projected_i = h_i P_i,  P_i f32[D, teacher_width]

  at real positions, and 0 at padding. It is aligned with `hidden`, also where
  the network is entered at a layer. Everything else is as without.

  Args:
    network: the student; how many hidden states it has, and how wide they
      are, is read off its outputs.
    teacher_width: width of the teacher's hidden states.

  Returns:
    A Network. Its parameters are those of `network`, from the same key the
    same ones, and {"projections": {"layer_0": P_0, ...}} for the entry and
    the exit of every layer.

  Raises:
    ValueError: if the width is less than 1, or the network shows no hidden
      states.
  """
  if teacher_width < 1:
    raise ValueError(f"teacher_width must be positive, got {teacher_width}")
  widths = _hidden_widths(network)
  if not widths:
    raise ValueError("projections need a network that shows its hidden states")
  names = [f"layer_{i}" for i in range(len(widths))]

  def init(key) -> Params:
    matrices = {
      name: fan_in_normal(
        prng.stream(key, f"{PROJECTIONS}/{name}"),
        (width, teacher_width),
        jnp.float32,
      )
      for name, width in zip(names, widths, strict=True)
    }
    return {**network.init(key), PROJECTIONS: matrices}

  def forward(params, inputs, *, key=None) -> Outputs:
    outputs = network.forward(without_projections(params), inputs, key=key)
    # A network that is entered at a layer shows the last of its states only.
    ran = names[len(names) - len(outputs.hidden) :]
    matrices = [params[PROJECTIONS][name] for name in ran]
    # Padding may hold NaN, which would reach the gradient of the matrix.
    real = inputs.mask[..., None]
    projected = tuple(
      times_matrix(jnp.where(real, x, 0.0), p.astype(x.dtype))
      for x, p in zip(outputs.hidden, matrices, strict=True)
    )
    return outputs._replace(projected=projected)

  def logical_axes() -> Params:
    # T5X cuts neither axis, as it would if both were called "embed".
    axes = dict.fromkeys(names, ("embed", "kv"))
    return {**network.logical_axes(), PROJECTIONS: axes}

  vectors = network.class_vectors
  return dataclasses.replace(
    network,
    init=init,
    forward=forward,
    embed=lambda params, tokens, mask: network.embed(
      without_projections(params), tokens, mask
    ),
    table=lambda params: network.table(without_projections(params)),
    logical_axes=logical_axes,
    class_vectors=vectors
    and (lambda params: vectors(without_projections(params))),
  )


def without_projections(params: Params) -> Params:
  """The parameters to serve: those of the network without projections."""
  return {k: v for k, v in params.items() if k != PROJECTIONS}


def _hidden_widths(network: Network) -> list[int]:
  """Widths of the hidden states that a network shows; nothing is computed."""
  inputs = Inputs(
    mask=jnp.ones((1, 1, 2), bool), tokens=jnp.zeros((1, 1, 2), jnp.int32)
  )
  outputs = jax.eval_shape(
    lambda key: network.forward(network.init(key), inputs), jax.random.key(0)
  )
  return [x.shape[-1] for x in outputs.hidden]
