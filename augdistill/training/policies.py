"""Policies: which method a step trains with, where batches take turns.

    kd+alternate(fmix, mixup)    fmix at even steps, mixup at odd ones
    kd+one_of(fmix, mixup, none) one of the three at random

Each choice is one compiled step; which one it is, is decided outside of jit
by a pure function of (seed, step), so a run that is resumed goes on alike.

References:
  Harris et al. 2020, FMix, arXiv:2002.12047, section 5 (alternating per batch).
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from augdistill.augment.grammar import Call, parse
from augdistill.augment.methods import RECIPES, Recipe
from augdistill.data.draws import permutation
from augdistill.errors import UsageError
from augdistill.training.lookups import most_neighbours
from augdistill.training.methods import assemble
from augdistill.types import Method, TaskKind


class Choice(NamedTuple):
  """How one of n views is chosen.

  Attributes:
    pick: (n, number of the item, seed, step) -> the number of the view.
    summary: one line.
  """

  pick: Callable[[int, int, int, int], int]
  summary: str


def _in_turn(n: int, item: int, seed: int, step: int) -> int:
  del item, seed
  return step % n


def _at_random(n: int, item: int, seed: int, step: int) -> int:
  return int(permutation(n, "policy", item, seed, step)[0])


CHOICES = {
  "alternate": Choice(_in_turn, "one view per batch, in turn (FMix, sec. 5)"),
  "one_of": Choice(_at_random, "one view per batch, at random"),
}


@dataclasses.dataclass(frozen=True)
class Policy:
  """The methods of a run, and which one a step takes.

  Attributes:
    name: as the user wrote it.
    methods: the methods there are; one where nothing alternates.
    choose: (seed, step) -> the number of its method.
  """

  name: str
  methods: tuple[Method, ...]
  choose: Callable[[int, int], int]

  @property
  def needs_teacher(self) -> bool:
    """Whether any method does; they have one base, so all of them do."""
    return self.methods[0].needs_teacher

  @property
  def num_neighbours(self) -> int:
    """The most neighbours of a token that a view of any method draws from."""
    return most_neighbours(self.methods)

  @property
  def needs_projections(self) -> bool:
    """Whether a term of any method reads `Outputs.projected`."""
    return any(method.needs_projections for method in self.methods)


def build_policy(
  text: str, kind: TaskKind, recipes: Mapping[str, Recipe] = RECIPES
) -> Policy:
  """The policy that a method stands for.

  Args:
    text: the method, in the grammar of `augdistill.augment.grammar`.
    kind: of the task.
    recipes: the views there are, by name.

  Returns:
    The policy. Where several items choose, every combination is a method.

  Raises:
    UsageError: as `build_method`, or for a choice that is none.
  """
  calls = parse(text)
  if calls[0].name in CHOICES:
    raise UsageError(
      f"a policy must begin with a base, ft or kd, got {calls[0].name!r} in "
      f"{text!r}"
    )
  slots = [_options(call) for call in calls]
  sizes = [len(options) for options in slots]
  methods = []
  for chosen in itertools.product(*slots):
    kept = tuple(call for call in chosen if call is not None)
    name = text if len(kept) == len(calls) == sum(sizes) else _text(kept)
    methods.append(assemble(kept, name, kind, recipes))

  def choose(seed: int, step: int) -> int:
    number = 0
    for slot, (call, size) in enumerate(zip(calls, sizes, strict=True)):
      pick = CHOICES[call.name].pick(size, slot, seed, step) if size > 1 else 0
      number = number * size + pick
    return number

  return Policy(text, tuple(methods), choose)


def _options(call: Call) -> Sequence[Call | None]:
  """What an item may stand for: itself, or one of its choices."""
  if call.name not in CHOICES:
    return [call]
  if call.kwargs or len(call.args) < 2 or call.copies > 1:
    raise UsageError(
      f"{call.name} must be given two views or more, such as "
      f"{call.name}(fmix, mixup), got {call}"
    )
  return [_option(call, value) for value in call.args]


def _option(call: Call, value: object) -> Call | None:
  if value is None:
    return None
  if isinstance(value, str):
    value = Call(value)
  if not isinstance(value, Call) or value.name in CHOICES:
    raise UsageError(f"{call.name} chooses between views, got {value}")
  return value


def _text(calls: Sequence[Call]) -> str:
  return "+".join(map(str, calls))
