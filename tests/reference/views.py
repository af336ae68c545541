"""Augmented views in float64 NumPy: MixUp, FGSM and their projections.

Sources, numbers from AugPro, arXiv:2210.11768:
  equation 1, MixUp; equation 2, FGSM; table 6, its D and R variants;
  equation 5, AugPro-Mix: each mixed embedding becomes the token whose embedding
    has the largest cosine with it. (Algorithm 2 prints an argmin over
    unnormalised products, which contradicts equation 5.)

a is the anchor, b its partner; a mask is True at real tokens. Where either of
them has padding or a protected token, the anchor's token is kept.
"""

import numpy as np

# Cosines closer than this are one tie. Far above float64 rounding, far below
# anything that a float32 implementation could resolve.
TIE = 1e-12


def mixup(a, b, lam):
  """lam a + (1 - lam) b; lam a number, or one per entry of the leading axes."""
  a = np.asarray(a, np.float64)
  b = np.asarray(b, np.float64)
  lam = np.asarray(lam, np.float64)
  lam = lam.reshape(lam.shape + (1,) * (a.ndim - lam.ndim))
  return lam * a + (1 - lam) * b


def fgsm(embeddings, grad, delta, sign=+1):
  """embeddings + sign delta Sign(grad), where Sign(0) = 0.

  Args:
    embeddings: any shape.
    grad: gradient of the loss with respect to them, same shape.
    delta: step, in units of the embeddings.
    sign: +1 ascends (FGSM), -1 descends (FGSM-D). An array of random signs in
      the shape of grad, with grad all ones, is FGSM-R.

  Returns:
    The moved embeddings.
  """
  embeddings = np.asarray(embeddings, np.float64)
  step = np.asarray(sign, np.float64) * delta * np.sign(grad)
  return embeddings + step


def projection_scores(queries, table, allowed):
  """Cosines [N, V], -inf at rows that must not be chosen.

  Args:
    queries: [N, D]; the cosines of a zero query are 0.
    table: [V, D].
    allowed: bool [V].

  Returns:
    Cosine of query n and row w, or -inf where w is not allowed or is zero.
  """
  queries = np.asarray(queries, np.float64)
  table = np.asarray(table, np.float64)
  allowed = np.asarray(allowed, bool)
  scores = np.full((queries.shape[0], table.shape[0]), -np.inf)
  for w in range(table.shape[0]):
    norm = np.sqrt(np.sum(table[w] ** 2))
    if not allowed[w] or norm == 0:
      continue
    unit = table[w] / norm
    for n in range(queries.shape[0]):
      query_norm = np.sqrt(np.sum(queries[n] ** 2))
      scores[n, w] = 0.0
      if query_norm > 0:
        scores[n, w] = np.sum(queries[n] * unit) / query_norm
  return scores


def project(queries, table, allowed):
  """Nearest allowed token of each query by cosine, equation 5.

  A query's own norm is the same factor for every token, so normalising the
  table alone, as an implementation may, has the same argmax.

  Args:
    queries: [N, D].
    table: [V, D].
    allowed: bool [V].

  Returns:
    int64 [N]. Ties, that is cosines within 1e-12 of the best, go to the lowest
    id; so a zero query gets the lowest id that may be chosen.

  Raises:
    ValueError: if no row is allowed and nonzero.
  """
  scores = projection_scores(queries, table, allowed)
  ids = np.zeros(scores.shape[0], np.int64)
  for n in range(scores.shape[0]):
    best = np.max(scores[n])
    if best == -np.inf:
      raise ValueError("project needs an allowed row that is not zero.")
    for w in range(scores.shape[1]):
      if scores[n, w] >= best - TIE:
        ids[n] = w
        break
  return ids


def mixable(tokens_a, mask_a, tokens_b, mask_b, protected_ids):
  """bool [B, L]: both tokens are real and neither is protected."""
  tokens_a, tokens_b = np.asarray(tokens_a), np.asarray(tokens_b)
  mask_a, mask_b = np.asarray(mask_a, bool), np.asarray(mask_b, bool)
  positions = np.zeros(tokens_a.shape, bool)
  protected = {int(i) for i in protected_ids}
  for index in np.ndindex(tokens_a.shape):
    real = bool(mask_a[index]) and bool(mask_b[index])
    special = {int(tokens_a[index]), int(tokens_b[index])} & protected
    positions[index] = real and not special
  return positions


def augpro_mix(
  tokens_a, mask_a, tokens_b, mask_b, table, lam, allowed, protected_ids
):
  """Tokens of AugPro-Mix: equation 5 applied to equation 1.

  Args:
    tokens_a: int [B, L], the anchors.
    mask_a: bool [B, L].
    tokens_b: int [B, L], the partners.
    mask_b: bool [B, L].
    table: [V, D], the teacher's word embeddings.
    lam: the anchor's share, a number or [B].
    allowed: bool [V], tokens that may be produced.
    protected_ids: ids that are neither mixed nor replaced.

  Returns:
    int64 [B, L]: the projected mixture where both are real and not protected,
    the anchor's token elsewhere. Its mask is the anchor's.
  """
  table = np.asarray(table, np.float64)
  tokens_a, tokens_b = np.asarray(tokens_a), np.asarray(tokens_b)
  positions = mixable(tokens_a, mask_a, tokens_b, mask_b, protected_ids)
  lam = np.broadcast_to(np.asarray(lam, np.float64), tokens_a.shape[:1])
  augmented = tokens_a.astype(np.int64)
  for i, j in zip(*np.nonzero(positions), strict=True):
    mixed = mixup(table[tokens_a[i, j]], table[tokens_b[i, j]], lam[i])
    augmented[i, j] = project(mixed[None], table, allowed)[0]
  return augmented


def token_mix(tokens_a, mask_a, tokens_b, mask_b, take_a, protected_ids):
  """The control without projection: one of the two parents per position.

  Args:
    tokens_a, mask_a, tokens_b, mask_b, protected_ids: as in `augpro_mix`.
    take_a: bool [B, L], True keeps the anchor's token.

  Returns:
    int64 [B, L]: the partner's token where take_a is False and both are real
    and not protected, the anchor's elsewhere.
  """
  tokens_a, tokens_b = np.asarray(tokens_a), np.asarray(tokens_b)
  take_a = np.asarray(take_a, bool)
  positions = mixable(tokens_a, mask_a, tokens_b, mask_b, protected_ids)
  mixed = tokens_a.astype(np.int64)
  for index in np.ndindex(tokens_a.shape):
    if positions[index] and not take_a[index]:
      mixed[index] = tokens_b[index]
  return mixed


def parent_counts(augmented, a, b, positions):
  """Where the tokens of a view come from, as shares of the given positions.

  Args:
    augmented: int, the view's tokens.
    a, b: int, same shape, the parents' tokens.
    positions: bool, same shape, what to count (see `mixable`).

  Returns:
    A dict of floats. 'from_a', 'from_b' and 'neither' sum to 1; a token equal
    to both parents counts for a. 'changed' is the share that differs from the
    anchor, so from_b + neither. All 0 where no position is given.
  """
  augmented, a, b = np.asarray(augmented), np.asarray(a), np.asarray(b)
  positions = np.asarray(positions, bool)
  counts = {"from_a": 0, "from_b": 0, "neither": 0, "changed": 0}
  total = 0
  for index in np.ndindex(augmented.shape):
    if not positions[index]:
      continue
    total += 1
    if augmented[index] == a[index]:
      counts["from_a"] += 1
    elif augmented[index] == b[index]:
      counts["from_b"] += 1
    else:
      counts["neither"] += 1
    if augmented[index] != a[index]:
      counts["changed"] += 1
  return {name: n / total if total else 0.0 for name, n in counts.items()}
