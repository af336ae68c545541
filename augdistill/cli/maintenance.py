"""The notice of a cloud's machine that it will be taken away, as a SIGTERM.

A virtual machine of Google Cloud learns of its maintenance from the metadata
server, and of its preemption there and by ACPI; only the latter may reach a
process. See https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice
and https://cloud.google.com/compute/docs/instances/create-use-spot.
"""

import contextlib
import os
import signal
import threading
import urllib.request
from collections.abc import Iterator

_SERVER = "metadata.google.internal"
# What is asked for -> the answer while nothing is to come.
_NOTICES = {"maintenance-event": "NONE", "preempted": "FALSE"}
_PERIOD_SECONDS = 5.0


@contextlib.contextmanager
def passed_on(
  server: str | None = None, period: float = _PERIOD_SECONDS
) -> Iterator[None]:
  """A context in which this process gets SIGTERM when a notice comes.

  Args:
    server: of metadata; by default $GCE_METADATA_HOST, or that of every
      machine of Google Cloud.
    period: seconds between questions.
  """
  server = server or os.environ.get("GCE_METADATA_HOST", _SERVER)
  done = threading.Event()

  def watch():
    while not done.wait(period):
      if any(_is_noticed(server, name) for name in _NOTICES):
        os.kill(os.getpid(), signal.SIGTERM)
        return

  threading.Thread(target=watch, daemon=True).start()
  try:
    yield
  finally:
    done.set()


def _is_noticed(server: str, name: str) -> bool:
  request = urllib.request.Request(
    f"http://{server}/computeMetadata/v1/instance/{name}",
    headers={"Metadata-Flavor": "Google"},
  )
  try:
    with urllib.request.urlopen(request, timeout=_PERIOD_SECONDS) as answer:
      said = answer.read().decode().strip()
  except (OSError, ValueError):  # It may be busy, and is asked again.
    return False
  return said != _NOTICES[name]
