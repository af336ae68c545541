"""What came out of a run: results.json, its one machine-readable summary."""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from augdistill import errors

SCHEMA_VERSION = 1
_SPLITS = {"validation", "test"}
_TEXTS = ("method", "task")
_NUMBERS = (
  "seed",
  "num_steps",
  "best_step",
  "train_seconds",
  "seconds_per_1000_steps",
  "examples_per_second",
)
_TABLES = ("metrics", "teacher_metrics", "num_params")
_KEYS = {"schema_version", *_TEXTS, *_NUMBERS, *_TABLES, "agreement"}


def build_results(
  *,
  method: str,
  task: str,
  seed: int,
  metrics: Mapping[str, Mapping[str, float]],
  teacher_metrics: Mapping[str, Mapping[str, float]],
  agreement: float | None,
  num_params: Mapping[str, int | None],
  num_steps: int,
  best_step: int,
  train_seconds: float,
  batch_size: int,
) -> dict[str, Any]:
  """The contents of results.json.

  Args:
    method: as the user wrote it.
    task: the task's name.
    seed: the run's.
    metrics: split ("validation", "test") -> metric -> value.
    teacher_metrics: the same of the teacher; {} without one.
    agreement: of student and teacher on the last of the splits; None without
      a teacher.
    num_params: "student" and "teacher" -> number; None without a teacher.
    num_steps: steps of the whole run.
    best_step: the step whose parameters were scored.
    train_seconds: seconds spent in these steps, over all starts.
    batch_size: rows of a batch, without its views.

  Returns:
    A dict for JSON, with the two speeds.

  Raises:
    ValueError: if a number is not finite, or a split does not exist.
  """
  speed = num_steps / train_seconds if train_seconds > 0 else 0.0
  results = {
    "schema_version": SCHEMA_VERSION,
    "method": method,
    "task": task,
    "seed": seed,
    "metrics": {split: dict(values) for split, values in metrics.items()},
    "teacher_metrics": {s: dict(v) for s, v in teacher_metrics.items()},
    "agreement": agreement,
    "num_params": dict(num_params),
    "num_steps": num_steps,
    "best_step": best_step,
    "train_seconds": train_seconds,
    "seconds_per_1000_steps": 1000 / speed if speed else 0.0,
    "examples_per_second": speed * batch_size,
  }
  validate(results)
  return results


def validate(results: Any) -> None:
  """Checks what a reader would trip over.

  Args:
    results: what results.json holds.

  Raises:
    ValueError: if a key is missing or unknown, or a value is of a wrong type.
  """
  if not isinstance(results, Mapping):
    raise ValueError(f"it must be an object, got {type(results).__name__}")
  if results.get("schema_version") != SCHEMA_VERSION:
    raise ValueError(
      f"schema_version must be {SCHEMA_VERSION}, got "
      f"{results.get('schema_version')!r}"
    )
  if wrong := _KEYS.symmetric_difference(results):
    state = "missing" if wrong - results.keys() else "unknown"
    raise ValueError(f"keys are {state}: {', '.join(sorted(wrong))}")
  for name in _TEXTS:
    if not isinstance(results[name], str):
      raise ValueError(f"{name} must be a text, got {results[name]!r}")
  _check_numbers("", {name: results[name] for name in _NUMBERS})
  _check_numbers("", {"agreement": results["agreement"]}, optional=True)
  for name in _TABLES:
    if not isinstance(results[name], Mapping):
      raise ValueError(f"{name} must be an object, got {results[name]!r}")
  _check_splits("metrics", results["metrics"])
  _check_splits("teacher_metrics", results["teacher_metrics"])
  if set(results["num_params"]) != {"student", "teacher"}:
    raise ValueError("num_params must be of student and teacher")
  _check_numbers("num_params.", results["num_params"], optional=True)


def read_results(
  path: str | os.PathLike, where: str | None = None
) -> dict[str, Any]:
  """Reads the results of a finished run.

  Args:
    path: its directory.
    where: what messages call it; by default the same.

  Returns:
    What `build_results` made.

  Raises:
    UsageError: if there are none, or the file is not what it must be.
  """
  path = pathlib.Path(path)
  where = where or str(path)
  file = path / "results.json"
  try:
    results = json.loads(file.read_text(encoding="utf-8"))
    validate(results)
  except FileNotFoundError:
    what = "must be a finished run, but has no results.json"
    if not path.exists():
      what = "must be the directory of a finished run, but does not exist"
    raise errors.UsageError(f"{where} {what}") from None
  except (OSError, ValueError) as error:
    raise errors.UsageError(
      f"{where}/{file.name} must hold the results of a run, but: {error}"
    ) from error
  return results


def _check_splits(name: str, splits: Mapping[str, Any]) -> None:
  if not _SPLITS.issuperset(splits):
    raise ValueError(f"{name} must be of {sorted(_SPLITS)}, got {[*splits]}")
  for split, values in splits.items():
    if not isinstance(values, Mapping):
      raise ValueError(f"{name}.{split} must be an object, got {values!r}")
    _check_numbers(f"{name}.{split}.", values)


def _check_numbers(
  where: str, values: Mapping[str, Any], optional: bool = False
) -> None:
  for name, value in values.items():
    if value is None and optional:
      continue
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
      raise ValueError(f"{where}{name} must be a finite number, got {value!r}")
