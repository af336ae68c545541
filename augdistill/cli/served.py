"""What a trained run needs to be used without its teacher, read back."""

import os

from augdistill.cli.bindings import configurable, parsed
from augdistill.models.networks import ARCHITECTURES
from augdistill.reports.student_gin import Served
from augdistill.types import Task

_SERVED = configurable(Served)
for _architecture in ARCHITECTURES:
  configurable(_architecture)
configurable(Task)


def load_served(path: str | os.PathLike) -> Served:
  """Reads a `student.gin`.

  Raises:
    UsageError: if it is missing or does not fit.
  """
  with parsed([os.fspath(path)]):
    return _SERVED()
