"""Checkpoints in a bucket: the store keeps there what it keeps on a disk."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill import errors
from augdistill.checkpoints.store import Store
from tests import bucket

# TensorFlow, which reads the bucket, takes its time to be imported.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def google():
  with pytest.MonkeyPatch.context() as patch, bucket.bucket(patch) as server:
    yield server


@pytest.fixture
def server(google):
  google.refuse = lambda *_: None
  return google


@pytest.fixture
def place(request):
  """One of its own: TensorFlow remembers for some seconds what was there."""
  return f"gs://bucket/{request.node.name}/checkpoints"


def inside(place):
  """A directory as names of objects begin."""
  return place.removeprefix("gs://bucket/")


def make_state(fill):
  return {
    "step": jnp.int32(fill),
    "params": {"a": jnp.full((5, 4), fill, jnp.float32), "b": jnp.ones(3)},
  }


def assert_same_bits(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def saved(place, steps, **kwargs):
  """Saves some steps one after another."""
  with Store(place, **kwargs) as store:
    for step in steps:
      store.save(step, make_state(step), {"accuracy": -abs(step - 2)})


def test_states_come_back_and_the_newest_and_the_best_are_kept(place, server):
  assert Store(place).steps() == []
  saved(place, range(1, 6), keep=2, best_metric="accuracy")
  with Store(place, best_metric="accuracy") as store:
    assert store.steps() == [2, 4, 5]
    assert (store.best_step(), store.latest_step()) == (2, 5)
    assert store.metrics(4) == {"accuracy": -2.0}
    assert_same_bits(store.restore(make_state(0)), make_state(5))
    params = store.restore_params(2)
  assert_same_bits(params, make_state(2)["params"])
  folders = {
    name.removeprefix(inside(place)).split("/")[1]
    for name in server.names("bucket")
    if name.startswith(inside(place))
  }
  assert folders == {"", "2", "4", "5"}  # Nothing of the others is left.


def test_an_upload_that_was_cut_off_is_no_checkpoint(place, server):
  saved(place, [1, 2])
  files = server.buckets["bucket"]
  for name in [*files]:  # Orbax writes this one last.
    if name.startswith(f"{inside(place)}/2/commit_success"):
      del files[name]
  assert Store(place).steps() == [1]
  with Store(place) as store:
    assert_same_bits(store.restore(make_state(0)), make_state(1))
    store.save(2, make_state(22))
    store.wait()
    assert store.steps() == [1, 2]
    assert_same_bits(store.restore(make_state(0)), make_state(22))


def test_a_checkpoint_of_which_a_file_is_lost_is_skipped(place, server, caplog):
  saved(place, [1, 2])
  files = server.buckets["bucket"]
  for name in [*files]:
    if name.startswith(f"{inside(place)}/2/state/") and "ocdbt" in name:
      del files[name]
  with Store(place) as store, caplog.at_level(logging.WARNING):
    assert_same_bits(store.restore(make_state(0)), make_state(1))
  assert f"{place}/2 cannot be read and is skipped" in caplog.text


@pytest.mark.parametrize("code", [403, 404])
def test_a_save_that_is_refused_is_told_and_what_was_there_is_intact(
  place, server, code
):
  saved(place, [1])
  server.refuse = lambda method, *_: code if method in ("POST", "PUT") else None
  with (
    pytest.raises(errors.RunError, match="could not be saved in gs") as said,
    Store(place) as store,
  ):
    store.save(2, make_state(2))
    store.wait()
  assert "run the same command again" in str(said.value)
  server.refuse = lambda *_: None
  saved(place, [2])
  assert Store(place).steps() == [1, 2]


def test_a_bucket_that_one_may_not_look_into_is_told(place, server):
  saved(place, [1])
  # Orbax asks for the bucket's own description, which is another permission.
  server.refuse = lambda method, bucket, name: None if name else 403
  with pytest.raises(errors.UsageError, match=r"cannot read gs://.*403"):
    Store(place).steps()
