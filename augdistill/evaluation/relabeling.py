"""Whether a model's classes have been mixed up with those of the data.

A model whose outputs stand in another order than the labels scores as if it
had learnt nothing, and its students learn nothing. The order that fits best is
an assignment problem on the confusion matrix. It always fits the rows that it
was found on at least as well, so it is judged on others.

References:
  Kuhn 1955, The Hungarian Method, Naval Research Logistics Quarterly 2.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# Chance that a judgement below is wrong where there is nothing to be found.
_ALPHA = 1e-3
# A permutation that explains less of the rows than this is none to speak of.
_LEAST_GAIN = 0.05


class Relabeling(NamedTuple):
  """How a model's answers fit the labels, and how they could.

  Attributes:
    accuracy: of the answers as they are.
    chance: share of the most frequent class: what a constant answer has.
    knows: whether the accuracy is above chance, by more than luck explains.
    order: order[c] is the class that the model means by its output c.
    permuted_accuracy: of the answers in that order, on rows that it was not
      found on.
    permuted: whether the order is another than the data's, and fits better
      by more than luck explains.
  """

  accuracy: float
  chance: float
  knows: bool
  order: tuple[int, ...]
  permuted_accuracy: float
  permuted: bool


def relabel(
  predictions: Float[np.ndarray, "N C"], labels: Float[np.ndarray, "N C"]
) -> Relabeling:
  """Finds the order of a model's outputs that fits the labels best.

  Args:
    predictions: one-hot decisions, as of `outputs.decide`.
    labels: one-hot.

  Returns:
    What was found. A class that the model never answers, or that no row has,
    keeps its place where it can.

  Raises:
    ValueError: if there is no row.
  """
  if not len(labels):
    raise ValueError("there must be a row with a label")
  said, true = np.argmax(predictions, axis=-1), np.argmax(labels, axis=-1)
  classes = labels.shape[-1]
  right = int(np.sum(said == true))
  most = np.bincount(true, minlength=classes).max()
  chance = most / len(true)
  fold = np.arange(len(true)) % 2
  moved = np.empty(len(true), bool)
  for held_out in (0, 1):
    order = _best_order(said[fold != held_out], true[fold != held_out], classes)
    there = fold == held_out
    moved[there] = order[said[there]] == true[there]
  # Rows on which the two orders differ: is the other one right more often?
  gained = int(np.sum(moved & (said != true)))
  lost = int(np.sum(~moved & (said == true)))
  gain = (gained - lost) / len(true)
  order = _best_order(said, true, classes)
  return Relabeling(
    accuracy=right / len(true),
    chance=float(chance),
    knows=_beyond_luck(right, len(true), chance),
    order=tuple(order.tolist()),
    permuted_accuracy=float(moved.mean()),
    permuted=gain >= _LEAST_GAIN
    and _beyond_luck(gained, gained + lost, 0.5)
    and bool(np.any(order != np.arange(classes))),
  )


def _best_order(
  said: Int[np.ndarray, " N"], true: Int[np.ndarray, " N"], classes: int
) -> Int[np.ndarray, " C"]:
  """The permutation of outputs with the most rows right."""
  confusion = np.zeros((classes, classes))
  np.add.at(confusion, (said, true), 1.0)
  # Among equally good orders, the one that moves the fewest classes.
  confusion += 0.5 / classes * np.eye(classes)
  from scipy import optimize  # Here, since it takes long to import.

  _, order = optimize.linear_sum_assignment(confusion, maximize=True)
  return order


def _beyond_luck(hits: int, draws: int, chance: float) -> bool:
  """Whether so many hits are more than chance gives, but for one in 1,000."""
  if not draws or chance >= 1:
    return False
  from scipy import special

  # P(X >= hits) of a binomial distribution.
  return bool(special.bdtrc(hits - 1, draws, chance) < _ALPHA)
