"""A batch that brings the teacher's answers: the step without the teacher."""

import jax
import jax.numpy as jnp
import numpy as np

from augdistill.types import Inputs
from tests.training.toy_step import NETWORKS, PARAMS, batch_of, compiled

STEP = jnp.int32(3)
BROKEN = jax.tree.map(lambda x: x * jnp.nan, PARAMS["classes"][1])


def answered(batch):
  """The batch with what the teacher says without dropout."""
  _, teacher = NETWORKS["classes"]
  tokens, mask = jnp.asarray(batch.tokens), jnp.asarray(batch.mask)
  inputs = Inputs(mask=mask[None], tokens=tokens[None])
  answers = jax.jit(teacher.forward)(PARAMS["classes"][1], inputs).logits[0]
  return batch._replace(answers=np.asarray(answers))


def close(one, other):
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)


def test_with_its_answers_nobody_needs_the_teacher():
  batch = batch_of()
  step = compiled("kd+fgsm", num_microbatches=2, teacher_dropout=False)
  student, teacher = PARAMS["classes"]
  online = step(batch, STEP, student, teacher)
  # What a broken teacher says would be NaN.
  close(step(answered(batch), STEP, student, BROKEN), online)


def test_the_answers_are_what_the_student_learns_from():
  batch, (student, teacher) = answered(batch_of()), PARAMS["classes"]
  step = compiled("kd", teacher_dropout=False)
  _, one = step(batch, STEP, student, teacher)
  other = batch._replace(answers=batch.answers[:, ::-1])
  _, two = step(other, STEP, student, teacher)
  assert abs(float(one["clean/kl"][0] - two["clean/kl"][0])) > 0.1


def test_a_view_of_new_texts_asks_all_the_same():
  batch, (student, teacher) = batch_of(), PARAMS["classes"]
  step = compiled("kd+token_mix", teacher_dropout=False)
  close(
    step(answered(batch), STEP, student, teacher),
    step(batch, STEP, student, teacher),
  )
  _, metrics = step(answered(batch), STEP, student, BROKEN)
  assert np.isfinite(metrics["clean/kl"][0])
  assert np.isnan(metrics["token_mix/kl"][0])
