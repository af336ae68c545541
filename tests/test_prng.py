"""Every key is a function of (seed, step, name, example) and nothing else."""

import pathlib
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import augdistill
from augdistill import prng
from augdistill.errors import UsageError

KEY = prng.run_key(0)


def bits(key):
  return np.asarray(jax.random.key_data(key))


def assert_all_differ(keys):
  keys = [bits(k).tobytes() for k in keys]
  assert len(set(keys)) == len(keys)


def test_seeds_steps_and_names_all_give_other_keys():
  keys = [prng.run_key(seed) for seed in (0, 1, 2**32 - 1)]
  keys += [prng.at_step(KEY, step) for step in range(5)]
  keys += [prng.stream(KEY, name) for name in ("a", "b", "dropout")]
  step = prng.at_step(KEY, 3)
  keys += [prng.stream(step, "a"), prng.stream(prng.stream(KEY, "a"), "b")]
  assert_all_differ(keys)


def test_a_key_is_the_same_each_time():
  for make in (
    lambda: prng.run_key(7),
    lambda: prng.at_step(KEY, 7),
    lambda: prng.stream(KEY, "dropout"),
  ):
    np.testing.assert_array_equal(bits(make()), bits(make()))


def test_the_key_of_a_name_is_the_same_in_every_process():
  # Python's hash() is salted per process; crc32 is not.
  expected = jax.random.fold_in(KEY, zlib.crc32(b"dropout"))
  np.testing.assert_array_equal(
    bits(prng.stream(KEY, "dropout")), bits(expected)
  )


def test_a_step_gives_the_same_key_inside_and_outside_of_jit():
  inside = jax.jit(prng.at_step)(KEY, jnp.int32(12))
  np.testing.assert_array_equal(bits(inside), bits(prng.at_step(KEY, 12)))


def test_an_examples_key_is_a_function_of_its_id_and_copy_alone():
  ids = jnp.array([5, 0, 3, 2**31 - 1], jnp.int32)
  keys = prng.per_example(KEY, ids, 1)
  assert keys.shape == (4,)
  order = np.array([2, 0])
  np.testing.assert_array_equal(
    bits(prng.per_example(KEY, ids[order], 1)), bits(keys[order])
  )


def test_each_example_and_each_copy_has_its_own_key():
  ids = jnp.arange(4, dtype=jnp.int32)
  keys = [k for copy in range(4) for k in prng.per_example(KEY, ids, copy)]
  assert_all_differ(keys)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**40])
def test_a_seed_that_would_repeat_another_is_an_error(seed):
  with pytest.raises(UsageError, match=rf"in \[0, 2\^32\), got {seed}"):
    prng.run_key(seed)


def test_nobody_in_the_package_splits_a_key():
  for path in pathlib.Path(augdistill.__file__).parent.rglob("*.py"):
    found = re.search(r"random\.split\(|PRNGKey\(", path.read_text("utf-8"))
    assert not found, f"{path}: use augdistill.prng"
