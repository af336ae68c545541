"""Progress tells speed and time left, as a bar or in lines."""

import io
import time

import pytest
from rich.console import Console

from augdistill.reports.progress import Progress


@pytest.fixture
def clock(monkeypatch):
  """Seconds that a test sets."""
  now = [100.0]
  monkeypatch.setattr(time, "monotonic", lambda: now[0])
  return now


def lines_console():
  return Console(file=io.StringIO(), force_terminal=False, highlight=False)


def test_lines_tell_step_loss_speed_and_time_left(clock):
  console = lines_console()
  with Progress(0, 1000, "kd[bold]", 0.0, console) as progress:
    progress.update(100, 2.0)  # the clock starts here, after compiling
    clock[0] += 10
    progress.update(200, 1.5)
    clock[0] += 20
    progress.update(400, 0.25)
  assert console.file.getvalue().splitlines() == [
    "kd[bold]: step 100/1000, loss 2.0000",
    "kd[bold]: step 200/1000, loss 1.5000, 10.0 steps/s, 1:20 left",
    "kd[bold]: step 400/1000, loss 0.2500, 10.0 steps/s, 1:00 left",
  ]


def test_a_line_tells_how_long_the_first_step_took_to_come(clock):
  console = lines_console()
  with Progress(40, 1000, "kd", 15.0, console) as progress:
    progress.first(41, 6.14, 4.0)
  assert console.file.getvalue() == (
    "kd: step 41: the first, after 6.1 s, of which 4.0 s compiling\n"
  )


def test_lines_are_rare_but_the_last_step_is_shown(clock):
  console = lines_console()
  with Progress(500, 1000, "kd", 15.0, console) as progress:
    for step in range(550, 1001, 50):
      clock[0] += 4
      progress.update(step, 1.0)
  steps = [line.split()[2] for line in console.file.getvalue().splitlines()]
  assert steps == ["550/1000,", "750/1000,", "950/1000,", "1000/1000,"]


def test_long_times_have_hours(clock):
  console = lines_console()
  with Progress(0, 10**5, "kd", 0.0, console) as progress:
    progress.update(0, 1.0)
    clock[0] += 100
    progress.update(1000, 1.0)
  assert "2:45:00 left" in console.file.getvalue()


def test_scores_have_a_line_of_their_own(clock):
  console = lines_console()
  with Progress(0, 10, "kd", console=console) as progress:
    progress.note(5, {"accuracy": 0.5, "f1": 0.25})
  expected = "kd: step 5: accuracy 0.5000, f1 0.2500\n"
  assert console.file.getvalue() == expected


def test_a_terminal_has_a_bar(monkeypatch):
  console = Console(file=io.StringIO(), force_terminal=True, width=100)
  with Progress(0, 10, "kd[bold]", console=console) as progress:
    progress.update(5, 0.5)
    progress.note(5, {"accuracy": 0.5})
    progress.update(10, 0.25)
  shown = console.file.getvalue()
  for text in ("kd[bold]", "10/10", "loss 0.2500", "steps/s", "━"):
    assert text in shown
