"""The grid of `augdistill compare`: run or resumed, shown, and reported."""

import argparse
import json
import pathlib
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console

from augdistill import atomic
from augdistill.augment.methods import split_methods, written_out
from augdistill.cli import distill, grid, main
from augdistill.cli.grid_progress import GridProgress
from augdistill.cli.screens import show_findings
from augdistill.errors import RunError, UsageError
from augdistill.reports import comparison, diagnosis, pages
from augdistill.reports.diagnosis import Finding, Level
from augdistill.reports.grid_results import Cell, write_results
from augdistill.reports.provenance import versions
from augdistill.reports.run_directory import RunDirectory

# The steps that methods take in equal seconds.
_STEPS = "steps.json"


def read_methods(text: str) -> list[str]:
  """The methods apart by commas outside of parentheses.

  Raises:
    UsageError: if one is empty or stands there twice.
  """
  return _each_once("--methods", map(written_out, split_methods(text)))


def read_seeds(text: str) -> list[int]:
  """Numbers apart by commas.

  Raises:
    UsageError: if one is no number, or stands there twice.
  """
  return [
    _number("--seeds", part) for part in _each_once("--seeds", text.split(","))
  ]


def read_sizes(text: str) -> list[int | None]:
  """Numbers of rows apart by commas; None for "all".

  Raises:
    UsageError: if one is neither, or stands there twice.
  """
  parts = _each_once("--train_examples", text.split(","))
  return [
    None if part == "all" else _number("--train_examples", part)
    for part in parts
  ]


def _each_once(flag: str, parts: Iterable[str]) -> list[str]:
  parts = [part.strip() for part in parts]
  if "" in parts:
    raise UsageError(f"{flag} must have something between its commas")
  if twice := {part for part in parts if parts.count(part) > 1}:
    raise UsageError(f"{flag} must have each once, got {twice.pop()!r} twice")
  return parts


def _number(flag: str, text: str) -> int:
  if not text.isdecimal():
    raise UsageError(f"{flag} must be whole numbers, got {text!r}")
  return int(text)


def run_grid(
  args: argparse.Namespace,
  methods: list[str],
  sizes: list[int | None],
  seeds: list[int],
  output: pathlib.Path,
) -> int:
  """Runs what is left of a grid, and reports all of it.

  Args:
    args: the flags.
    methods: in the order of the report.
    sizes: numbers of training rows.
    seeds: of the runs.
    output: the grid's directory.

  Returns:
    The exit code: 1 where a run failed.

  Raises:
    UsageError: if a method, the data or the directory does not fit.
    RunError: if the teacher cannot be trained, or no run is finished.
    Preempted: if the process was asked to stop.
  """
  console = Console(stderr=True, highlight=False)
  # What is wrong with any run should show before the first one.
  steps = _kept_steps(output) if args.match == "seconds" else {}
  planned = grid.plan(args, methods, sizes, seeds, steps)
  finished = [_is_finished(run) for run in planned]
  if distill.makes_teacher(args):
    _train_teacher(args, planned[0], console)
  kept = output / "doctor.json"
  if not args.force and not kept.exists():
    found = _look_for_mistakes(planned[0].argv, output)
    with atomic.replacing(kept) as file:
      json.dump(found, file, indent=2)
  if args.match == "seconds":
    steps = _steps_of_equal_seconds(planned, methods, output, console)
    planned = grid.plan(args, methods, sizes, seeds, steps)
    finished = [_is_finished(run) for run in planned]
  # What is done stays in the file, also while the rest goes on.
  cells = [
    run.cell() if done else None
    for run, done in zip(planned, finished, strict=True)
  ]
  with GridProgress(planned, console) as shown:
    for i, run in enumerate(planned):
      shown.begin(run)
      start = time.monotonic()
      error = None
      if not finished[i]:
        error = grid.run_alone(run.argv, _log(run.path))
        cells[i] = run.cell(error)
      write_results(output / "results.jsonl", filter(None, cells))
      shown.end(run, error, 0.0 if finished[i] else time.monotonic() - start)
  return _report(cells, methods, output)


def _is_finished(run: grid.Planned) -> bool:
  """Whether it is; raises UsageError where another run has its directory."""
  _, text = distill.configure(main.parse(run.argv))
  directory = RunDirectory(run.path)
  return directory.check(text) and directory.results() is not None


def _log(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(path.name + ".log")


def _train_teacher(
  args: argparse.Namespace, first: grid.Planned, console: Console
) -> None:
  """Trains the teacher of the grid, unless it is there."""
  if RunDirectory(args.teacher).results() is not None:
    return
  output = pathlib.Path(args.output_dir)
  if not args.force:
    argv = [f for f in first.argv if not f.startswith("--teacher=")]
    argv += grid.given_flags(args, ("teacher_model", "teacher_init"))
    _look_for_mistakes(argv, output)
  what = args.teacher_model or args.teacher_init
  console.print(f"fine-tuning the teacher, {what}")
  log = output / "teacher.log"
  if error := grid.run_alone(grid.teacher_command(args), log):
    raise RunError(f"the teacher could not be trained: {error} (all in {log})")


def _look_for_mistakes(
  argv: Sequence[str], output: pathlib.Path
) -> list[dict[str, Any]]:
  """What `doctor` finds, before hours are spent on what is wrong.

  Raises:
    UsageError: if something is red.
  """
  found = grid.examined(argv, output / "doctor.log")
  findings = [
    Finding(**{**finding, "level": Level(finding["level"])})
    for finding in found
  ]
  if diagnosis.worst(findings) == Level.RED:
    show_findings(findings)
    raise UsageError(
      "a comparison of these would mean nothing: mend what is red above, or "
      "give --force"
    )
  return found


def _kept_steps(output: pathlib.Path) -> dict[str, int]:
  """Method -> steps, as they were measured before; {} before that."""
  kept = output / _STEPS
  return json.loads(kept.read_text()) if kept.exists() else {}


def _steps_of_equal_seconds(
  planned: Sequence[grid.Planned],
  methods: Sequence[str],
  output: pathlib.Path,
  console: Console,
) -> dict[str, int]:
  """Method -> the steps that it takes in the seconds of the costliest one.

  They are measured once and kept, so that a grid goes on as it began.
  """
  kept, steps = output / _STEPS, _kept_steps(output)
  missing = [method for method in methods if method not in steps]
  if missing and steps:
    raise UsageError(
      f"{kept} has the steps of {', '.join(steps)}; with --match seconds, "
      f"methods cannot be added ({missing[0]}): choose another --output_dir"
    )
  if not missing:
    return steps
  cost, asked = {}, {}
  for method in methods:
    console.print(f"measuring a step of {method}")
    run = next(run for run in planned if run.method == method)
    found = grid.examined(run.argv, output / "doctor.log")
    numbers = {f["topic"]: f["numbers"] for f in found}.get("time")
    if numbers is None:
      reds = [f["says"] for f in found if f["level"] == Level.RED]
      raise UsageError(f"a step of {method} cannot be timed: {'; '.join(reds)}")
    cost[method] = numbers["seconds_per_step"]
    asked[method] = numbers["num_steps"]
  most = max(cost[method] * asked[method] for method in methods)
  steps = {method: max(round(most / cost[method]), 1) for method in methods}
  with atomic.replacing(kept) as file:
    json.dump(steps, file, indent=2)
  return steps


def _report(
  cells: list[Cell], methods: Sequence[str], output: pathlib.Path
) -> int:
  """Writes the pages; the exit code."""
  failed = [cell for cell in cells if cell.error is not None]
  if len(failed) == len(cells):
    raise RunError(f"no run is finished; the first failed: {cells[0].error}")
  baseline = "kd" if "kd" in methods else methods[0]
  compared = comparison.compare_runs(cells, baseline)
  html, markdown = pages.comparison_pages(compared, cells, versions())
  for name, text in (("report.html", html), ("report.md", markdown)):
    with atomic.replacing(output / name) as file:
      file.write(text)
  console = Console(highlight=False)
  console.print(pages.comparison_table(compared))
  for claim in pages.claims(compared) or ["no difference is shown"]:
    console.print(f"- {claim}", markup=False)
  for cell in failed:
    console.print(f"failed: {cell.path}: {cell.error}", markup=False)
  console.print(f"all of it: {output / 'report.html'}", markup=False)
  return 1 if failed else 0
