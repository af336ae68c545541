"""All benchmarks, or some: a table and a JSON file of ratios.

  bash launch/bench.sh [--quick] [--out DIR] [BENCHMARK ...]
  bash launch/bench.sh [--rounds N] METHOD ...

Each benchmark has a process of its own, one after the other, so that none
finds what another has compiled or left in memory. DIR, by default runs/bench,
gets benchmarks.json and benchmarks.md. A benchmark whose needs are missing, a
data set or a package, says so in the table and stops no other. --quick takes
smaller sizes: it shows that all runs, and its numbers say less.
AUGDISTILL_SHARED=DIR names a folder with data/, the real data sets. Methods in
the place of benchmarks are compared with the first of them.
"""

import argparse
import datetime as dt
import importlib
import json
import multiprocessing
import os
import pathlib
import platform
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import augdistill
from augdistill.augment.methods import BASES
from augdistill.errors import UsageError, listing, suggest
from augdistill.reports.provenance import git_revision, versions
from augdistill.training import freed_memory
from tests.benchmarks import step_cost
from tests.benchmarks.turns import ROUNDS, Figure, Missing

TABLE = "benchmarks.md"
ROOT = pathlib.Path(augdistill.__file__).parents[1]

# Name, which is that of its file here -> what it compares. Each has
# measure(quick) -> list[Figure].
BENCHMARKS = {
  "step_cost": "A step of each method",
  "projection": "Projection to tokens",
  "teacher_cache": "Answers of the teacher that are read",
  "lengths": "Texts in buckets of their length",
  "torch_step": "A step in PyTorch",
  "torch_training": "A training in PyTorch",
  "text_edits": "Edits of texts",
  "scaling": "A step by rows, length and vocabulary",
  "devices": "A step on several devices",
  "throughput": "Evaluation and prediction",
  "paper_step": "The paper's step at its full size",
}
# What the process of a benchmark is started with, before JAX looks at it.
ENVIRONMENT = {
  "devices": {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
}


class Result(NamedTuple):
  """What became of a benchmark.

  Attributes:
    figures: what it measured.
    devices: on which.
    missing: what it needs that is not there; "" where nothing is.
    failed: what went wrong; "" where nothing did.
  """

  figures: Sequence[Figure] = ()
  devices: Sequence[str] = ()
  missing: str = ""
  failed: str = ""


def measure(name: str, quick: bool) -> Result:
  """Runs a benchmark in this process."""
  if name != "throughput":
    freed_memory.in_first_thread()  # As a run does.
  try:
    module = importlib.import_module(f"tests.benchmarks.{name}")
    figures = module.measure(quick)
  except Missing as missing:
    return Result(missing=str(missing))
  except Exception:
    traceback.print_exc()
    return Result(failed=traceback.format_exc().splitlines()[-1])
  import jax

  devices = [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()]
  return Result(figures, devices)


def measure_apart(name: str, quick: bool) -> Result:
  """Runs a benchmark in a process of its own."""
  before = dict(os.environ)
  os.environ.update(ENVIRONMENT.get(name, {}))
  try:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
      1, mp_context=context, initializer=_end_with_parent
    ) as pool:
      return pool.submit(measure, name, quick).result()
  except BrokenProcessPool:
    return Result(failed="its process was killed; is there memory for it?")
  finally:
    os.environ.clear()
    os.environ.update(before)


def _end_with_parent() -> None:
  """Lets this process end when that which started it has been killed."""

  def wait():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


def cores() -> int:
  """How many cores this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def summary(quick: bool, results: Mapping[str, Result]) -> dict[str, Any]:
  """What benchmarks.json holds."""
  return {
    "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    "quick": quick,
    "git_revision": git_revision(ROOT / "augdistill"),
    "versions": versions(),
    "python": platform.python_version(),
    "platform": platform.platform(),
    "cores": cores(),
    "benchmarks": {
      name: result._asdict()
      | {"figures": [_as_json(figure) for figure in result.figures]}
      for name, result in results.items()
    },
  }


def _as_json(figure: Figure) -> dict[str, Any]:
  bound = figure.bound
  if bound is None:
    return figure._asdict()
  return figure._asdict() | {
    "bound": bound._asdict(),
    "reached": bound.holds(figure.ratio),
  }


def markdown(quick: bool, results: Mapping[str, Result]) -> Iterator[str]:
  """The lines of the table."""
  yield "# Benchmarks" + (", quick: small sizes" if quick else "")
  yield ""
  yield (
    "A figure is the median of the ratios within rounds, with the lowest and "
    "the highest, and behind it medians of what is divided and by what."
  )
  for name, result in results.items():
    yield ""
    yield f"## {BENCHMARKS[name]} (`{name}`)"
    yield ""
    if result.missing or result.failed:
      yield (
        f"Missing: {result.missing}"
        if result.missing
        else (f"Failed: {result.failed}")
      )
      continue
    yield f"On {listing(result.devices, limit=2)}, {cores()} cores."
    yield ""
    yield "| what | against | ratio | asked | amounts | note |"
    yield "|---|---|--:|---|--:|---|"
    yield from map(_row, result.figures)


def _row(figure: Figure) -> str:
  asked = ""
  if figure.bound is not None:
    reached = "yes" if figure.bound.holds(figure.ratio) else "**no**"
    asked = f"{figure.bound.sign} {figure.bound.value:g}: {reached}"
  cells = (
    figure.name,
    figure.reference,
    f"{figure.ratio:.3g} ({figure.lowest:.3g} to {figure.highest:.3g})",
    asked,
    f"{_amount(figure.amount, figure.unit)} / "
    f"{_amount(figure.reference_amount, figure.unit)}",
    figure.note,
  )
  return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _amount(value: float, unit: str) -> str:
  if unit == "s" and value < 1:
    scale, unit = (1e3, "ms") if value >= 1e-3 else (1e6, "µs")
    value *= scale
  return f"{value:.3g} {unit}"


def write(
  folder: pathlib.Path, quick: bool, results: Mapping[str, Result]
) -> None:
  """Writes both files."""
  folder.mkdir(parents=True, exist_ok=True)
  table = "\n".join(markdown(quick, results)) + "\n"
  (folder / TABLE).write_text(table, encoding="utf-8")
  text = json.dumps(summary(quick, results), indent=1) + "\n"
  (folder / "benchmarks.json").write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
  """Runs what is asked for; 1 where a benchmark failed, 2 for a wrong name."""
  parser = argparse.ArgumentParser(
    prog="launch/bench.sh",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--quick", action="store_true")
  parser.add_argument(
    "--out", metavar="DIR", type=pathlib.Path, default=ROOT / "runs" / "bench"
  )
  parser.add_argument(
    "--rounds", metavar="N", type=int, default=12, help="of methods"
  )
  parser.add_argument(
    "what",
    metavar="BENCHMARK or METHOD",
    nargs="*",
    help=f"benchmarks are {', '.join(BENCHMARKS)}; by default all",
  )
  args = parser.parse_args(argv)
  if args.what and args.what[0].startswith(tuple(BASES)):
    if args.rounds < ROUNDS:
      parser.error(f"--rounds must be at least {ROUNDS}, got {args.rounds}")
    freed_memory.in_first_thread()  # As a run does.
    try:
      step_cost.print_costs(args.what, args.rounds)
    except UsageError as error:
      parser.error(str(error))
    return 0
  names = dict.fromkeys(args.what or BENCHMARKS)
  for name in names:
    if name not in BENCHMARKS:
      parser.error(
        f"a benchmark must be one of {', '.join(BENCHMARKS)}, got {name!r}."
        + suggest(name, BENCHMARKS)
      )
  if args.out.exists() and not args.out.is_dir():
    parser.error(f"--out must be a directory, got the file {args.out}")
  results: dict[str, Result] = {}
  for name in names:
    print(f"{name}: {BENCHMARKS[name]}", flush=True)
    results[name] = measure_apart(name, args.quick)
    write(args.out, args.quick, results)  # What there is, if it is stopped.
  print((args.out / TABLE).read_text("utf-8") + f"\nin {args.out}")
  return int(any(result.failed for result in results.values()))


if __name__ == "__main__":
  sys.exit(main())
