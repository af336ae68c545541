"""Metrics of classification, multi-label and regression tasks in float64 NumPy.

Sources:
  Gorodkin 2004, Comput. Biol. Chem. 28: R_K, the multi-class Matthews
    correlation, as a correlation of one-hot matrices.
  Spearman 1904: Pearson's correlation of ranks, ties at their average rank.
  van Rijsbergen 1979, chapter 7: F1 = 2 TP / (2 TP + FP + FN).
  Guo et al. 2017, arXiv:1706.04599, equation 3: expected calibration error.

Predictions are class ids [M], 0/1 matrices [M, C] or scores [M], not logits.
A ratio whose denominator is 0 is 0: no correlation with a constant, no F1 of a
class that neither occurs nor is predicted.
"""

import numpy as np


def accuracy(predictions, labels):
  """Share of rows [M] whose predicted class id equals the label's."""
  predictions, labels = np.asarray(predictions), np.asarray(labels)
  equal = 0
  for i in range(len(labels)):
    equal += int(predictions[i] == labels[i])
  return equal / len(labels)


def agreement(predictions_a, predictions_b):
  """Share of rows on which two models predict the same class id."""
  return accuracy(predictions_a, predictions_b)


def matthews_correlation(predictions, labels):
  """R_K = cov(X, Y) / sqrt(cov(X, X) cov(Y, Y)) for class ids [M].

  X and Y are the one-hot matrices of predictions and labels, and
  cov(X, Y) = 1/K sum_k sum_i (X_ik - mean X_k)(Y_ik - mean Y_k). For two
  classes this is the Matthews correlation of 1975.
  """
  predictions, labels = np.asarray(predictions), np.asarray(labels)
  if len(set(predictions.tolist())) == 1 or len(set(labels.tolist())) == 1:
    return 0.0
  classes = sorted(set(predictions.tolist()) | set(labels.tolist()))
  x = np.stack([predictions == c for c in classes], axis=-1).astype(np.float64)
  y = np.stack([labels == c for c in classes], axis=-1).astype(np.float64)

  def cov(u, v):
    return np.sum((u - u.mean(axis=0)) * (v - v.mean(axis=0))) / len(classes)

  return float(cov(x, y) / np.sqrt(cov(x, x) * cov(y, y)))


def pearson(predictions, labels):
  """Correlation of two series [M]; 0 if either is constant."""
  x = np.asarray(predictions, np.float64)
  y = np.asarray(labels, np.float64)
  if np.min(x) == np.max(x) or np.min(y) == np.max(y):
    return 0.0
  x = x - np.mean(x)
  y = y - np.mean(y)
  return float(np.sum(x * y) / np.sqrt(np.sum(x**2) * np.sum(y**2)))


def average_ranks(values):
  """Ranks from 1; equal values share the average of the ranks they cover."""
  values = np.asarray(values, np.float64)
  ranks = np.zeros(len(values))
  for i, value in enumerate(values):
    below = np.sum(values < value)
    equal = np.sum(values == value)
    ranks[i] = below + (equal + 1) / 2
  return ranks


def spearman(predictions, labels):
  """Pearson's correlation of the average ranks."""
  return pearson(average_ranks(predictions), average_ranks(labels))


def _f1(true_positive, false_positive, false_negative):
  denominator = 2 * true_positive + false_positive + false_negative
  return float(2 * true_positive / denominator) if denominator else 0.0


def _confusion(predicted, actual):
  """Numbers of true positives, false positives, false negatives."""
  predicted, actual = np.asarray(predicted, bool), np.asarray(actual, bool)
  true_positive = int(np.sum(predicted & actual))
  false_positive = int(np.sum(predicted & ~actual))
  false_negative = int(np.sum(~predicted & actual))
  return true_positive, false_positive, false_negative


def f1_binary(predictions, labels, positive=1):
  """F1 of one class for class ids [M]."""
  predictions, labels = np.asarray(predictions), np.asarray(labels)
  return _f1(*_confusion(predictions == positive, labels == positive))


def f1_micro(predictions, labels):
  """F1 of the counts summed over all classes, for 0/1 matrices [M, C]."""
  return _f1(*_confusion(predictions, labels))


def f1_macro(predictions, labels):
  """Mean over all C classes of each class's F1, for 0/1 matrices [M, C]."""
  predictions, labels = np.asarray(predictions), np.asarray(labels)
  scores = []
  for c in range(labels.shape[1]):
    scores.append(_f1(*_confusion(predictions[:, c], labels[:, c])))
  return float(np.mean(scores))


def expected_calibration_error(probs, labels, bins=15):
  """sum_m |B_m| / M |accuracy(B_m) - confidence(B_m)|.

  Args:
    probs: [M, C]; the prediction is the argmax, lowest id at a tie, and its
      probability is the confidence.
    labels: class ids [M].
    bins: B_m holds the confidences in ((m - 1) / bins, m / bins].

  Returns:
    A float in [0, 1].
  """
  probs, labels = np.asarray(probs, np.float64), np.asarray(labels)
  confidence = np.max(probs, axis=-1)
  correct = (np.argmax(probs, axis=-1) == labels).astype(np.float64)
  error = 0.0
  for m in range(1, bins + 1):
    inside = (confidence > (m - 1) / bins) & (confidence <= m / bins)
    if m == bins:
      inside |= confidence > 1  # a sum of float32 that rounded upwards
    if np.any(inside):
      gap = abs(np.mean(correct[inside]) - np.mean(confidence[inside]))
      error += np.sum(inside) / len(labels) * gap
  return float(error)
