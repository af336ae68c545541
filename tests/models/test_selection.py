"""A student that begins as some of its teacher's layers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.errors import UsageError
from augdistill.models.enct5 import EncT5Config, enct5
from augdistill.models.selection import select_layers, selected_layers
from augdistill.types import Inputs

TEACHER = EncT5Config(
  vocab_size=23,
  num_outputs=3,
  emb_dim=8,
  mlp_dim=12,
  num_layers=6,
  num_heads=2,
  head_dim=4,
)


def network(**changes):
  return enct5(dataclasses.replace(TEACHER, **changes))


def params_of(net, seed):
  return jax.jit(net.init)(jax.random.key(seed))


@pytest.mark.parametrize(
  ("selection", "students", "layers"),
  [
    ("bottom", 3, (0, 1, 2)),
    ("top", 3, (3, 4, 5)),
    ("skip", 3, (0, 2, 4)),
    ("skip", 2, (0, 3)),
    ("skip", 4, (0, 1, 3, 4)),
    ("skip", 6, (0, 1, 2, 3, 4, 5)),
    ("0,2,5", 3, (0, 2, 5)),
    ("4", 1, (4,)),
  ],
)
def test_a_selection_names_layers(selection, students, layers):
  assert selected_layers(selection, students, 6) == layers


@pytest.mark.parametrize(
  ("selection", "students", "said"),
  [
    (
      "middle",
      3,
      "--init_layers must be one of bottom, skip, top, or numbers of layers "
      "such as 0,2,5, got 'middle'",
    ),
    (
      "0,1",
      3,
      "--init_layers must name 3 layers, as many as the student has, got '0,1'",
    ),
    (
      "0,6",
      2,
      "--init_layers must name layers from 0 to 5, each once and in order, got "
      "'0,6'",
    ),
    (
      "2,1",
      2,
      "--init_layers must name layers from 0 to 5, each once and in order, got "
      "'2,1'",
    ),
    (
      "bottom",
      7,
      "layers can be selected for a student of at most its teacher's 6 layers, "
      "got a student of 7",
    ),
  ],
)
def test_a_wrong_selection_gives_one_clear_line(selection, students, said):
  with pytest.raises(UsageError) as error:
    selected_layers(selection, students, 6)
  assert str(error.value) == said


def test_the_right_tensors_are_copied():
  teacher = params_of(network(), 0)
  student = params_of(network(num_layers=2), 1)
  made = select_layers(teacher, student, (1, 4))
  assert jax.tree.structure(made) == jax.tree.structure(student)
  for mine, theirs in ((0, 1), (1, 4)):
    jax.tree.map(
      np.testing.assert_array_equal,
      made["encoder"][f"layers_{mine}"],
      teacher["encoder"][f"layers_{theirs}"],
    )
  for name in ("relpos_bias", "encoder_norm"):
    jax.tree.map(
      np.testing.assert_array_equal,
      made["encoder"][name],
      teacher["encoder"][name],
    )
  # The decoder has a layer of its own, which is not selected from.
  for name in ("token_embedder", "decoder", "head"):
    jax.tree.map(np.testing.assert_array_equal, made[name], teacher[name])


def test_all_bottom_layers_compute_the_teachers_hidden_states():
  teacher, student = network(), network(num_layers=2)
  theirs = params_of(teacher, 0)
  mine = select_layers(theirs, params_of(student, 1), (0, 1))
  text = Inputs(
    mask=jnp.ones((1, 2, 5), bool),
    tokens=jnp.arange(10, dtype=jnp.int32).reshape(1, 2, 5),
  )
  a = jax.jit(teacher.forward)(theirs, text)
  b = jax.jit(student.forward)(mine, text)
  for layer in range(3):
    np.testing.assert_allclose(
      a.hidden[layer], b.hidden[layer], rtol=1e-5, atol=1e-6
    )


def test_another_width_is_refused_with_both_shapes():
  teacher = params_of(network(), 0)
  student = params_of(network(num_layers=2, mlp_dim=10), 1)
  with pytest.raises(UsageError) as error:
    select_layers(teacher, student, (0, 1))
  assert str(error.value) == (
    "--init_layers needs a student of its teacher's widths, got "
    "decoder/layers_0/mlp/wi_0/kernel of shape (8, 10) and the teacher's of "
    "(8, 12). Give the student the teacher's --model, and fewer layers with "
    "--gin.enct5_config.num_layers=N; or give the teacher as --init, too, and "
    "--gin.model_like.num_layers=N"
  )
