"""The types that every room shares."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from augdistill.types import Inputs, Task, TaskKind

MASK = jnp.ones((1, 2, 3), bool)
TOKENS = jnp.arange(6, dtype=jnp.int32).reshape(1, 2, 3)


def test_a_task_has_one_output_per_name_and_one_for_regression():
  assert Task("a", TaskKind.CLASSES, ("x", "y", "z")).num_outputs == 3
  assert Task("a", TaskKind.MULTI_LABEL, ("x",)).num_outputs == 1
  assert Task("a", TaskKind.REGRESSION).num_outputs == 1


def test_a_kind_is_read_from_its_name_as_written_to_a_file():
  for kind in TaskKind:
    assert TaskKind(kind.value) is kind
    assert str(kind) == kind.value


def test_tasks_that_say_the_same_are_equal_and_hash_alike():
  one, two = (Task("a", TaskKind.CLASSES, ("x", "y"), ("f1",)) for _ in "12")
  assert one == two
  assert hash(one) == hash(two)
  assert one != Task("a", TaskKind.CLASSES, ("y", "x"), ("f1",))


@pytest.mark.parametrize(
  ("kind", "names", "message"),
  [
    (TaskKind.REGRESSION, ("x",), "regression task has no label names"),
    (TaskKind.CLASSES, (), "kind classes needs label names"),
    (TaskKind.MULTI_LABEL, (), "kind multi_label needs label names"),
  ],
)
def test_a_task_whose_names_do_not_fit_its_kind_is_an_error(
  kind, names, message
):
  with pytest.raises(ValueError, match=message):
    Task("a", kind, names)


def test_the_layer_of_inputs_is_static_and_their_arrays_are_not():
  inputs = Inputs(MASK, hidden=jnp.zeros((1, 2, 3, 4)), layer=2)
  leaves, structure = jax.tree.flatten(inputs)
  assert len(leaves) == 2
  assert structure.unflatten(leaves).layer == 2

  def entry(inputs):
    assert isinstance(inputs.layer, int)
    return inputs.hidden + inputs.layer

  np.testing.assert_array_equal(jax.jit(entry)(inputs), 2.0)


def test_inputs_pass_through_shapes_and_gradients():
  inputs = Inputs(MASK, embeddings=jnp.ones((1, 2, 3, 4)))

  def total(embeddings, inputs):
    moved = Inputs(inputs.mask, embeddings=inputs.embeddings * embeddings)
    return jnp.sum(moved.embeddings)

  ones = jnp.ones((1, 2, 3, 4))
  assert jax.eval_shape(total, ones, inputs).shape == ()
  np.testing.assert_array_equal(jax.grad(total)(ones, inputs), 1.0)


def test_the_tests_check_shapes():
  with pytest.raises(jaxtyping.TypeCheckError):
    Inputs(MASK, tokens=TOKENS[..., :2])
  with pytest.raises(jaxtyping.TypeCheckError):
    Inputs(MASK, tokens=TOKENS.astype(jnp.float32))
