"""EDA and KNN as a loop in Python, as one writes it who knows Python well.

Words are of any kind, strings or token ids; what `edit_tokens` and
`replace_by_neighbours` do to a row, this does to a list.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

Words = list[Any]
Neighbours = Mapping[Any, Sequence[Any]]


def eda(
  words: Words, neighbours: Neighbours, rate: float, draw: random.Random
) -> Words:
  """One of EDA's four operations, at random.

  For a word without neighbours one of its row stands in.
  """
  operation = draw.randrange(4)
  if operation == 3:
    return [w for w in words if draw.random() >= rate] or [draw.choice(words)]
  edited = words.copy()
  count = max(1, int(rate * len(words)))
  if operation == 0:
    for place in draw.sample(range(len(words)), count):
      edited[place] = draw.choice(neighbours.get(words[place]) or words)
  elif operation == 1:
    for word in draw.sample(words, count):
      new = draw.choice(neighbours.get(word) or words)
      edited.insert(draw.randrange(len(edited) + 1), new)
  else:
    places = draw.sample(range(len(words)), min(2 * count, len(words) // 2 * 2))
    for one, other in zip(places[::2], places[1::2], strict=True):
      edited[one], edited[other] = edited[other], edited[one]
  return edited


def knn(
  words: Words, neighbours: Neighbours, rate: float, draw: random.Random
) -> Words:
  """Some words become one of their neighbours, as in `eda`."""
  edited = words.copy()
  count = int(rate * len(words) + draw.random())
  for place in draw.sample(range(len(words)), count):
    edited[place] = draw.choice(neighbours.get(words[place]) or words)
  return edited
