"""BatchMixUp: new points from all pooled states of a batch at once.

References:
  Yin et al. 2021, BatchMixUp, Findings of ACL, section 4, equations 3 and 4.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from augdistill import prng
from augdistill.augment.mixing import check_alpha
from augdistill.types import Batch, Inputs, View, ViewMaker


def mix_batch(points: int | None = None, alpha: float = 1.0) -> ViewMaker:
  """n points, each a mixture of all rows with weights per dimension.

    x_nd = sum_b p_ndb v_bd,  y_nd = sum_b p_ndb (sum_c label_bc W_cd)
    p = softmax over b of M,  M_ndb ~ Beta(alpha, alpha), independent

  v are the vectors that the student's head reads, W the head's live rows. As
  M lies in [0, 1], no weight is more than e times another: the points lie
  around the centre of the batch.

  The rows are mixed within a microbatch. Rows without a label take no part.

  Args:
    points: n; by default as many as there are rows. The paper does not give
      it.
    alpha: of the Beta distribution, positive; not given either.

  Returns:
    A maker of a view of one copy and n rows that enters the student at its
    head, with `label_vectors`; all points together weigh as much as the rows.

  Raises:
    ValueError: if `points` is less than 1 or `alpha` is not
      positive and finite.
  """
  if points is not None and points < 1:
    raise ValueError(f"points must be at least 1, got {points}")
  check_alpha(alpha)

  def make(key, batch, clean, models, step):
    del clean, step
    network, params = models.student, models.student_params
    rows = Inputs(mask=batch.mask[None], tokens=batch.tokens[None])
    answers = network.forward(params, rows, key=models.student_key)
    vectors = answers.pooled[0]  # [B, D]
    label = jnp.where(batch.has_label[:, None], batch.label, 0.0)
    labels = jnp.einsum("bc,cd->bd", label, network.class_vectors(params))
    n = points or batch.weight.shape[0]
    labelled = batch.has_label & (batch.weight > 0)
    policy = _policy(key, batch, n, vectors.shape[-1], alpha)
    policy = jnp.where(labelled[:, None, None], policy, -jnp.inf)
    # A batch without any label has no point; its weights must not be NaN.
    policy = jnp.where(jnp.any(labelled), policy, 0.0)
    share = jax.nn.softmax(policy, axis=0)  # [B, n, D]
    vectors = jnp.where(labelled[:, None], vectors.astype(jnp.float32), 0.0)
    whole = jnp.ones((1, n), jnp.float32)
    return View(
      student=Inputs(
        mask=jnp.ones((1, n, 1), bool),
        pooled=jnp.einsum("bnd,bd->nd", share, vectors)[None],
      ),
      teacher=None,
      label=None,
      has_label=jnp.broadcast_to(jnp.any(labelled), (1, n)),
      weight=whole * (jnp.sum(batch.weight) / n),
      label_vectors=jnp.einsum("bnd,bd->nd", share, labels)[None],
    )

  return ViewMaker(make)


def _policy(
  key: Key[Array, ""], batch: Batch, points: int, width: int, alpha: float
) -> Float[Array, "B n D"]:
  """M, a function of each row's example."""
  keys = prng.per_example(prng.stream(key, "policy"), batch.example_id)
  shape = (points, width)
  if alpha == 1.0:  # The uniform distribution, many times faster.
    return jax.vmap(lambda k: jax.random.uniform(k, shape))(keys)
  return jax.vmap(lambda k: jax.random.beta(k, alpha, alpha, shape))(keys)
