"""Verdicts on planted differences, and the parts they are made of."""

import itertools

import numpy as np
import pytest
import scipy.stats

from augdistill.evaluation import significance
from augdistill.evaluation.significance import compare

SEEDS, ROWS = 3, 400


def answers(rng, accuracy, seed_sd=0.0, seeds=SEEDS, rows=ROWS, hardness=None):
  """Decisions [S, N, 2] of models that are right as often as they should be.

  A row is hard for all models or for none; a seed is a better or a worse one.
  """
  hardness = rng.normal(size=rows) if hardness is None else hardness
  share = np.clip(accuracy + rng.normal(0, seed_sd, seeds), 0.01, 0.99)
  level = scipy.stats.norm.ppf(share)[:, None] * np.sqrt(1.5)
  noise = rng.normal(0, np.sqrt(0.5), (seeds, rows))
  right = level + hardness + noise > 0
  return np.stack([right, ~right], axis=-1).astype(float)


def verdicts(effect, comparisons, seed_sd, seeds=SEEDS, rows=ROWS):
  """Shares of better and of worse, with hardness common to both methods."""
  labels = np.tile([1.0, 0.0], (rows, 1))
  said = []
  for number in range(comparisons):
    rng = np.random.default_rng([7, number])
    hardness = rng.normal(size=rows)
    a, b = (
      answers(rng, 0.75 + gain, seed_sd, seeds, rows, hardness)
      for gain in (effect, 0.0)
    )
    made = compare({"a": a}, b, labels, "accuracy", resamples=400, seed=number)
    said.append(made["a"].verdict)
  return said.count("better") / comparisons, said.count("worse") / comparisons


@pytest.mark.parametrize("seed_sd", [0.0, 0.02])
def test_two_equal_methods_are_rarely_told_apart(seed_sd):
  better, worse = verdicts(0.0, 200, seed_sd)
  assert better <= 0.065
  assert worse <= 0.065


@pytest.mark.slow
@pytest.mark.parametrize(
  ("seed_sd", "seeds"), [(0.0, 3), (0.01, 3), (0.03, 3), (0.01, 2), (0.02, 5)]
)
def test_two_equal_methods_are_rarely_told_apart_in_2000_comparisons(
  seed_sd, seeds
):
  better, worse = verdicts(0.0, 2000, seed_sd, seeds)
  assert better <= 0.065
  assert worse <= 0.065


def test_five_points_are_found():
  # Rows, seeds and the scatter of seeds are those of BANKING77.
  better, worse = verdicts(0.05, 50, seed_sd=0.006, rows=3080)
  assert better >= 0.9
  assert worse == 0


def test_equal_answers_differ_by_nothing():
  rng = np.random.default_rng(0)
  a = answers(rng, 0.7)
  labels = np.tile([1.0, 0.0], (ROWS, 1))
  for metric in ("accuracy", "macro_f1"):
    made = compare({"a": a}, a, labels, metric, resamples=50)["a"]
    assert made == (0.0, 0.0, 0.0, 1.0, 0, SEEDS, "")


def test_one_seed_has_an_interval_and_no_verdict():
  rng = np.random.default_rng(0)
  labels = np.tile([1.0, 0.0], (ROWS, 1))
  a, b = answers(rng, 0.9, seeds=1), answers(rng, 0.5, seeds=1)
  made = compare({"a": a}, b, labels, "accuracy", resamples=200)["a"]
  assert 0 < made.low < made.mean < made.high
  assert made.wins == 1
  assert made.verdict == ""
  twice = compare(
    {"a": np.tile(a, (2, 1, 1))},
    np.tile(b, (2, 1, 1)),
    labels,
    "accuracy",
    resamples=200,
  )["a"]
  assert twice.verdict == "better"


def test_a_loss_that_falls_is_a_gain():
  rng = np.random.default_rng(0)
  labels = rng.normal(size=(ROWS, 1))
  near = labels + rng.normal(0, 0.5, (SEEDS, ROWS, 1))
  far = labels + rng.normal(0, 1.0, (SEEDS, ROWS, 1))
  near_first = compare({"a": near}, far, labels, "mse", resamples=200)["a"]
  assert near_first.verdict == "better"
  assert near_first.mean == pytest.approx(0.75, abs=0.1)
  far_first = compare({"a": far}, near, labels, "mse", resamples=200)["a"]
  assert far_first.verdict == "worse"
  assert far_first.wins == 0
  gain = compare({"a": near}, far, labels, "pearson", resamples=200)["a"]
  assert gain.verdict == "better"


def test_the_interval_is_that_of_the_formula():
  rng = np.random.default_rng(0)
  labels = np.tile([1.0, 0.0], (ROWS, 1))
  a, b = answers(rng, 0.8, 0.02), answers(rng, 0.7, 0.02)
  made = compare({"a": a, "b": b, "c": a}, b, labels, "accuracy")["a"]
  d = a[..., 0] - b[..., 0]
  v_rows = np.var(d.mean(0)) / ROWS
  v_seeds = np.var(d.mean(1), ddof=1) / SEEDS
  v = v_rows + v_seeds
  nu = v**2 / (v_rows**2 / (ROWS - 1) + v_seeds**2 / (SEEDS - 1))
  margin = scipy.stats.t.ppf(1 - 0.05 / 6, nu) * np.sqrt(v)
  assert made.mean == pytest.approx(d.mean())
  # The bootstrap's variance of a mean is known; 2,000 draws are near to it.
  assert made.high - made.mean == pytest.approx(margin, rel=0.06)
  assert made.mean - made.low == pytest.approx(margin, rel=0.06)


def test_any_metric_is_resampled_as_a_mean_of_rows_is(monkeypatch):
  rng = np.random.default_rng(0)
  labels = np.eye(2)[rng.integers(0, 2, 80)]
  a = np.eye(2)[rng.integers(0, 2, (SEEDS, 80))]
  b = np.where(rng.random((SEEDS, 80, 1)) < 0.3, labels, a)
  fast = compare({"b": b}, a, labels, "accuracy")["b"]
  monkeypatch.setattr(significance, "_OF_ROWS", {})
  slow = compare({"b": b}, a, labels, "accuracy")["b"]
  assert slow.mean == pytest.approx(fast.mean)
  assert slow.high == pytest.approx(fast.high, rel=0.05)
  assert slow.p == pytest.approx(fast.p, abs=0.01)


def test_p_is_the_share_of_exchanges_that_differ_as_much():
  right = np.array([[1, 1, 1, 0, 1, 1, 0, 1], [1, 0, 1, 1, 1, 1, 1, 1.0]])
  wrong = np.array([[0, 1, 0, 0, 1, 0, 1, 1], [0, 0, 1, 0, 1, 0, 1, 0.0]])
  a, b = (np.stack([x, 1 - x], -1) for x in (right, wrong))
  labels = np.tile([1.0, 0.0], (8, 1))
  d = (right - wrong).mean(0)
  signs = np.array([*itertools.product([-1, 1], repeat=8)])
  exact = np.mean(np.abs(signs @ d) >= abs(d.sum()) - 1e-9)
  made = compare({"a": a}, b, labels, "accuracy", resamples=20_000)["a"]
  assert made.p == pytest.approx(exact, abs=0.01)
  assert 0.005 < exact < 0.2


def test_p_values_are_corrected_as_holm_did():
  # His procedure by hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04 < 0.06.
  given = [0.01, 0.04, 0.03, 0.005]
  expected = [0.03, 0.06, 0.06, 0.02]
  np.testing.assert_allclose(significance._holm(given), expected)
  assert significance._holm([0.9, 0.8]) == [1.0, 1.0]


def test_more_methods_make_wider_intervals_and_larger_p_values():
  rng = np.random.default_rng(3)
  labels = np.tile([1.0, 0.0], (ROWS, 1))
  b, others = answers(rng, 0.7), [answers(rng, 0.72) for _ in range(4)]
  alone = compare({"m": others[0]}, b, labels, "accuracy")["m"]
  many = {str(i): x for i, x in enumerate(others)}
  among = compare(many, b, labels, "accuracy")["0"]
  assert among.mean == alone.mean
  assert among.high > alone.high
  assert among.p >= alone.p


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"a": np.zeros((2, 4, 2))}, "shape of the baseline"),
    ({"labels": np.zeros((5, 2))}, "of the rows"),
    ({"alpha": 0.0}, "alpha must be"),
    (
      {
        "a": np.zeros((3, 1, 2)),
        "b": np.zeros((3, 1, 2)),
        "labels": np.zeros((1, 2)),
      },
      "two rows",
    ),
  ],
)
def test_what_does_not_fit_is_refused(change, message):
  given = {
    "a": np.zeros((3, 4, 2)),
    "b": np.zeros((3, 4, 2)),
    "labels": np.zeros((4, 2)),
    "alpha": 0.05,
  } | change
  with pytest.raises(ValueError, match=message):
    compare(
      {"a": given["a"]},
      given["b"],
      given["labels"],
      "accuracy",
      alpha=given["alpha"],
    )
