"""The original beside its copies, where these enter."""

import jax
import jax.numpy as jnp
import numpy as np

from augdistill.augment.ascent import ascend_freely
from augdistill.augment.copies import repeat, with_original
from augdistill.augment.replacement import replace_at_random
from augdistill.losses.terms import kl
from augdistill.types import Inputs, ViewMaker
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


def test_the_original_comes_first_and_alone_has_a_label_if_copies_have_none():
  others = repeat(replace_at_random(1.0), 2)

  def make(*arguments):
    return others.make(*arguments)._replace(label=None)

  arguments = (
    jax.random.key(0),
    BATCH,
    None,
    toy.make_models(),
    jnp.int32(0),
  )
  copies = others.make(*arguments)
  assert copies.has_label.any()
  view = with_original(ViewMaker(make)).make(*arguments)
  for inputs, those in (
    (view.student, copies.student),
    (view.teacher, copies.teacher),
  ):
    np.testing.assert_array_equal(inputs.tokens[0], BATCH.tokens)
    np.testing.assert_array_equal(inputs.mask[0], BATCH.mask)
    np.testing.assert_array_equal(inputs.tokens[1:], those.tokens)
  np.testing.assert_array_equal(view.label[0], BATCH.label)
  np.testing.assert_array_equal(view.has_label[0], BATCH.has_label)
  assert not view.has_label[1:].any()
  np.testing.assert_array_equal(view.weight, np.tile(BATCH.weight, (3, 1)))
  assert view.stats == copies.stats
