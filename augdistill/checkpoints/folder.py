"""A directory on a disk or in a bucket, whose files are read as wholes.

All of it is TensorStore's. Nothing here asks which files there are: of a bucket
that does not answer, or that one may not read, TensorStore says that it has
none.
"""

import os
import re
from collections.abc import Iterable
from typing import Any

import tensorstore
from etils import epath

from augdistill.errors import UsageError

BUCKET = "gs://"
# A bucket that does not answer, or says that it is busy, is asked again until
# then. Who begins is told soon; what runs may outlast a disturbance.
SECONDS, _SECONDS_OF_A_WRITE = 30.0, 300.0
LOG_IN = (
  "Is there a network? A bucket that is not public needs `gcloud auth "
  "application-default login`"
)


def is_in_bucket(path: str | os.PathLike) -> bool:
  """Whether a path is a place in a bucket of Google Cloud Storage."""
  return os.fspath(path).startswith(BUCKET)


def place(path: str) -> dict[str, str]:
  """A directory, as TensorStore names it.

  Raises:
    UsageError: if a bucket has no name.
  """
  if found := re.fullmatch(r"gs://([^/]+)/?(.*)", path, re.DOTALL):
    bucket, inside = found.groups()
    return {
      "driver": "gcs",
      "bucket": bucket,
      "path": f"{inside.strip('/')}/" if inside.strip("/") else "",
    }
  if is_in_bucket(path):
    raise UsageError(f"cannot read {path}: a bucket must have a name")
  return {"driver": "file", "path": f"{epath.Path(path).resolve()}/"}


class Folder:
  """A directory.

  Args:
    path: where it is, such as gs://BUCKET/DIRECTORY; it need not exist.

  Attributes:
    path: the same.
    store: TensorStore's.

  Raises:
    UsageError: if it cannot be opened.
  """

  def __init__(self, path: str):
    self.path = path
    try:
      opened = tensorstore.KvStore.open(place(path))
      self.store: Any = opened.result(timeout=SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
      raise self._unreadable(error) from error

  def read(self, name: str) -> bytes | None:
    """A file's content; None if there is none.

    Raises:
      UsageError: if it cannot be read.
    """
    return self.read_all([name]).get(name)

  def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
    """Name -> content of those of some files that there are.

    Raises:
      UsageError: if they cannot be read.
    """
    try:
      asked = {name: self.store.read(name) for name in names}
      found = {n: its.result(timeout=SECONDS) for n, its in asked.items()}
    except (OSError, ValueError, TimeoutError) as error:
      raise self._unreadable(error) from error
    return {n: bytes(r.value) for n, r in found.items() if r.state == "value"}

  def write(self, name: str, content: bytes | None) -> None:
    """Writes a file as a whole, or deletes it.

    Args:
      name: its path in the directory.
      content: what it shall hold; None for no file.

    Raises:
      OSError: if that fails; then it is as it was.
    """
    try:
      self.store.write(name, content).result(timeout=_SECONDS_OF_A_WRITE)
    except (OSError, ValueError, TimeoutError) as error:
      raise OSError(None, first_line(error), name) from error

  def _unreadable(self, error: Exception) -> UsageError:
    remedy = f". {LOG_IN}" if is_in_bucket(self.path) else ""
    return UsageError(f"cannot read {self.path}: {first_line(error)}{remedy}")


def first_line(error: Exception) -> str:
  """What an error says, without what its library adds for who wrote it."""
  if isinstance(error, TimeoutError) and not str(error):
    return "no answer in time"
  text = next(iter(str(error).splitlines()), "") or repr(error)
  return re.split(r" \[(?:source locations|http_response)", text)[0][:500]
