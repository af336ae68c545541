"""Files and directories that are whole or not there, whatever happens."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import TextIO

from augdistill.errors import UsageError


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[TextIO]:
  """Opens a file for writing that takes the place of `path` at the end.

  The text goes to a temporary file beside `path`, which is renamed when the
  block ends. If the block fails, `path` is as it was before.

  Args:
    path: the file to write, in UTF-8; its directory is made if need be.

  Yields:
    A text file.

  Raises:
    UsageError: if it is in a bucket.

  Example:
    with replacing("results.json") as file:
      json.dump(results, file)
  """
  check_local(path)
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


@contextlib.contextmanager
def replacing_directory(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Makes a directory that takes the place of `path` at the end.

  What is written goes to a temporary directory beside `path`, which is renamed
  when the block ends; what was there until then is removed. If the block
  fails, `path` is as it was before.

  Args:
    path: the directory; its parents are made if need be.

  Yields:
    The temporary directory, empty.

  Raises:
    UsageError: if it is in a bucket.

  Example:
    with replacing_directory("export") as directory:
      (directory / "config.json").write_text("{}")
  """
  check_local(path)
  path = pathlib.Path(os.path.realpath(path))
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  before = path.with_name(f".{path.name}.{os.getpid()}.old")
  temporary.mkdir()
  try:
    yield temporary
    if path.exists():
      os.replace(path, before)
    try:
      os.replace(temporary, path)
    except BaseException:
      if before.exists():
        os.replace(before, path)
      raise
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  shutil.rmtree(before, ignore_errors=True)


def check_local(path: str | os.PathLike) -> None:
  """Raises UsageError if a path to write to is in a bucket."""
  if os.fspath(path).startswith("gs:/"):
    raise UsageError(
      f"{path} must be a path of this machine: write it here, and copy it with "
      "gcloud storage cp. A bucket takes whole runs: the --output_dir of "
      "finetune, distill and pretrain"
    )
