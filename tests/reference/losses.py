"""Terms of distillation losses in float64 NumPy, un-reduced.

Sources:
  AugPro, arXiv:2210.11768, equations 3 and 4: cross entropy with the label plus
    d(student, teacher), d being cross entropy or mean square error; KL differs
    from the former by the teacher's entropy, which no student can change.
  Hinton et al. 2015, arXiv:1503.02531, section 2: the temperature t divides the
    logits, and t^2 keeps the size of the gradient.

Every function takes [..., C] and returns [...], in nats. p is the teacher, q
the student. A probability of exactly 0 contributes exactly 0 (0 log 0 = 0),
even where the logarithm beside it is infinite.
"""

import numpy as np


def log_softmax(logits):
  """Logarithm of softmax over the last axis."""
  logits = np.asarray(logits, np.float64)
  shifted = logits - np.max(logits, axis=-1, keepdims=True)
  return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def log_sigmoid(logits):
  """Logarithm of 1 / (1 + exp(-logits))."""
  return -np.logaddexp(0.0, -np.asarray(logits, np.float64))


def _times(probs, values):
  """probs * values, 0 wherever probs is 0."""
  probs, values = np.broadcast_arrays(probs, values)
  product = np.zeros(probs.shape)
  for index in np.ndindex(probs.shape):
    if probs[index] != 0:
      product[index] = probs[index] * values[index]
  return product


def _expected_log_ratio(p, log_p, log_q):
  """p (log p - log q) elementwise, without inf - inf where p is 0."""
  return _times(p, np.where(p != 0, log_p, 0.0) - np.where(p != 0, log_q, 0.0))


def cross_entropy(logits, label_probs):
  """l = -sum_c y_c log softmax(logits)_c; y need not sum to 1."""
  label_probs = np.asarray(label_probs, np.float64)
  return -np.sum(_times(label_probs, log_softmax(logits)), axis=-1)


def kl(student_logits, teacher_logits, temperature=1.0):
  """l = t^2 sum_c p_c (log p_c - log q_c), p and q softmax(logits / t)."""
  t = float(temperature)
  log_p = log_softmax(np.asarray(teacher_logits, np.float64) / t)
  log_q = log_softmax(np.asarray(student_logits, np.float64) / t)
  ratios = _expected_log_ratio(np.exp(log_p), log_p, log_q)
  return t**2 * np.sum(ratios, axis=-1)


def soft_cross_entropy(student_logits, teacher_logits, temperature=1.0):
  """l = -t^2 sum_c p_c log q_c = KL + t^2 entropy(p)."""
  t = float(temperature)
  p = np.exp(log_softmax(np.asarray(teacher_logits, np.float64) / t))
  log_q = log_softmax(np.asarray(student_logits, np.float64) / t)
  return -(t**2) * np.sum(_times(p, log_q), axis=-1)


def mse(student, teacher):
  """l = mean_c (student_c - teacher_c)^2, of logits or of scores."""
  student = np.asarray(student, np.float64)
  teacher = np.asarray(teacher, np.float64)
  return np.mean((student - teacher) ** 2, axis=-1)


def binary_cross_entropy(logits, labels):
  """l = -mean_c [y_c log s_c + (1 - y_c) log(1 - s_c)], s = sigmoid(logits)."""
  labels = np.asarray(labels, np.float64)
  logits = np.asarray(logits, np.float64)
  yes = _times(labels, log_sigmoid(logits))
  no = _times(1 - labels, log_sigmoid(-logits))
  return -np.mean(yes + no, axis=-1)


def binary_kl(student_logits, teacher_logits, temperature=1.0):
  """l = t^2 mean_c KL(Bernoulli p_c || Bernoulli q_c), sigmoids of logits / t.

  Both sides count: p log(p / q) + (1 - p) log((1 - p) / (1 - q)).
  """
  t = float(temperature)
  teacher = np.asarray(teacher_logits, np.float64) / t
  student = np.asarray(student_logits, np.float64) / t
  divergence = np.zeros(np.broadcast_shapes(teacher.shape, student.shape))
  for sign in (1, -1):  # the class, then its complement
    log_p = log_sigmoid(sign * teacher)
    log_q = log_sigmoid(sign * student)
    divergence = divergence + _expected_log_ratio(np.exp(log_p), log_p, log_q)
  return t**2 * np.mean(divergence, axis=-1)


def masked_mean(values, weights):
  """sum w v / sum w over all entries; what weight 0 covers is never read.

  Args:
    values: any shape; may be nan or infinite where the weight is 0.
    weights: broadcastable to it, >= 0.

  Returns:
    A float; 0 where the weights sum to 0.
  """
  values = np.asarray(values, np.float64)
  weights = np.broadcast_to(np.asarray(weights, np.float64), values.shape)
  total = np.sum(weights)
  if total == 0:
    return 0.0
  return float(np.sum(_times(weights, values)) / total)
