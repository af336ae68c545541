"""Names of leaves say where they are, whatever the containers are made of."""

import dataclasses
from typing import Any, NamedTuple

import jax

from augdistill.checkpoints import flat


class Pair(NamedTuple):
  first: Any
  second: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class State:
  params: Any
  rest: Any


def test_every_container_gives_readable_names():
  tree = State({"a": {"b": 1}}, (Pair(2, None), [3, ()]))
  assert flat.named_leaves(tree) == [
    ("params/a/b", 1),
    ("rest/0/first", 2),
    ("rest/1/0", 3),
  ]


def test_nested_dicts_come_back_from_their_names():
  tree = {"a": {"b": {"c": 1}, "d": 2}, "e": 3}
  assert flat.nested(dict(flat.named_leaves(tree))) == tree


def test_an_array_is_spelt_by_type_and_shape():
  assert flat.spell("float32", (3, 4)) == "float32[3, 4]"
  assert flat.spell(bool, ()) == "bool[]"
