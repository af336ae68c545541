"""Metrics against float64 references, scikit-learn, and their own limits."""

import numpy as np
import pytest

from augdistill import errors
from augdistill.evaluation import metrics
from augdistill.evaluation.calibration import expected_calibration_error
from augdistill.evaluation.outputs import decide, name_of, probabilities
from augdistill.types import Task, TaskKind
from tests.reference import metrics as reference

SEEDS = range(5)
NAMES = ("no", "maybe", "yes")


def classes(*metrics_, names=NAMES):
  return Task("t", TaskKind.CLASSES, names, metrics_)


def regression(*metrics_):
  return Task("t", TaskKind.REGRESSION, (), metrics_)


def multi_label(*metrics_):
  return Task("t", TaskKind.MULTI_LABEL, NAMES, metrics_)


def draw(seed, num_classes=3, rows=40):
  """Logits that are right more often than not, and class ids."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(num_classes, size=rows)
  one_hot = np.eye(num_classes, dtype=np.float32)[labels]
  noise = rng.normal(size=one_hot.shape).astype(np.float32)
  return one_hot + noise, one_hot, labels


def all_labelled(logits):
  return np.ones(len(logits), bool)


@pytest.mark.parametrize("seed", SEEDS)
def test_metrics_of_classes_equal_the_references(seed):
  logits, one_hot, labels = draw(seed)
  ids = logits.argmax(-1)
  task = classes("accuracy", "macro_f1", "matthews_correlation")
  assert metrics.compute(
    task, logits, one_hot, all_labelled(logits)
  ) == pytest.approx(
    {
      "accuracy": reference.accuracy(ids, labels),
      "macro_f1": reference.f1_macro(np.eye(3)[ids], one_hot),
      "matthews_correlation": reference.matthews_correlation(ids, labels),
    }
  )


@pytest.mark.parametrize("seed", SEEDS)
def test_binary_f1_is_that_of_the_last_class(seed):
  logits, one_hot, labels = draw(seed, num_classes=2)
  task = classes("f1", names=("different", "same"))
  value = metrics.compute(task, logits, one_hot, all_labelled(logits))["f1"]
  expected = reference.f1_binary(logits.argmax(-1), labels, positive=1)
  assert value == pytest.approx(expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_metrics_of_sets_of_names_equal_the_references(seed):
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(40, 3)).astype(np.float32)
  labels = (logits + rng.normal(size=(40, 3)) > 0).astype(np.float32)
  task = multi_label("micro_f1", "macro_f1", "exact_match")
  assert metrics.compute(
    task, logits, labels, all_labelled(logits)
  ) == pytest.approx(
    {
      "micro_f1": reference.f1_micro(logits > 0, labels),
      "macro_f1": reference.f1_macro(logits > 0, labels),
      "exact_match": np.mean([*map(np.array_equal, logits > 0, labels > 0.5)]),
    }
  )


@pytest.mark.parametrize("seed", SEEDS)
def test_metrics_of_values_equal_the_references(seed):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 6, size=(40, 1)).astype(np.float32)  # with ties
  values = np.round(labels + rng.normal(size=(40, 1)), 1).astype(np.float32)
  task = regression("pearson", "spearman", "mse")
  x, y = values[:, 0], labels[:, 0]
  assert metrics.compute(
    task, values, labels, all_labelled(values)
  ) == pytest.approx(
    {
      "pearson": reference.pearson(x, y),
      "spearman": reference.spearman(x, y),
      "mse": np.mean((x.astype(float) - y) ** 2),
    }
  )


def test_metrics_equal_those_of_scikit_learn_and_scipy():
  from scipy import stats
  from sklearn import metrics as sk

  logits, one_hot, labels = draw(0, rows=200)
  p, ids = decide(TaskKind.CLASSES, logits), logits.argmax(-1)
  assert metrics.accuracy(p, one_hot) == sk.accuracy_score(labels, ids)
  assert metrics.macro_f1(p, one_hot) == pytest.approx(
    sk.f1_score(labels, ids, average="macro")
  )
  assert metrics.micro_f1(p, one_hot) == pytest.approx(
    sk.f1_score(one_hot, p, average="micro")
  )
  assert metrics.matthews_correlation(p, one_hot) == pytest.approx(
    sk.matthews_corrcoef(labels, ids)
  )
  x, y = logits[:, :1].round(1), logits[:, 1:2].round(1)
  assert metrics.pearson(x, y) == pytest.approx(
    stats.pearsonr(x[:, 0], y[:, 0]).statistic
  )
  assert metrics.spearman(x, y) == pytest.approx(
    stats.spearmanr(x[:, 0], y[:, 0]).statistic
  )


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e20])
def test_a_constant_correlates_with_nothing(name, constant):
  values = np.linspace(0, 1, 7)[:, None]
  flat = np.full((7, 1), constant, np.float32)
  task = regression(name)
  for a, b in [(values, flat), (flat, values), (flat, flat)]:
    assert metrics.compute(task, a, b, all_labelled(a)) == {name: 0.0}


def test_a_model_that_always_says_the_same_has_no_matthews_correlation():
  _, one_hot, _ = draw(0)
  same = np.tile([0.0, 1.0, 0.0], (len(one_hot), 1))
  task = classes("matthews_correlation", "macro_f1")
  result = metrics.compute(task, same, one_hot, all_labelled(same))
  assert result["matthews_correlation"] == 0.0
  assert 0 < result["macro_f1"] < 1


def test_a_class_that_neither_occurs_nor_is_predicted_has_an_f1_of_zero():
  p = np.eye(3)[[0, 1, 0]]
  assert metrics.macro_f1(p, p) == pytest.approx(2 / 3)
  nothing = np.zeros((2, 3))
  assert metrics.micro_f1(nothing, nothing) == 0.0


@pytest.mark.parametrize("scale", [1e-200, 1e-20, 1.0, 1e20])
def test_a_correlation_does_not_depend_on_the_scale(scale):
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, 30, 1))
  assert metrics.pearson(scale * x, y) == pytest.approx(metrics.pearson(x, y))


def test_a_correlation_is_at_most_one_although_it_is_rounded():
  for seed in range(30):
    x = np.random.default_rng(seed).normal(size=(30, 1))
    assert 1 - 1e-12 < metrics.pearson(x, x) <= 1.0
    assert -1.0 <= metrics.pearson(-3 * x, x) < -1 + 1e-12


def test_ties_go_to_the_first_class():
  logits = np.array([[1.0, 1.0, 0.0]])
  np.testing.assert_array_equal(decide(TaskKind.CLASSES, logits), [[1, 0, 0]])


def test_rows_without_a_label_count_for_nothing():
  logits, one_hot, _ = draw(0)
  has_label = np.arange(len(logits)) % 2 == 0
  spoilt = np.where(has_label[:, None], one_hot, 1 - one_hot)
  task = classes("accuracy", "macro_f1", "matthews_correlation")
  assert metrics.compute(task, logits, spoilt, has_label) == metrics.compute(
    task, logits[::2], one_hot[::2], has_label[::2]
  )


def test_no_labels_at_all_give_no_metrics():
  logits, one_hot, _ = draw(0)
  none = np.zeros(len(logits), bool)
  assert metrics.compute(classes("accuracy"), logits, one_hot, none) == {}


def test_a_soft_label_counts_as_its_likeliest_class():
  logits = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
  soft = np.array([[0.4, 0.3, 0.3], [0.5, 0.2, 0.3]])
  result = metrics.compute(
    classes("accuracy"), logits, soft, all_labelled(soft)
  )
  assert result == {"accuracy": 0.5}
  task = multi_label("exact_match")
  result = metrics.compute(task, logits - 1.5, soft, all_labelled(soft))
  assert result == {"exact_match": 0.0}
  result = metrics.compute(task, -logits, soft, all_labelled(soft))
  assert result == {"exact_match": 1.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_an_error_and_not_a_number(bad):
  logits, one_hot, _ = draw(0)
  logits[3, 1] = bad
  with pytest.raises(errors.RunError, match="finite, but 1 of 40 rows"):
    metrics.compute(classes("accuracy"), logits, one_hot, all_labelled(logits))


def test_a_misspelt_metric_is_an_error_that_knows_better():
  logits, one_hot, _ = draw(0)
  with pytest.raises(errors.UsageError, match="Did you mean 'accuracy'"):
    metrics.compute(classes("acuracy"), logits, one_hot, all_labelled(logits))


def test_only_an_error_is_better_when_it_is_lower():
  lower = [n for n in metrics.METRICS if not metrics.higher_is_better(n)]
  assert lower == ["mse"]


def test_probabilities_are_those_of_the_logits_even_if_these_are_huge():
  logits = np.array([[1e4, 0.0, -1e4], [1.0, 1.0, 1.0]])
  np.testing.assert_allclose(
    probabilities(TaskKind.CLASSES, logits), [[1, 0, 0], [1 / 3] * 3]
  )
  np.testing.assert_allclose(
    probabilities(TaskKind.MULTI_LABEL, logits),
    [[1, 0.5, 0], [1 / (1 + np.exp(-1))] * 3],
  )
  with pytest.raises(ValueError, match="no probabilities"):
    probabilities(TaskKind.REGRESSION, logits[:, :1])


def test_labels_are_named_as_a_person_writes_them():
  assert name_of(classes(), np.array([0.0, 1.0, 0.0])) == "maybe"
  assert name_of(multi_label(), np.array([1.0, 0.0, 1.0])) == ["no", "yes"]
  assert name_of(regression(), np.array([2.5], np.float32)) == 2.5


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_equals_the_reference(seed, bins):
  logits, one_hot, labels = draw(seed)
  p = probabilities(TaskKind.CLASSES, 3 * logits)
  assert expected_calibration_error(p, one_hot, bins) == pytest.approx(
    reference.expected_calibration_error(p, labels, bins)
  )


def test_a_confidence_at_an_edge_belongs_to_the_bin_below():
  p = np.array([[0.8, 0.2], [0.85, 0.15]])  # right, wrong
  labels = np.array([[1.0, 0.0], [0.0, 1.0]])
  value = expected_calibration_error(p, labels, bins=5)
  assert value == pytest.approx((0.2 + 0.85) / 2)
  assert value == pytest.approx(
    reference.expected_calibration_error(p, [0, 1], bins=5)
  )


def test_calibration_of_nothing_is_perfect_and_needs_bins():
  empty = np.zeros((0, 2))
  assert expected_calibration_error(empty, empty) == 0.0
  with pytest.raises(ValueError, match="at least 1"):
    expected_calibration_error(empty, empty, bins=0)
