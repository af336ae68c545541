"""What a moved view says of its offset."""

import jax
import jax.numpy as jnp
import pytest

from augdistill.augment.adversarial import perturb_at_random
from tests import toy

BATCH = jax.tree.map(jnp.asarray, toy.make_batch())


@pytest.mark.parametrize(("scale", "arrives"), [(1e-3, 1e-5), (1e4, 0.0)])
def test_the_reported_norm_is_what_arrives_in_float32(scale, arrives):
  params = {**toy.STUDENT_PARAMS, "table": scale * toy.STUDENT_PARAMS["table"]}
  models = toy.make_models(params)
  clean = toy.clean_of(models, BATCH)
  view = perturb_at_random(epsilon=1e-5, relative=False).make(
    jax.random.key(0), BATCH, clean, models, jnp.int32(0)
  )
  total, count = view.stats["norm"]
  assert float(total) / float(count) == pytest.approx(arrives, rel=1e-3)
