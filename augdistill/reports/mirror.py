"""A run's directory in a bucket, worked on as one of this machine.

The files of a run are small, and appended to, which a bucket cannot do. They
are kept in a directory here, and copied as wholes when they have changed.
Checkpoints are not among them: their store writes to the bucket itself.
"""

import atexit
import contextlib
import importlib.util
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence

from augdistill.checkpoints.folder import Folder
from augdistill.errors import UsageError

# Whoever looks into the bucket sees what is not older, by and large.
_SECONDS_BETWEEN = 60.0


class Mirror:
  """A directory in a bucket, and its copy here.

  Args:
    path: gs://BUCKET/DIRECTORY; it need not exist, its bucket must.
    names: the files there that may be read, and are fetched where they exist.

  Attributes:
    here: the copy, of this process alone, until it ends. It exists where one
      of the files does.

  Raises:
    UsageError: if the bucket cannot be read, or what reads it is missing.
  """

  def __init__(self, path: str, names: Iterable[str]):
    _check_installed(path)
    self._folder = Folder(path)
    fetched = self._folder.read_all(names)
    # Until the process ends: paths of its files are handed on.
    temporary = tempfile.mkdtemp(prefix="augdistill_")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    self.here = pathlib.Path(temporary, "run")
    self._copied: dict[str, tuple[int, int]] = {}
    for name, content in fetched.items():
      file = self.here / name
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_bytes(content)
      self._copied[name] = _state(file)

  def push(self) -> None:
    """Copies what has changed here since it was copied, and deletes there.

    Raises:
      OSError: if the bucket cannot be written; the next one goes on there.
    """
    files = [path for path in self.here.rglob("*") if path.is_file()]
    states = {str(f.relative_to(self.here)): _state(f) for f in files}
    for name, state in states.items():
      if self._copied.get(name) != state:
        self._folder.write(name, (self.here / name).read_bytes())
        self._copied[name] = state
    for name in self._copied.keys() - states.keys():
      self._folder.write(name, None)
      del self._copied[name]


class Watched:
  """A `Dashboard` that is the bucket: it is shown there how a run goes.

  It may be behind. What must be there, a run pushes by itself, and hears of
  what goes wrong.

  Args:
    mirror: the run's.
  """

  def __init__(self, mirror: Mirror):
    self._mirror = mirror
    self._next = time.monotonic() + _SECONDS_BETWEEN

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """As of `Dashboard`."""
    del step, values
    if time.monotonic() >= self._next:
      self._push()

  def table(
    self, step: int, name: str, header: Sequence[str], rows: list[list[str]]
  ) -> None:
    """As of `Dashboard`; scalars come as often."""
    del step, name, header, rows

  def close(self) -> None:
    """As of `Dashboard`."""
    self._push()

  def _push(self) -> None:
    with contextlib.suppress(OSError):
      self._mirror.push()
    self._next = time.monotonic() + _SECONDS_BETWEEN


def _state(path: pathlib.Path) -> tuple[int, int]:
  """What changes when a file is written."""
  found = path.stat()
  return found.st_mtime_ns, found.st_size


def _check_installed(path: str) -> None:
  """Raises UsageError unless there is what Orbax asks of a bucket with."""
  try:
    found = importlib.util.find_spec("google.cloud.storage")
  except ModuleNotFoundError:
    found = None
  if found is None:
    raise UsageError(
      f"a run at {path} needs the package google-cloud-storage, which is not "
      "installed: pip install 'augdistill[gcs]'"
    )
