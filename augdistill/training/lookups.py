"""What a frozen teacher's table tells once, for all steps."""

from collections.abc import Sequence

import jax
from jaxtyping import Array, Int

from augdistill.augment.replacement import neighbour_lists
from augdistill.augment.surroundings import find_surroundings
from augdistill.types import Lexicon, Method, Network, Params


def most_neighbours(methods: Sequence[Method]) -> int:
  """The most neighbours of a token that a view of any method draws from."""
  makers = [view.maker for method in methods for view in method.views]
  return max((maker.num_neighbours for maker in makers), default=0)


def with_lookups(
  lexicon: Lexicon,
  methods: Sequence[Method],
  teacher: Network | None,
  teacher_params: Params | None,
  rows: Int[Array, "*rows"] | None = None,
) -> Lexicon:
  """A lexicon in which views look up what they would search in every step.

  Args:
    lexicon: on the devices.
    methods: of a run.
    teacher: frozen, of the lexicon's vocabulary; or None.
    teacher_params: its parameters, on the devices.
    rows: i32[...], the tokens that occur in a batch; by default all.

  Returns:
    The lexicon, with neighbours and surroundings in the teacher's word
    embeddings if there is a teacher, and any view is cheaper with them.
  """
  if teacher is None:
    return lexicon
  count = most_neighbours(methods)
  mixes = any(v.maker.projects_mixtures for m in methods for v in m.views)
  if count or mixes:
    table = jax.jit(teacher.table)(teacher_params)
  if count:
    lists = neighbour_lists(table, lexicon, count, rows)
    lexicon = lexicon._replace(neighbours=lists)
  if mixes:
    found = find_surroundings(table, lexicon.producible, rows)
    lexicon = lexicon._replace(surroundings=found)
  return lexicon
