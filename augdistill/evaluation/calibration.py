"""Whether a probability is the share of times that it comes true."""

import numpy as np
from jaxtyping import Float


def expected_calibration_error(
  probabilities: Float[np.ndarray, "N C"],
  labels: Float[np.ndarray, "N C"],
  bins: int = 15,
) -> float:
  """How far confidence is from accuracy, over bins of equal width.

    ECE = sum_m |B_m| / N  | accuracy(B_m) - confidence(B_m) |

  The confidence is the largest probability of a row; B_m holds those in
  ((m - 1) / bins, m / bins].

  Args:
    probabilities: f[N, C], of classes.
    labels: f[N, C] one-hot.
    bins: how many.

  Returns:
    A number in [0, 1]; 0 without any row.

  Raises:
    ValueError: if `bins` is not positive.

  References:
    Guo et al. 2017, equation 3, arXiv:1706.04599.
  """
  if bins < 1:
    raise ValueError(f"bins must be at least 1, got {bins}")
  if not len(labels):
    return 0.0
  probabilities = np.asarray(probabilities, np.float64)
  confidence = probabilities.max(axis=-1)
  correct = probabilities.argmax(axis=-1) == np.argmax(labels, axis=-1)
  edges = np.arange(1, bins) / bins
  bin_of = np.searchsorted(edges, confidence, side="left")
  gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
  return float(np.sum(np.abs(gaps)) / len(labels))
