"""One step of KD + MixUp of a linear student, gradients by hand, float64 NumPy.

The student: h = mean over real positions of E[token], logits = h W.

The loss, from AugPro, arXiv:2210.11768, equation 4 on the clean batch and
L_MixUp of section 4.2 without its label term:

  L = w_clean mean_i [CE(z_i, y_i) + KL_t(T_i || z_i)]
    + w_mix   mean_i  KL_t(T'_i || z'_i)

z' are the logits of lam x_a + (1 - lam) x_b, x being embeddings, b the given
partner of a. The table is live in both: it learns from the mixed view, too.
T and T' are given. KL_t and its t^2 are those of `losses.kl`; each mean is
sum_i r_i l_i / sum_i r_i with row weights r.

Gradients, with p the teacher, q the student, both at temperature t:
  d CE / d z = softmax(z) sum_c y_c - y        d KL_t / d z = t (q - p)

`python tests/reference/step.py` compares them with central differences.
"""

import numpy as np


def _softmax(logits):
  exp = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
  return exp / np.sum(exp, axis=-1, keepdims=True)


def _log_softmax(logits):
  shifted = logits - np.max(logits, axis=-1, keepdims=True)
  return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def _ce(logits, label):
  """Cross entropy of one row and its gradient."""
  loss = -np.sum(label * _log_softmax(logits))
  return loss, _softmax(logits) * np.sum(label) - label


def _kl(logits, teacher, t):
  """t^2 KL(teacher || student) of one row and its gradient."""
  p, q = _softmax(teacher / t), _softmax(logits / t)
  log_p, log_q = _log_softmax(teacher / t), _log_softmax(logits / t)
  loss = 0.0
  for c in range(len(p)):
    if p[c] > 0:
      loss += t**2 * p[c] * (log_p[c] - log_q[c])
  return loss, t * (q - p)


def _mean_over(mask, embeddings):
  """Mean of [L, D] over the real positions; 0 if there is none."""
  count = np.sum(mask)
  if count == 0:
    return np.zeros(embeddings.shape[-1])
  return np.sum(embeddings[mask], axis=0) / count


def student_logits(embeddings, mask, w):
  """logits [B, C] of embeddings [B, L, D] under mask [B, L]."""
  embeddings = np.asarray(embeddings, np.float64)
  mask = np.asarray(mask, bool)
  w = np.asarray(w, np.float64)
  logits = np.zeros((len(embeddings), w.shape[1]))
  for i in range(len(embeddings)):
    logits[i] = _mean_over(mask[i], embeddings[i]) @ w
  return logits


def kd_mixup_grads(
  w,
  table,
  tokens,
  mask,
  label_probs,
  row_weights,
  teacher_logits,
  teacher_mix_logits,
  partner,
  lam,
  w_clean=1.0,
  w_mix=1.0,
  temperature=1.0,
  mix_mask=None,
  mix_row_weights=None,
):
  """Loss and gradients of KD on the batch and on its MixUp view.

  Args:
    w: [D, C], the student's only layer.
    table: [V, D], its embeddings E.
    tokens: int [B, L].
    mask: bool [B, L], True at real tokens.
    label_probs: [B, C].
    row_weights: [B], 0 for a padding row.
    teacher_logits: [B, C], on the clean batch.
    teacher_mix_logits: [B, C], on the mixed view.
    partner: int [B], row b of each row a.
    lam: the anchor's share, a number or [B].
    w_clean, w_mix: weights of the two views.
    temperature: t > 0.
    mix_mask: bool [B, L], real positions of the mixed view; by default those
      real in a or in b. A position that is padding in one of the two mixes
      that one's row of the table in, like any other.
    mix_row_weights: [B], by default row_weights, so the anchor's.

  Returns:
    The loss, and a dict of its gradients: 'w' [D, C] and 'table' [V, D].
  """
  w, table, label_probs, teacher_logits, teacher_mix_logits = (
    np.asarray(a, np.float64)
    for a in (w, table, label_probs, teacher_logits, teacher_mix_logits)
  )
  tokens, mask = np.asarray(tokens), np.asarray(mask, bool)
  partner = np.asarray(partner)
  row_weights = np.asarray(row_weights, np.float64)
  batch = len(tokens)
  lam = np.broadcast_to(np.asarray(lam, np.float64), (batch,))
  if mix_mask is None:
    mix_mask = mask | mask[partner]
  mix_mask = np.asarray(mix_mask, bool)
  if mix_row_weights is None:
    mix_row_weights = row_weights
  mix_row_weights = np.asarray(mix_row_weights, np.float64)

  loss = 0.0
  grad_w = np.zeros_like(w)
  grad_table = np.zeros_like(table)

  for i in range(batch):  # the clean view
    if row_weights[i] == 0:
      continue
    pooled = _mean_over(mask[i], table[tokens[i]])
    logits = pooled @ w
    ce, d_ce = _ce(logits, label_probs[i])
    kl, d_kl = _kl(logits, teacher_logits[i], temperature)
    scale = w_clean * row_weights[i] / np.sum(row_weights)
    loss += scale * (ce + kl)
    d_logits = scale * (d_ce + d_kl)
    grad_w += np.outer(pooled, d_logits)
    for j in np.nonzero(mask[i])[0]:
      grad_table[tokens[i, j]] += (w @ d_logits) / np.sum(mask[i])

  for i in range(batch):  # the mixed view
    if mix_row_weights[i] == 0:
      continue
    a, b = tokens[i], tokens[partner[i]]
    mixed = lam[i] * table[a] + (1 - lam[i]) * table[b]
    pooled = _mean_over(mix_mask[i], mixed)
    kl, d_kl = _kl(pooled @ w, teacher_mix_logits[i], temperature)
    scale = w_mix * mix_row_weights[i] / np.sum(mix_row_weights)
    loss += scale * kl
    d_logits = scale * d_kl
    grad_w += np.outer(pooled, d_logits)
    for j in np.nonzero(mix_mask[i])[0]:
      d_position = (w @ d_logits) / np.sum(mix_mask[i])
      grad_table[a[j]] += lam[i] * d_position
      grad_table[b[j]] += (1 - lam[i]) * d_position

  return float(loss), {"w": grad_w, "table": grad_table}


def central_differences(function, x, step=1e-5):
  """Numerical gradient of a number with respect to the array x."""
  x = np.array(x, np.float64)
  grad = np.zeros_like(x)
  for index in np.ndindex(x.shape):
    value = x[index]
    x[index] = value + step
    above = function(x)
    x[index] = value - step
    below = function(x)
    x[index] = value
    grad[index] = (above - below) / (2 * step)
  return grad


def _check():
  rng = np.random.default_rng(0)
  batch, length, emb_dim, classes, vocab = 5, 6, 4, 3, 9
  lengths = np.array([6, 3, 1, 4, 0])  # the last row is padding
  tokens = rng.integers(1, vocab, (batch, length))
  mask = np.arange(length) < lengths[:, None]
  tokens = np.where(mask, tokens, 0)
  w = rng.normal(size=(emb_dim, classes))
  table = rng.normal(size=(vocab, emb_dim))
  fixed = {
    "tokens": tokens,
    "mask": mask,
    "label_probs": _softmax(rng.normal(size=(batch, classes))),
    "row_weights": np.array([1.0, 0.5, 2.0, 1.0, 0.0]),
    "teacher_logits": 3 * rng.normal(size=(batch, classes)),
    "teacher_mix_logits": 3 * rng.normal(size=(batch, classes)),
    "partner": np.array([2, 0, 3, 4, 1]),
  }
  cases = [
    {"lam": 0.5},
    {"lam": rng.uniform(size=batch), "temperature": 2.5},
    {"lam": 0.3, "w_clean": 0.7, "w_mix": 1.9, "mix_mask": mask},
    {"lam": 0.3, "w_clean": 0.0},
    {"lam": 0.3, "w_mix": 0.0, "temperature": 0.5},
    {"lam": 0.8, "mix_row_weights": np.array([0.0, 1.0, 1.0, 0.0, 3.0])},
  ]
  for case in cases:
    args = {**fixed, **case}
    _, grads = kd_mixup_grads(w, table, **args)
    numeric = {
      "w": central_differences(
        lambda x, args=args: kd_mixup_grads(x, table, **args)[0], w
      ),
      "table": central_differences(
        lambda x, args=args: kd_mixup_grads(w, x, **args)[0], table
      ),
    }
    for name, grad in grads.items():
      error = np.max(np.abs(grad - numeric[name]))
      print(f"{sorted(case)} {name}: largest difference {error:.1e}")
      assert np.max(np.abs(grad)) > 1e-3, "the check compares zeros"
      assert error < 1e-8, (case, name, error)


if __name__ == "__main__":
  _check()
