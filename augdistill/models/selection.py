"""Layer selection: a student that begins as some of its teacher's layers.

References:
  Sajjad et al. 2020, arXiv:2004.03844; Zhang et al. 2022, AD², table 4 (the
  bottom layers serve best).
"""

import re
from collections.abc import Mapping
from typing import Any

from augdistill.errors import UsageError, listing
from augdistill.types import Params

SELECTIONS = ("bottom", "skip", "top")
_LAYER = re.compile(r"layers_(\d+)")


def selected_layers(
  selection: str, num_student: int, num_teacher: int
) -> tuple[int, ...]:
  """Which of the teacher's layers the student's are.

  Args:
    selection: "bottom", the first ones; "top", the last ones; "skip", equally
      spaced ones from the first on (every other one for half as many); or
      their numbers from 0, such as "0,2,5".
    num_student: N_S, the student's number of layers.
    num_teacher: N_T, the teacher's.

  Returns:
    N_S numbers in [0, N_T), increasing.

  Raises:
    UsageError: for another text, a list of another length, or a student with
      more layers than its teacher.
  """
  if num_student > num_teacher:
    raise UsageError(
      f"layers can be selected for a student of at most its teacher's "
      f"{num_teacher} layers, got a student of {num_student}"
    )
  if selection == "bottom":
    return tuple(range(num_student))
  if selection == "top":
    return tuple(range(num_teacher - num_student, num_teacher))
  if selection == "skip":
    return tuple(i * num_teacher // num_student for i in range(num_student))
  if not re.fullmatch(r"\d+(,\d+)*", selection):
    raise UsageError(
      f"--init_layers must be one of {listing(SELECTIONS)}, or numbers of "
      f"layers such as 0,2,5, got {selection!r}"
    )
  layers = tuple(int(number) for number in selection.split(","))
  if len(layers) != num_student:
    raise UsageError(
      f"--init_layers must name {num_student} layers, as many as the student "
      f"has, got {selection!r}"
    )
  if max(layers) >= num_teacher or list(layers) != sorted(set(layers)):
    raise UsageError(
      f"--init_layers must name layers from 0 to {num_teacher - 1}, each once "
      f"and in order, got {selection!r}"
    )
  return layers


def select_layers(
  teacher: Params, student: Params, layers: tuple[int, ...]
) -> Params:
  """The teacher's parameters in the student's shape.

  Args:
    teacher: the teacher's parameters.
    student: the student's, or their shapes; only the structure is read.
    layers: the teacher's encoder layer that each of the student's is.

  Returns:
    The student's tree: its encoder's layer i is the teacher's layers[i], and
    everything else is the teacher's as it is.

  Raises:
    UsageError: if a width differs; it names both.
  """

  def of(path: str, mine: Any, theirs: Any) -> Any:
    if isinstance(mine, Mapping):
      return {
        name: of(f"{path}/{name}", value, theirs[_source(path, name, layers)])
        for name, value in mine.items()
      }
    if mine.shape != theirs.shape:
      raise UsageError(
        "--init_layers needs a student of its teacher's widths, got "
        f"{path[1:]} of shape {mine.shape} and the teacher's of "
        f"{theirs.shape}. Give the student the teacher's --model, and fewer "
        "layers with --gin.enct5_config.num_layers=N; or give the teacher as "
        "--init, too, and --gin.model_like.num_layers=N"
      )
    return theirs

  return of("", student, teacher)


def _source(path: str, name: str, layers: tuple[int, ...]) -> str:
  """The teacher's name of what the student calls `name`."""
  match = _LAYER.fullmatch(name) if path == "/encoder" else None
  return f"layers_{layers[int(match[1])]}" if match else name
