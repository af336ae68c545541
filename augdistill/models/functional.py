"""Modules as pure functions; parameters are always an argument."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Int

from augdistill.types import Inputs, MaskedLM, Network, Outputs, Params


def axis_names(module: nn.Module, *example: Any) -> Params:
  """The logical axis names of a module's parameters.

  Args:
    module: whose parameters are made by `param_with_axes`.
    *example: what the module is called with.

  Returns:
    A params-shaped tree of tuples of names.
  """
  shapes = jax.eval_shape(
    lambda: module.init({"params": jax.random.key(0)}, *example)
  )

  def names(node):
    if isinstance(node, Mapping):
      return {k.removesuffix("_axes"): names(v) for k, v in node.items()}
    return tuple(node.names)

  return names(shapes["params_axes"])


def as_network(
  module: nn.Module,
  num_outputs: int,
  segments: Callable[[Int[Array, "*n L"]], Int[Array, "*n L"]] | None = None,
) -> Network:
  """An encoder with a head as pure functions.

  Args:
    module: (Inputs, *, deterministic) -> Outputs; with a method `embed`, and
      parameters `token_embedder/embedding` f32[V, D] and `head/kernel`
      f32[D, C].
    num_outputs: C.
    segments: tokens -> the text of a pair that each is of, 0 or 1, for modules
      that tell these apart.

  Returns:
    A Network. `forward` with a key drops out, without one it does not; it
    computes each row independently of the others.
  """
  example = Inputs(
    mask=jnp.ones((1, 1, 2), bool), tokens=jnp.zeros((1, 1, 2), jnp.int32)
  )

  def init(key) -> Params:
    return module.init({"params": key}, example)["params"]

  def forward(params, inputs, *, key=None) -> Outputs:
    return module.apply(
      {"params": params},
      inputs,
      deterministic=key is None,
      rngs=None if key is None else {"dropout": key},
    )

  def embed(params, tokens, mask) -> Inputs:
    words = module.apply({"params": params}, tokens, method=type(module).embed)
    ids = None if segments is None else segments(tokens)
    return Inputs(mask=mask, embeddings=words, segment_ids=ids)

  def table(params):
    return params["token_embedder"]["embedding"]

  def class_vectors(params):
    return params["head"]["kernel"].T

  return Network(
    init,
    forward,
    embed,
    table,
    lambda: axis_names(module, example),
    num_outputs,
    class_vectors,
  )


def as_masked(module: nn.Module) -> MaskedLM:
  """A masked language model as pure functions.

  Args:
    module: (tokens, hidden, mask, positions, *, deterministic) -> logits, as of
      `MaskedLM.logits`.

  Returns:
    A MaskedLM. `logits` with a key drops out, without one it does not; it
    computes each row independently of the others.
  """
  tokens = jnp.zeros((1, 1, 2), jnp.int32)
  example = (tokens, tokens > 0, tokens == 0, tokens[..., :1])

  def init(key) -> Params:
    return module.init({"params": key}, *example)["params"]

  def logits(params, tokens, hidden, mask, positions, *, key=None):
    return module.apply(
      {"params": params},
      tokens,
      hidden,
      mask,
      positions,
      deterministic=key is None,
      rngs=None if key is None else {"dropout": key},
    )

  return MaskedLM(init, logits, lambda: axis_names(module, *example))
