"""What a model takes over from elsewhere, and what it cannot."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest

from augdistill.checkpoints.begin import Source, begin, fit
from augdistill.checkpoints.flat import named_leaves
from augdistill.checkpoints.foreign import Stored
from augdistill.errors import UsageError
from augdistill.models.enct5 import EncT5Config
from augdistill.types import Task, TaskKind


def tree(width=4, fill=0.0, layers=1, **parts):
  def full(*shape):
    return np.full(shape, fill, np.float32)

  encoder = {
    f"layers_{i}": {"kernel": full(width, width)} for i in range(layers)
  }
  return {
    "token_embedder": {"embedding": full(8, width)},
    "encoder": {**encoder, "scale": full(width)},
    **parts,
  }


def source(arrays, **shape):
  """A tree of arrays as what lies elsewhere."""
  stored = {
    name: Stored(leaf.shape, leaf.dtype, lambda leaf=leaf: leaf)
    for name, leaf in named_leaves(arrays)
  }
  return Source("DIR", EncT5Config, stored, shape)


def test_what_has_the_same_name_is_taken_over_and_nothing_else():
  head = {"kernel": np.ones((4, 2), np.float32)}
  ours = tree(fill=1.0, head=head)
  theirs = tree(fill=2.0, bias=np.zeros(8), head={"other": np.zeros(1)})
  made = begin(ours, source(theirs))
  assert jax.tree.structure(made) == jax.tree.structure(ours)
  assert (made["head"]["kernel"] == 1.0).all()
  for name in ("token_embedder", "encoder"):
    assert all((leaf == 2.0).all() for leaf in jax.tree.leaves(made[name]))
  assert (ours["encoder"]["scale"] == 1.0).all()  # not changed in place


def test_other_types_become_float32_with_the_same_values():
  values = np.arange(32).reshape(8, 4).astype(ml_dtypes.bfloat16)
  theirs = tree() | {"token_embedder": {"embedding": values}}
  (made,) = begin(tree(), source(theirs))["token_embedder"].values()
  assert made.dtype == np.float32
  np.testing.assert_array_equal(made, values.astype(np.float32))


def test_what_is_loaded_new_and_left_over_is_counted_by_part():
  ours = tree(head={"kernel": np.ones((4, 2)), "bias": np.zeros(2)})
  theirs = tree(bias=np.zeros(8), **{"lm_head.weight": np.zeros((8, 4))})
  fitted = fit(ours, source(theirs))
  assert str(fitted) == (
    "encoder (20), token_embedder (32); new: head (10); left over: "
    "bias (8), lm_head (32)"
  )
  assert set(fitted.new) == {"head/kernel", "head/bias"}


def test_layers_are_chosen_and_numbered_anew():
  theirs = tree(layers=3)
  for i in range(3):
    theirs["encoder"][f"layers_{i}"]["kernel"] += i
  chosen = source(theirs, num_layers=3).with_layers((0, 2))
  assert chosen.shape == {"num_layers": 2}
  made = begin(tree(layers=2, fill=9.0), chosen)["encoder"]
  assert [made[f"layers_{i}"]["kernel"][0, 0] for i in (0, 1)] == [0, 2]
  assert not fit(tree(layers=2), chosen).left


def headed(kind, *names):
  """What lies elsewhere with a head whose output i is i."""
  count = max(len(names), 1)
  head = {
    "kernel": np.tile(np.arange(count, dtype=np.float32), (4, 1)),
    "bias": np.arange(count, dtype=np.float32),
  }
  there = source(tree(head=head))
  return dataclasses.replace(there, task=Task("theirs", TaskKind(kind), names))


@pytest.mark.parametrize(
  ("kind", "theirs", "ours", "want"),
  [
    ("classes", "abc", "abc", [0, 1, 2]),
    ("classes", "abc", "cab", [2, 0, 1]),
    ("multi_label", "ab", "ba", [1, 0]),
    ("regression", "", "", [0]),
  ],
)
def test_a_head_is_kept_in_the_order_of_the_classes(kind, theirs, ours, want):
  kept = headed(kind, *theirs).for_task(
    Task("ours", TaskKind(kind), tuple(ours))
  )
  head = {"kernel": np.full((4, len(want)), -1.0), "bias": -np.ones(len(want))}
  assert not fit(tree(head=head), kept).new
  made = begin(tree(head=head), kept)["head"]
  np.testing.assert_array_equal(made["bias"], want)
  np.testing.assert_array_equal(made["kernel"], np.tile(want, (4, 1)))


@pytest.mark.parametrize(
  ("kind", "names"),
  [("classes", "abd"), ("classes", "ab"), ("multi_label", "abc")],
)
def test_a_head_for_another_task_is_left_over(kind, names):
  left = headed("classes", *"abc").for_task(
    Task("ours", TaskKind(kind), tuple(names))
  )
  head = {"kernel": np.zeros((4, 3)), "bias": np.zeros(3)}
  fitted = fit(tree(head=head), left)
  assert str(fitted).endswith(
    "; new: head (15); left over: another task's head (15)"
  )


@pytest.mark.parametrize(
  "change, said",
  [
    (
      lambda t: t["encoder"]["layers_0"].update(kernel=np.ones((4, 5), "f4")),
      "encoder/layers_0/kernel is [4, 5] there and [4, 4] here; leave out "
      "--model, or say which layers",
    ),
    (
      lambda t: t["token_embedder"].update(embedding=np.ones((9, 4), "f4")),
      "token_embedder/embedding is [9, 4] there and [8, 4] here; read with its "
      "vocabulary, --vocab FILE",
    ),
    (
      lambda t: t["encoder"].update(layers_1={"kernel": np.ones((4, 4), "f4")}),
      "encoder/layers_1/kernel is [4, 4] there and missing here",
    ),
    (
      lambda t: t["encoder"].pop("layers_0"),
      "encoder/layers_0/kernel is missing there and [4, 4] here",
    ),
    (
      lambda t: t.pop("token_embedder"),
      "token_embedder/embedding is missing there and [8, 4] here",
    ),
    (
      lambda t: t.update(head={"kernel": np.ones((4, 3), "f4")}),
      "head/kernel is [4, 3] there and [4, 2] here; leave out --model",
    ),
  ],
)
def test_what_does_not_fit_is_named_with_both_sides(change, said):
  theirs = tree()
  change(theirs)
  with pytest.raises(UsageError) as caught:
    fit(tree(head={"kernel": np.ones((4, 2))}), source(theirs))
  assert str(caught.value).startswith("DIR must be of the same size")
  assert said in str(caught.value)


@pytest.mark.parametrize(
  "value, dtype, said",
  [
    (np.nan, "float32", r"3 of 16 that are NaN or infinite"),
    (-np.inf, "float16", r"3 of 16 that are NaN or infinite"),
    (1e300, "float64", r"3 of 16 that are NaN or infinite"),
    (1, "int8", "floating point, got int8: .* before it was quantised"),
    (1, "bool", "floating point, got bool"),
    (1, "complex64", "floating point, got complex64"),
  ],
)
def test_weights_are_finite_numbers(value, dtype, said):
  kernel = np.zeros((4, 4), dtype)
  kernel.flat[:3] = value
  theirs = tree()
  theirs["encoder"]["layers_0"]["kernel"] = kernel
  with pytest.raises(UsageError, match="DIR must hold encoder/layers_0/kernel"):
    begin(tree(), source(theirs))
  with pytest.raises(UsageError, match=said):
    begin(tree(), source(theirs))
  # What is left over may be of any kind.
  begin(tree(), source(tree(other={"kernel": kernel})))


def test_a_shape_that_no_model_has_is_told_with_its_place():
  shape = {"emb_dim": 8, "mlp_dim": 8, "num_layers": 0, "num_heads": 2}
  with pytest.raises(UsageError, match="DIR: num_layers must be a positive"):
    source({}, **shape).config(vocab_size=8, num_outputs=2, head_dim=4)


@pytest.mark.parametrize("shape", [(), (2,), (4,)])
def test_a_head_of_another_size_than_its_classes_is_told(shape):
  task = Task("t", TaskKind.CLASSES, ("a", "b", "c"))
  theirs = tree(head={"kernel": np.ones((4, 3)), "bias": np.zeros(shape)})
  turned = Task("t", TaskKind.CLASSES, ("c", "b", "a"))
  headed = dataclasses.replace(source(theirs), task=task).for_task(turned)
  ours = tree(head={"kernel": np.ones((4, 3)), "bias": np.zeros(3)})
  with pytest.raises(UsageError, match=r"of the same size .*: head/bias is"):
    fit(ours, headed)
