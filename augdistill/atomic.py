"""Files that are whole or not there, whatever happens meanwhile."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[TextIO]:
  """Opens a file for writing that takes the place of `path` at the end.

  The text goes to a temporary file beside `path`, which is renamed when the
  block ends. If the block fails, `path` is as it was before.

  Args:
    path: the file to write, in UTF-8; its directory is made if need be.

  Yields:
    A text file.

  Example:
    with replacing("results.json") as file:
      json.dump(results, file)
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    with open(temporary, "w", encoding="utf-8", newline="\n") as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
