"""The store keeps what it must, gives back the same bits and never lies."""

import functools
import json
import logging
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from augdistill import errors
from augdistill.checkpoints.store import Store


class State(NamedTuple):
  step: Any
  params: Any
  opt_state: Any


def make_state(fill=1, width=4):
  params = {
    "head": {
      "kernel": jnp.full((width, 3), fill, jnp.float32),
      "bias": jnp.zeros(3),
    },
    "embedding": jnp.full((5, width), fill, jnp.bfloat16),
  }
  return State(jnp.int32(fill), params, optax.sgd(0.1, 0.9).init(params))


def assert_same_bits(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_a_state_comes_back_bit_for_bit(tmp_path):
  bits = np.arange(2**10, dtype=np.uint32) * np.uint32(4194301)
  state = make_state()._replace(
    params={
      "all kinds of floats, NaN and -0 too": jnp.asarray(bits.view("f4")),
      "bf16": jnp.asarray(bits.astype("u2")).view(jnp.bfloat16),
      "bool": jnp.asarray([True, False]),
      "scalar": jnp.uint8(255),
    }
  )
  with Store(tmp_path) as store:
    store.save(3, state)
    store.wait()
    assert_same_bits(store.restore(state), state)
    assert_same_bits(store.restore(jax.eval_shape(lambda: state)), state)


def test_a_state_may_be_donated_while_it_is_being_saved(tmp_path):
  step = functools.partial(jax.jit, donate_argnums=0)(
    lambda s: jax.tree.map(lambda x: (x * 3 + 1).astype(x.dtype), s)
  )
  state = {f"w{i}": jnp.full((64, 1024), i, jnp.float32) for i in range(20)}
  state = step(state)
  with Store(tmp_path, keep=5) as store:
    expected = {}
    for i in range(5):
      expected[i] = jax.tree.map(np.array, state)
      store.save(i, state)
      for _ in range(10):
        state = step(state)
    store.wait()
    for i, value in expected.items():
      assert_same_bits(store.restore(state, step=i), value)


def test_leaves_go_where_their_template_is(tmp_path):
  mesh = jax.make_mesh(
    (len(jax.devices()),), ("data",), (jax.sharding.AxisType.Auto,)
  )
  spec = jax.sharding.PartitionSpec("data")
  sharding = jax.sharding.NamedSharding(mesh, spec)
  values = np.arange(16, dtype=np.float32).reshape(8, 2)
  saved = {"params": jnp.asarray(values)}
  with Store(tmp_path) as store:
    store.save(1, saved)
    store.wait()
    shape = jax.ShapeDtypeStruct((8, 2), jnp.float32, sharding=sharding)
    for template in (shape, jax.device_put(values, sharding)):
      restored = store.restore({"params": template})["params"]
      assert restored.sharding == sharding
      np.testing.assert_array_equal(restored, values)
    assert not store.restore(saved)["params"].committed


def test_a_sharded_state_is_read_on_one_device(tmp_path):
  mesh = jax.make_mesh(
    (len(jax.devices()),), ("data",), (jax.sharding.AxisType.Auto,)
  )
  spec = jax.sharding.PartitionSpec("data")
  values = np.arange(16, dtype=np.float32).reshape(8, 2)
  sharded = jax.device_put(values, jax.sharding.NamedSharding(mesh, spec))
  with Store(tmp_path) as store:
    store.save(1, {"params": sharded})
    store.wait()
    restored = store.restore({"params": jnp.zeros((8, 2))})["params"]
    np.testing.assert_array_equal(restored, values)


def test_the_newest_and_the_best_are_kept(tmp_path):
  scores = {1: 0.1, 2: 0.9, 3: 0.2, 4: 0.3, 5: 0.9, 6: 0.3, 7: 0.1, 8: 0.2}
  with Store(tmp_path, keep=2, best_metric="accuracy") as store:
    for step, score in scores.items():
      store.save(step, make_state(step), {"accuracy": score, "other": -score})
    store.wait()
    assert store.steps() == [5, 7, 8]
    assert store.best_step() == 5  # the newest of equals
    assert store.metrics(5) == {"accuracy": 0.9, "other": -0.9}
    assert int(store.restore(make_state(), step=5).step) == 5


def test_lower_may_be_better_and_nan_never_is(tmp_path):
  with Store(tmp_path, keep=1, best_metric="mse", higher=False) as store:
    for step, score in enumerate([0.5, 0.2, float("nan"), 0.3, 0.4]):
      store.save(step, make_state(step), {"mse": score})
    store.wait()
    assert store.steps() == [1, 4]
    assert store.best_step() == 1


def test_the_best_is_remembered_by_the_next_process(tmp_path):
  with Store(tmp_path, keep=1, best_metric="accuracy") as store:
    store.save(1, make_state(1), {"accuracy": 0.9})
    store.save(2, make_state(2), {"accuracy": 0.1})
  with Store(tmp_path, keep=1, best_metric="accuracy") as store:
    store.save(3, make_state(3), {"accuracy": 0.2})
    store.save(4, make_state(4))
    store.wait()
    assert store.steps() == [1, 4]
    assert store.metrics(4) == {}


def test_without_a_metric_only_the_newest_are_kept(tmp_path):
  with Store(tmp_path, keep=2) as store:
    for step in range(5):
      store.save(step, make_state(step), {"accuracy": 1 - step})
    store.wait()
    assert store.steps() == [3, 4]
    assert store.best_step() is None


def test_nothing_saved_is_none_and_not_an_error(tmp_path):
  store = Store(tmp_path / "absent")
  assert store.latest_step() is None
  assert store.best_step() is None
  assert not (tmp_path / "absent").exists()
  with pytest.raises(errors.RunError, match=r"no readable checkpoint in .*abs"):
    store.restore(make_state())


def test_a_step_that_does_not_exist_is_named_with_those_that_do(tmp_path):
  with Store(tmp_path) as store:
    store.save(1, make_state())
    store.wait()
    with pytest.raises(errors.RunError, match=r"of step 7 .*there are: 1\."):
      store.restore(make_state(), step=7)


def test_another_shape_is_an_error_that_names_both(tmp_path):
  with Store(tmp_path) as store:
    store.save(1, make_state(width=4))
    store.wait()
    with pytest.raises(
      errors.RunError,
      match=r"params/embedding is bfloat16\[5, 4\] there .* bfloat16\[5, 6\]",
    ):
      store.restore(make_state(width=6))


def test_another_dtype_is_an_error_and_not_a_cast(tmp_path):
  with Store(tmp_path) as store:
    store.save(1, {"params": jnp.ones(3)})
    store.wait()
    with pytest.raises(errors.RunError, match=r"float32\[3\] .* bfloat16\[3\]"):
      store.restore({"params": jnp.ones(3, jnp.bfloat16)})


def test_a_leaf_too_many_or_too_few_is_an_error(tmp_path):
  one, two = {"a": jnp.ones(3)}, {"a": jnp.ones(3), "b": jnp.ones(2)}
  with Store(tmp_path) as store:
    store.save(1, two)
    store.save(2, one)
    store.wait()
    with pytest.raises(
      errors.RunError, match=r"b is float32\[2\] there and un"
    ):
      store.restore(one, step=1)
    with pytest.raises(
      errors.RunError, match=r"b is missing there and float32"
    ):
      store.restore(two, step=2)


def test_the_parameters_are_read_without_the_rest(tmp_path):
  state = make_state()
  with Store(tmp_path) as store:
    store.save(1, state)
    store.wait()
  params = Store(tmp_path).restore_params()
  assert_same_bits(params, jax.tree.map(np.asarray, state.params))
  assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(params))


def test_a_checkpoint_without_parameters_is_an_error(tmp_path):
  with Store(tmp_path) as store:
    store.save(1, {"step": jnp.int32(1)})
  with pytest.raises(errors.RunError, match="holds no parameters"):
    Store(tmp_path).restore_params()


def test_a_step_that_is_saved_already_is_left_alone(tmp_path):
  with Store(tmp_path) as store:
    store.save(1, make_state(1), {"accuracy": 0.5})
    store.save(1, make_state(2))
    store.wait()
    assert int(store.restore(make_state()).step) == 1
    assert store.metrics(1) == {"accuracy": 0.5}


def test_a_run_that_was_rewound_leaves_no_future_behind(tmp_path):
  with Store(tmp_path, keep=3) as store:
    for step in (10, 20, 30):
      store.save(step, make_state(step), {})
  with Store(tmp_path, keep=3) as store:
    store.restore(make_state(), step=10)
    store.save(15, make_state(15))
    store.wait()
    assert store.steps() == [10, 15]
    store.save(20, make_state(20))
    store.save(12, make_state(12))  # while the other is under way
    store.wait()
    assert store.steps() == [10, 12]


def test_reading_writes_nothing(tmp_path):
  with Store(tmp_path) as store:
    store.save(1, make_state())
  under_way = tmp_path / "2.orbax-checkpoint-tmp"  # of a trainer beside us
  under_way.mkdir()
  before = sorted(str(p) for p in tmp_path.rglob("*"))
  with Store(tmp_path) as store:
    store.restore(make_state())
    store.restore_params()
    assert store.latest_step() == 1
  assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_what_a_killed_save_has_left_is_removed_by_the_next(tmp_path):
  (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
  with Store(tmp_path) as store:
    store.save(3, make_state())
  assert [p.name for p in tmp_path.iterdir()] == ["3"]


def test_a_save_that_fails_is_one_clear_error(tmp_path):
  (tmp_path / "file").write_text("")
  with (
    pytest.raises(errors.RunError, match="could not be saved in") as error,
    Store(tmp_path / "file" / "checkpoints") as store,
  ):
    store.save(1, make_state())
  assert "\n" not in str(error.value)


def test_a_save_that_fails_later_is_one_clear_error_too(tmp_path, monkeypatch):
  with Store(tmp_path) as store:
    store.save(1, make_state(1))
    store.wait()
    full = OSError(28, "No space left on device")

    def fail(*args, **kwargs):
      raise full

    monkeypatch.setattr(ocp.PyTreeCheckpointHandler, "finalize", fail)
    store.save(2, make_state(2))
    with pytest.raises(errors.RunError, match="No space left on device"):
      store.wait()
  monkeypatch.undo()
  assert Store(tmp_path).latest_step() == 1


def test_metrics_without_the_one_that_decides_are_refused(tmp_path):
  with (
    Store(tmp_path, best_metric="f1") as store,
    pytest.raises(ValueError, match="no 'f1' among"),
  ):
    store.save(1, make_state(), {"accuracy": 1.0})


def test_keep_is_at_least_one(tmp_path):
  with pytest.raises(ValueError, match="at least 1"):
    Store(tmp_path, keep=0)


def test_nothing_is_logged_or_printed(tmp_path, caplog, capfd):
  caplog.set_level(logging.DEBUG, logger="absl")
  with Store(tmp_path, keep=1) as store:
    store.save(1, make_state())
    store.save(2, make_state())
    store.wait()
    store.restore(make_state())
  assert [r.message for r in caplog.records if r.name == "absl"] == []
  assert tuple(capfd.readouterr()) == ("", "")


def test_metrics_are_plain_json_beside_the_arrays(tmp_path):
  with Store(tmp_path) as store:
    store.save(1, make_state(), {"accuracy": np.float32(0.5)})
  text = (tmp_path / "1" / "_CHECKPOINT_METADATA").read_text()
  assert json.loads(text)["custom_metadata"] == {"accuracy": 0.5}
