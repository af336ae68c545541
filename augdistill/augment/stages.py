"""Answers in stages: what a cheap search leaves open, a dear one answers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def settle(
  search: Callable[[Int[Array, "*chunk"]], Any],
  is_open: Bool[Array, "N"],
  answers: Any,
  chunk: int,
) -> Any:
  """Answers the open questions, and only those, `chunk` at a time.

  However many are open all are answered, in as many turns as that takes; where
  none is open, nothing runs.

  Args:
    search: numbers of questions i32[chunk] -> a tree like `answers`, of
      arrays [chunk, ...]; constants, since nothing is differentiated through
      the turns.
    is_open: bool[N].
    answers: a tree of arrays [N, ...].
    chunk: questions of a turn.

  Returns:
    The answers, with the new ones in their places.
  """
  size = is_open.shape[0]
  chunk = min(chunk, size)
  rows = -(-size // chunk) * chunk
  (numbers,) = jnp.nonzero(is_open, size=rows, fill_value=size)
  numbers = numbers.astype(jnp.int32)

  def turn(i, answers):
    which = jax.lax.dynamic_slice_in_dim(numbers, i * chunk, chunk)
    new = search(jnp.minimum(which, size - 1))
    # What only fills a turn has a number past the end, and is dropped.
    return jax.tree.map(
      lambda old, x: old.at[which].set(x, mode="drop"), answers, new
    )

  turns = (jnp.sum(is_open) + chunk - 1) // chunk
  return jax.lax.fori_loop(0, turns, turn, answers)
