"""The original beside its copies, where these enter."""

import jax
import jax.numpy as jnp
import numpy as np

from augdistill.augment.ascent import ascend_freely
from augdistill.augment.copies import with_original
from augdistill.losses.terms import kl
from augdistill.types import Inputs
from tests import toy

BATCH = jax.tree.map(jnp.asarray, toy.make_batch())


def test_without_a_clean_batch_the_original_has_the_teachers_answer_too():
  models = toy.make_models()
  view = with_original(ascend_freely({"teacher": kl()}, steps=2)).make(
    jax.random.key(0), BATCH, None, models, jnp.int32(0)
  )
  asked = models.teacher.forward(
    models.teacher_params,
    Inputs(mask=BATCH.mask[None], tokens=BATCH.tokens[None]),
  )
  assert view.student.embeddings.shape[0] == 3
  assert view.teacher.logits.shape[0] == 3
  for answer in view.teacher.logits:
    np.testing.assert_allclose(answer, asked.logits[0], rtol=1e-6)
