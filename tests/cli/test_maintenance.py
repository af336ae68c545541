"""A machine that is to be taken away says so on its metadata server."""

import http.server
import signal
import threading
import time

import pytest

from augdistill.cli import maintenance, preemption
from augdistill.training import processes

QUIET = {"maintenance-event": "NONE", "preempted": "FALSE"}


@pytest.fixture
def machine(monkeypatch):
  """What its server answers, by name; None: it fails."""
  answers, asked = dict(QUIET), []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      assert self.headers["Metadata-Flavor"] == "Google"
      prefix, _, name = self.path.rpartition("/")
      assert prefix == "/computeMetadata/v1/instance"
      asked.append(name)
      text = answers[name]
      self.send_response(503 if text is None else 200)
      self.end_headers()
      self.wfile.write((text or "").encode())

    def log_message(self, *args):
      pass

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  host = f"127.0.0.1:{server.server_port}"
  monkeypatch.setenv("GCE_METADATA_HOST", host)
  yield answers, asked
  server.shutdown()
  server.server_close()


def wait_until(true, seconds=10.0):
  end = time.monotonic() + seconds
  while not true() and time.monotonic() < end:
    time.sleep(0.01)
  return true()


@pytest.mark.parametrize(
  ("name", "notice"),
  [
    ("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE"),
    ("preempted", "TRUE"),
  ],
)
def test_a_notice_is_a_sigterm(machine, name, notice):
  answers, asked = machine
  got = []
  before = signal.signal(signal.SIGTERM, lambda *_: got.append(1))
  try:
    with maintenance.passed_on(period=0.01):
      assert wait_until(lambda: len(asked) > 4)
      answers["preempted"] = None  # A server that fails is asked again.
      assert wait_until(lambda: len(asked) > 8)
      assert not got
      answers[name] = notice
      assert wait_until(lambda: got)
      time.sleep(0.1)
      assert got == [1]
  finally:
    signal.signal(signal.SIGTERM, before)


def test_nobody_asks_any_more_when_the_run_is_over(machine):
  answers, asked = machine
  with maintenance.passed_on(period=0.01):
    assert wait_until(lambda: asked)
  time.sleep(0.1)
  count = len(asked)
  answers["preempted"] = "TRUE"  # Would end this process.
  time.sleep(0.2)
  assert len(asked) == count


def test_a_run_on_a_tpu_stops_at_a_notice(machine, monkeypatch):
  answers, _ = machine
  monkeypatch.setattr(processes, "are_on_tpu", lambda: True)
  monkeypatch.setattr(
    preemption.maintenance,
    "passed_on",
    lambda real=maintenance.passed_on: real(period=0.01),
  )
  with preemption.watch() as asked_to_stop:
    assert not asked_to_stop(1)
    answers["maintenance-event"] = "TERMINATE_ON_HOST_MAINTENANCE"
    assert wait_until(lambda: asked_to_stop(2))
