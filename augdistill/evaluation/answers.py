"""A teacher's answers to a batch, with its dropout or without."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from augdistill import prng
from augdistill.evaluation.predict import logits_of
from augdistill.types import Batch, Inputs, Network, Params


@functools.partial(jax.jit, static_argnames=("network", "draws"))
def answers_of(
  network: Network, params: Params, batch: Batch, draws: int | None
) -> Float[Array, "B m C"]:
  """Logits, or values, of the rows of one batch.

  A draw's dropout masks are a function of the row's tokens, of L and of the
  draw's number: neither of a run's seed nor of the other rows.

  Args:
    network: the teacher's; the same object each time, or it compiles anew.
    params: its parameters, wherever they are.
    batch: B rows, of which `tokens` and `mask` are read.
    draws: m, answers with dropout to each row; None for one without.
  """
  if draws is None:
    return logits_of(network, params, batch)[:, None]
  key = prng.stream(prng.run_key(0), "teacher's answers")

  def of_row(tokens, mask, key):
    inputs = Inputs(mask=mask[None, None], tokens=tokens[None, None])
    return network.forward(params, inputs, key=key).logits[0, 0]

  def draw(number):
    keys = prng.per_text(key, batch.tokens, batch.mask, number)
    return jax.vmap(of_row)(batch.tokens, batch.mask, keys)

  return jnp.moveaxis(jax.lax.map(draw, jnp.arange(draws)), 0, 1)
