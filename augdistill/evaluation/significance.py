"""Whether a method is better than another one, or only looks so.

Two things make a difference of two methods uncertain: which rows are tested,
and which seeds the models were trained with. Both methods are scored on the
same rows, and seed by seed they learnt from the same draw of rows, so that what
is common to both cancels.

References:
  Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 6 and
  15; Satterthwaite 1946, Biometrics Bulletin 2; Holm 1979, Scand. J.
  Statistics 6.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

from augdistill.evaluation.metrics import METRICS, higher_is_better

# f[S, N, C]. Shapes are compared below, with a remedy.
Predictions = Float[np.ndarray, "_ _ _"]
# Means over rows of a number for each row.
_OF_ROWS = {
  "accuracy": lambda p, y: np.all(p == y, axis=-1).astype(np.float64),
  "exact_match": lambda p, y: np.all(p == y, axis=-1).astype(np.float64),
  "mse": lambda p, y: np.mean((p - y) ** 2, axis=-1),
}


class Difference(NamedTuple):
  """How much better a method is than the baseline, in units of the metric.

  Attributes:
    mean: over seeds; positive where the method is the better one, whichever
      way the metric goes.
    low: lower end of the simultaneous confidence interval.
    high: its upper end.
    p: of the permutation test, corrected for the number of methods.
    wins: in how many seeds the method is the better one.
    seeds: S.
    verdict: "better", "worse", or "" where neither can be claimed.
  """

  mean: float
  low: float
  high: float
  p: float
  wins: int
  seeds: int
  verdict: str


def compare(
  methods: Mapping[str, Predictions],
  baseline: Predictions,
  labels: Float[np.ndarray, "_ _"],
  metric: str,
  *,
  alpha: float = 0.05,
  resamples: int = 2000,
  seed: int = 0,
) -> dict[str, Difference]:
  """The differences of several methods to one baseline.

  The interval holds the rows' and the seeds' share of the variance:

    d = mean_s d_s,   v = v_rows + v_seeds,   d -+ t_q(nu) sqrt(v)
    v_rows   the bootstrap's variance of d over test rows, seeds kept together
    v_seeds  var_s(d_s) / S
    nu       v^2 / (v_rows^2 / (N - 1) + v_seeds^2 / (S - 1))    (Satterthwaite)
    q        1 - alpha / (2 m) for m methods    (Bonferroni)

  What the rows add to the scatter of the seeds is counted twice, so it is
  rather too wide. (Drawing seeds anew, too, would make it far too narrow: of
  three seeds, every ninth draw takes the same one three times.) One seed says
  nothing about the others: its interval is that of these very models, and
  there is no verdict.

  The permutation test exchanges the two methods' answers to a row, in all
  seeds at once, each row with chance 1/2; its p-values are corrected by Holm's
  procedure. A verdict needs both, the interval without 0 and p <= alpha.

  Args:
    methods: name -> decisions of S seeds' models on N rows, as of
      `outputs.decide`.
    baseline: the same of the baseline, seed by seed.
    labels: f[N, C].
    metric: a name of `METRICS`.
    alpha: the chance of any wrong verdict, over all methods.
    resamples: draws of the bootstrap and of the permutation test.
    seed: of these draws.

  Returns:
    Name -> difference.

  Raises:
    ValueError: if shapes differ, there are fewer than two rows, or alpha is
      not in (0, 1).
  """
  if not 0 < alpha < 1:
    raise ValueError(f"alpha must be in (0, 1), got {alpha}")
  if len(labels) < 2:
    raise ValueError(f"there must be two rows or more, got {len(labels)}")
  for name, predictions in methods.items():
    if predictions.shape != baseline.shape:
      raise ValueError(
        f"{name} must have the shape of the baseline, {baseline.shape}, got "
        f"{predictions.shape}"
      )
  if baseline.shape[1:] != labels.shape:
    raise ValueError(
      f"predictions must be of the rows {labels.shape}, got {baseline.shape}"
    )
  sign = 1.0 if higher_is_better(metric) else -1.0
  measured, chances = {}, {}
  for name, predictions in methods.items():
    # The same draws for each method: they do not depend on the others.
    rng = np.random.default_rng(seed)
    pair = _Pair(predictions, baseline, labels, metric)
    of_seeds = sign * pair.difference()
    drawn = sign * pair.over_rows(rng, resamples)
    swapped = sign * pair.under_exchange(rng, resamples)
    mean = float(np.mean(of_seeds))
    # Rounding must not tell apart what is equal.
    as_far = np.abs(swapped) >= abs(mean) - 1e-12
    chances[name] = (1 + np.sum(as_far)) / (1 + resamples)
    margin = _margin(drawn, of_seeds, len(labels), alpha / len(methods))
    measured[name] = (mean, margin, of_seeds)
  corrected = dict(zip(chances, _holm([*chances.values()]), strict=True))
  differences = {}
  for name, (mean, margin, of_seeds) in measured.items():
    sure = abs(mean) > margin and corrected[name] <= alpha and len(of_seeds) > 1
    differences[name] = Difference(
      mean=mean,
      low=mean - margin,
      high=mean + margin,
      p=corrected[name],
      wins=int(np.sum(of_seeds > 0)),
      seeds=len(of_seeds),
      verdict=("better" if mean > 0 else "worse") if sure else "",
    )
  return differences


class _Pair:
  """Two methods on the same rows: the difference of their metric, resampled."""

  def __init__(self, a: Predictions, b: Predictions, labels, metric: str):
    self._a, self._b, self._labels = a, b, labels
    self._metric = METRICS[metric]
    self._rows = None
    if metric in _OF_ROWS:
      self._rows = _OF_ROWS[metric](a, labels) - _OF_ROWS[metric](b, labels)

  def difference(self) -> Float[np.ndarray, " S"]:
    """On the rows as they are, seed by seed."""
    return self._scored(self._a, self._b, self._labels)

  def over_rows(
    self, rng: np.random.Generator, resamples: int
  ) -> Float[np.ndarray, " R"]:
    """The mean over seeds, on rows drawn with replacement."""
    n = len(self._labels)
    if self._rows is not None:
      counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
      return counts @ self._rows.mean(axis=0) / n
    draws = rng.integers(n, size=(resamples, n))
    return np.array(
      [
        self._scored(self._a[:, i], self._b[:, i], self._labels[i]).mean()
        for i in draws
      ]
    )

  def under_exchange(
    self, rng: np.random.Generator, resamples: int
  ) -> Float[np.ndarray, " R"]:
    """The mean over seeds, where rows have changed methods at random."""
    n = len(self._labels)
    swaps = rng.integers(2, size=(resamples, n), dtype=np.int8)
    if self._rows is not None:
      return (1.0 - 2.0 * swaps) @ self._rows.mean(axis=0) / n
    means = []
    for swap in swaps.astype(bool)[:, None, :, None]:
      a = np.where(swap, self._b, self._a)
      b = np.where(swap, self._a, self._b)
      means.append(self._scored(a, b, self._labels).mean())
    return np.array(means)

  def _scored(self, a, b, labels) -> Float[np.ndarray, " S"]:
    of_a = [self._metric(predictions, labels) for predictions in a]
    of_b = [self._metric(predictions, labels) for predictions in b]
    return np.subtract(of_a, of_b)


def _margin(
  drawn: Float[np.ndarray, " R"],
  of_seeds: Float[np.ndarray, " S"],
  num_rows: int,
  alpha: float,
) -> float:
  """Half the width of the interval."""
  v_rows, v_seeds, seeds = np.var(drawn), 0.0, len(of_seeds)
  spread = v_rows**2 / (num_rows - 1)
  if seeds > 1:
    v_seeds = np.var(of_seeds, ddof=1) / seeds
    spread += v_seeds**2 / (seeds - 1)
  variance = v_rows + v_seeds
  if variance == 0:
    return 0.0
  freedom = variance**2 / spread
  return float(scipy.stats.t.ppf(1 - alpha / 2, freedom) * np.sqrt(variance))


def _holm(chances: list[float]) -> list[float]:
  """p-values corrected so that the smallest <= alpha holds for all at once."""
  order = np.argsort(chances, kind="stable")
  scaled = np.asarray(chances)[order] * np.arange(len(chances), 0, -1)
  corrected = np.empty(len(chances))
  corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
  return corrected.tolist()
