"""AdamW, learning rate schedules and gradient clipping in float64 NumPy.

Sources:
  Kingma and Ba 2015, arXiv:1412.6980, algorithm 1: Adam with bias correction.
  Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2: decoupled weight
    decay; here, as in optax and torch, the decay is multiplied by the whole
    learning rate and not by the schedule's factor alone.
  Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, without restarts
    and with minimum 0: cosine decay.
  Pascanu et al. 2013, arXiv:1211.5063, algorithm 1: clipping by global norm.
"""

import numpy as np


def adamw_step(param, grad, m, v, t, lr, b1, b2, eps, weight_decay):
  """One step of AdamW.

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
    param = param - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)
                        + weight_decay param)

  Args:
    param, grad, m, v: arrays of one shape; m and v start at 0.
    t: number of this step, from 1.
    lr: learning rate of this step.
    b1, b2, eps, weight_decay: as above; eps is added outside the root.

  Returns:
    The new param, m and v.
  """
  param, grad, m, v = (np.asarray(a, np.float64) for a in (param, grad, m, v))
  m = b1 * m + (1 - b1) * grad
  v = b2 * v + (1 - b2) * grad**2
  m_hat = m / (1 - b1**t)
  v_hat = v / (1 - b2**t)
  update = m_hat / (np.sqrt(v_hat) + eps) + weight_decay * param
  return param - lr * update, m, v


def _after_warmup(step, warmup, total):
  """Share of the decay that is done, in [0, 1]."""
  if step >= total:
    return 1.0
  return (step - warmup) / (total - warmup)


def linear_warmup_cosine_decay(step, peak, warmup, total):
  """peak step / warmup, then peak (1 + cos(pi s)) / 2.

  s is the share of steps done between warmup and total, counted from 0: step 0
  has rate 0 if warmup > 0, step warmup has the peak, steps >= total have 0.
  """
  if step < warmup:
    return peak * step / warmup
  share = _after_warmup(step, warmup, total)
  return float(peak * (1 + np.cos(np.pi * share)) / 2)


def linear_warmup_linear_decay(step, peak, warmup, total):
  """peak step / warmup, then peak (1 - s); s as above."""
  if step < warmup:
    return peak * step / warmup
  return float(peak * (1 - _after_warmup(step, warmup, total)))


def _leaves(tree):
  if isinstance(tree, dict):
    return [leaf for name in sorted(tree) for leaf in _leaves(tree[name])]
  if isinstance(tree, (list, tuple)):
    return [leaf for branch in tree for leaf in _leaves(branch)]
  return [np.asarray(tree, np.float64)]


def _scale(tree, factor):
  if isinstance(tree, dict):
    return {name: _scale(branch, factor) for name, branch in tree.items()}
  if isinstance(tree, (list, tuple)):
    return type(tree)(_scale(branch, factor) for branch in tree)
  return np.asarray(tree, np.float64) * factor


def global_norm_clip(grads, max_norm):
  """grads * min(1, max_norm / norm), one norm over all leaves.

  Args:
    grads: an array, or dicts, lists and tuples of arrays.
    max_norm: largest norm that passes unchanged.

  Returns:
    The clipped grads in the same structure, and their norm before clipping.
  """
  norm = float(np.sqrt(sum(np.sum(leaf**2) for leaf in _leaves(grads))))
  factor = max_norm / norm if norm > max_norm else 1.0
  return _scale(grads, factor), norm
