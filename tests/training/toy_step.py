"""The step on the toy's rows, compiled once for each method."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from augdistill.training.methods import build_method
from augdistill.training.step import grads_and_metrics
from augdistill.types import TaskKind
from tests import toy

KEY, STEP = jax.random.key(7), jnp.int32(3)
LEXICON = jax.tree.map(jnp.asarray, toy.LEXICON)
KINDS = {"regression": 1, "multi_label": toy.CLASSES, "classes": toy.CLASSES}
# The toy's rows, with labels and params for each kind of task.
NETWORKS = {
  kind: (toy.network(6, c), toy.network(7, c)) for kind, c in KINDS.items()
}
PARAMS = {
  kind: tuple(
    jax.jit(network.init)(jax.random.key(i))
    for i, network in enumerate(networks, 1)
  )
  for kind, networks in NETWORKS.items()
}


def batch_of(kind="classes"):
  batch = toy.make_batch()
  rng = np.random.default_rng(3)
  labels = {
    "classes": batch.label,
    "regression": rng.normal(size=(toy.ROWS, 1)),
    "multi_label": rng.integers(0, 2, (toy.ROWS, toy.CLASSES)),
  }
  return batch._replace(label=labels[kind].astype(np.float32))


@functools.cache
def compiled(
  method, kind="classes", num_microbatches=1, lexicon=LEXICON, **options
):
  """(batch, step, student's params, teacher's) -> gradients, metrics."""
  student, teacher = NETWORKS[kind]
  if isinstance(method, str):
    method = build_method(method, TaskKind(kind))

  @jax.jit
  def function(batch, step, params, teacher_params):
    return grads_and_metrics(
      params,
      teacher_params,
      lexicon,
      batch,
      KEY,
      step,
      student=student,
      teacher=teacher,
      method=method,
      num_microbatches=num_microbatches,
      **options,
    )

  return function


def gradients(method, kind="classes", batch=None, step=STEP, **options):
  batch = batch_of(kind) if batch is None else batch
  return compiled(method, kind, **options)(batch, step, *PARAMS[kind])


def assert_close(a, b, rtol=2e-5, atol=1e-6):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def average(metrics, name="loss"):
  total, weight = metrics[name]
  return float(total) / float(weight)
