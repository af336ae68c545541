"""`augdistill predict --http`: a port, a ready model, an orderly end."""

import contextlib
import errno
import importlib.util
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from augdistill.cli.labelling import server_model
from augdistill.cli.trained import Trained
from augdistill.cli.waiting import answering
from augdistill.errors import UsageError

_CONNECTIONS = 2048  # that may wait to be taken


def serve(run: str, host: str, port: int, max_waiting: int) -> None:
  """Answers over HTTP until SIGINT or SIGTERM, and then what waits.

  All shapes that requests can have, see `server_model`, are compiled before the
  port listens, and a line says so.

  Args:
    run: the directory of a finished run.
    host: the address to listen on.
    port: its port; 0: one that is free. It is printed.
    max_waiting: how many texts may wait for the model.

  Raises:
    UsageError: if a package is missing, there is no such run, or the port
      cannot be had.
    SystemExit: 0, at a signal.
  """
  check_installed()
  from augdistill.cli.serving import make_app

  with _ends_well(), _bound(host, port) as listener:
    began, trained = time.monotonic(), Trained.load(run)
    model = server_model(trained)
    with answering(model, max_waiting) as waiting:
      _listen(listener, host, port)
      seconds = time.monotonic() - began
      print(
        f"ready after {seconds:.1f} s, {len(model.shapes)} shapes compiled: "
        f"http://{_address(listener)}/predict",
        flush=True,
      )
      _answer(make_app(waiting.ask, trained, run, max_waiting), listener)


def _answer(app: Any, listener: socket.socket) -> None:
  """Runs an application until a signal, which is raised again then."""
  import uvicorn

  config = uvicorn.Config(
    app,
    loop="asyncio",  # The same everywhere, whichever faster packages are there.
    http="h11",
    ws="none",
    lifespan="off",
    log_level="warning",
    access_log=False,
    backlog=_CONNECTIONS,
  )
  uvicorn.Server(config).run(sockets=[listener])


def check_installed() -> None:
  """Raises UsageError unless the server's packages are there."""
  wanted = ("starlette", "uvicorn")
  missing = [name for name in wanted if not importlib.util.find_spec(name)]
  if missing:
    raise UsageError(
      f"--http needs {' and '.join(missing)}, which is not installed: pip "
      "install 'augdistill[serve]'"
    )


@contextlib.contextmanager
def _ends_well() -> Iterator[None]:
  """A context in which SIGINT and SIGTERM exit with code 0.

  uvicorn takes them while it runs, answers what it has, and raises them again.
  """
  before = {
    number: signal.signal(number, lambda *_: sys.exit(0))
    for number in (signal.SIGINT, signal.SIGTERM)
  }
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
  """A socket that has the port, but does not listen yet.

  It is taken before the model is read, so that a mistake is told at once.
  """
  with _port_errors(host, port):
    family, kind, protocol, _, address = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
  with listener:
    # A server that ended a moment ago is not in the way; one that runs is.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with _port_errors(host, port):
      listener.bind(address)
    yield listener


def _listen(listener: socket.socket, host: str, port: int) -> None:
  with _port_errors(host, port):
    listener.listen(_CONNECTIONS)


@contextlib.contextmanager
def _port_errors(host: str, port: int) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    reason = {
      errno.EADDRINUSE: "the port is in use",
      errno.EACCES: "the port takes an administrator",
    }.get(error.errno, error.strerror)
    raise UsageError(
      f"--http must be a port to listen on, got {port} at --host {host}: "
      f"{reason}; try another, or 0 for any that is free"
    ) from None


def _address(listener: socket.socket) -> str:
  host, port = listener.getsockname()[:2]
  return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
