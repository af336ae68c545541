"""Layer maps: which layer of the teacher a layer of the student learns from.

Layers are counted by their exits: 1 is the exit of the first layer, N that of
the last, and 0 is the entry of the first, the embeddings. So layer i is
`Outputs.hidden[i]` of a model that was entered at its beginning.

With S layers of the student and T of the teacher:

  uniform   (i, round(i T / S)), halves up: the whole depth of both, T >= 1
  pkd_skip  uniform without its last pair, whose hidden state the logits answer
            for already: 2, 4, ..., 10 for S = 6 and T = 12; a student of one
            layer keeps its only pair
  skip      (i, 1 + (i - 1) T / S), rounded down: every other layer from the
            first on for S = T / 2, which is how AD² selects the layers that a
            student begins with; with `--init_layers skip` a layer learns from
            the one that it was
  bottom    (i, i)
  top       (i, T - S + i)
  last      (S, T) alone

or pairs, in the words that a method may hold: `l1_4.l2_8` says that layer 1
learns from layer 4 and layer 2 from layer 8.

References:
  Sun et al. 2019, BERT-PKD, arXiv:1908.09355, section 3.2 (pkd_skip, and top
  as PKD-last); Zhang et al. 2022, AD², table 4 (skip, bottom and top); Jiao et
  al. 2020, TinyBERT, arXiv:1909.10351, section 4.1 (uniform); Wang et al. 2020,
  MiniLM, arXiv:2002.10957 (last).
"""

import re
from collections.abc import Callable

from augdistill.errors import UsageError, suggest

# (student's layer, teacher's layer) pairs.
Pairs = tuple[tuple[int, int], ...]


def layer_map(layers: str, num_student: int, num_teacher: int) -> Pairs:
  """The pairs of a layer map for two networks of these depths.

  Args:
    layers: the name of a map, or pairs such as `l1_4.l2_8`.
    num_student: S, layers of the student, >= 1.
    num_teacher: T, layers of the teacher, >= 1.

  Returns:
    (student's layer, teacher's layer) pairs, at least one.

  Raises:
    ValueError: if there is no such map.
    UsageError: if it does not fit these depths.

  Example:
    >>> layer_map("uniform", 2, 3)
    ((1, 2), (2, 3))
  """
  check_layers(layers)
  depths = f"{num_student} of the student and {num_teacher} of the teacher"
  if min(num_student, num_teacher) < 1:
    raise UsageError(f"a layer map needs layers, got {depths}")
  if layers in NEED_A_DEEPER_TEACHER and num_student > num_teacher:
    raise UsageError(
      f"the layer map {layers!r} needs at most as many layers of the student "
      f"as of the teacher, got {depths}"
    )
  if layers in LAYER_MAPS:
    return LAYER_MAPS[layers](num_student, num_teacher)
  pairs = _written_pairs(layers)
  for s, t in pairs:
    if s > num_student or t > num_teacher:
      raise UsageError(
        f"the layer map {layers!r} pairs layer {s} of the student with layer "
        f"{t} of the teacher; the layers are {depths}"
      )
  return pairs


def check_layers(layers: str, first: int = 0) -> None:
  """Raises ValueError unless `layers` is a layer map.

  Args:
    layers: the name of a map, or pairs.
    first: the lowest layer that pairs may name: 1 where layer 0, the entry,
      has nothing to compare.
  """
  if layers in LAYER_MAPS:
    return
  pairs = _written_pairs(layers)
  if not pairs:
    raise ValueError(
      f"layers must be one of {', '.join(LAYER_MAPS)}, or pairs of student's "
      f"and teacher's layers such as l1_4.l2_8, got {layers!r}."
      + suggest(layers, LAYER_MAPS)
    )
  if len(set(pairs)) < len(pairs):
    raise ValueError(f"the layer map {layers!r} holds a pair twice")
  if min(min(pair) for pair in pairs) < first:
    raise ValueError(
      f"the layer map {layers!r} holds layer 0, the entry of the first layer, "
      "where nothing has been attended to yet"
    )


def _uniform(num_student: int, num_teacher: int) -> Pairs:
  """In integers: floor(i T / S + 1/2), but never the entry."""
  return tuple(
    (i, max(1, (2 * i * num_teacher + num_student) // (2 * num_student)))
    for i in range(1, num_student + 1)
  )


def _pkd_skip(num_student: int, num_teacher: int) -> Pairs:
  pairs = _uniform(num_student, num_teacher)
  return pairs[:-1] or pairs


def _skip(num_student: int, num_teacher: int) -> Pairs:
  return tuple(
    (i, 1 + (i - 1) * num_teacher // num_student)
    for i in range(1, num_student + 1)
  )


def _bottom(num_student: int, num_teacher: int) -> Pairs:
  del num_teacher
  return tuple((i, i) for i in range(1, num_student + 1))


def _top(num_student: int, num_teacher: int) -> Pairs:
  above = num_teacher - num_student
  return tuple((i, above + i) for i in range(1, num_student + 1))


def _last(num_student: int, num_teacher: int) -> Pairs:
  return ((num_student, num_teacher),)


LAYER_MAPS: dict[str, Callable[[int, int], Pairs]] = {
  "uniform": _uniform,
  "pkd_skip": _pkd_skip,
  "skip": _skip,
  "bottom": _bottom,
  "top": _top,
  "last": _last,
}
NEED_A_DEEPER_TEACHER = ("skip", "bottom", "top")


def _written_pairs(layers: str) -> Pairs:
  """The pairs that a text such as `l1_4.l2_8` names; () if it is none."""
  if not re.fullmatch(r"l[0-9]+_[0-9]+(\.l[0-9]+_[0-9]+)*", layers):
    return ()
  found = re.findall(r"l([0-9]+)_([0-9]+)", layers)
  return tuple((int(s), int(t)) for s, t in found)
