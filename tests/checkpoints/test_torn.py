"""A checkpoint that a disk or a copy has torn is skipped, and said so."""

import logging
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill import errors
from augdistill.checkpoints.store import Store

# When one array cannot be read, tensorstore reports the others to an event
# loop of orbax's that has ended by then, which Python mentions on stderr.
pytestmark = pytest.mark.filterwarnings(
  "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def late_reports_belong_to_their_test():
  yield
  time.sleep(0.05)


def make_state(fill):
  return {
    "step": jnp.int32(fill),
    "params": {"a": jnp.full((5, 4), fill, jnp.float32), "b": jnp.ones(3)},
  }


def assert_same_bits(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def tear(directory, step):
  """Halves every file of a checkpoint that holds more than a name."""
  for path in (directory / str(step) / "state").rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_torn_newest_checkpoint_is_skipped_with_a_warning(tmp_path, caplog):
  states = {s: make_state(s) for s in (1, 2, 3)}
  with Store(tmp_path) as store:
    for step, state in states.items():
      store.save(step, state)
  tear(tmp_path, 3)
  with Store(tmp_path, keep=2) as store, caplog.at_level(logging.WARNING):
    assert_same_bits(store.restore(states[1]), states[2])
    assert f"{tmp_path / '3'} cannot be read and is skipped" in caplog.text
    assert store.latest_step() == 2
    store.save(3, states[3])  # replaces the torn one
    store.wait()
    assert_same_bits(store.restore(states[1], step=3), states[3])
    assert store.steps() == [2, 3]
  assert_same_bits(Store(tmp_path).restore(states[1]), states[3])


def test_a_torn_checkpoint_that_was_asked_for_is_an_error(tmp_path):
  with Store(tmp_path) as store:
    store.save(1, make_state(1))
    store.save(2, make_state(2))
  tear(tmp_path, 2)
  with pytest.raises(errors.RunError, match="no readable checkpoint of step 2"):
    Store(tmp_path).restore(make_state(0), step=2)


@pytest.mark.parametrize("lost", ["state", "state/_METADATA", "state/d"])
def test_a_checkpoint_that_lacks_a_part_is_skipped(tmp_path, lost):
  with Store(tmp_path) as store:
    store.save(1, make_state(1))
    store.save(2, make_state(2))
  (tmp_path / "2" / lost).rename(tmp_path / "lost")
  assert int(Store(tmp_path).restore(make_state(0))["step"]) == 1
  assert Store(tmp_path).restore_params()["a"][0, 0] == 1
