"""Planted runs: directories with what finished runs leave in them."""

import numpy as np

from augdistill.evaluation.predictions import write_predictions
from augdistill.reports.grid_results import Cell
from augdistill.reports.results import build_results
from augdistill.reports.run_directory import RunDirectory
from augdistill.types import Task, TaskKind

ROWS = 300
CLASSES = Task("t", TaskKind.CLASSES, ("a", "b|c", "d"), ("accuracy",))
VALUES = Task("v", TaskKind.REGRESSION, (), ("mse",))
NAMES = Task("n", TaskKind.MULTI_LABEL, ("x", "y"), ("micro_f1",))


class Rows:
  """Labelled rows; one has no label."""

  def __init__(self, task, count=ROWS):
    rng = np.random.default_rng(0)
    self.texts = [(f"text | {i}",) for i in range(count)]
    if task.kind == TaskKind.CLASSES:
      self.label = np.eye(3, dtype=np.float32)[rng.integers(0, 3, count)]
    elif task.kind == TaskKind.MULTI_LABEL:
      self.label = rng.integers(0, 2, (count, 2)).astype(np.float32)
    else:
      self.label = rng.normal(size=(count, 1)).astype(np.float32)
    self.has_label = np.arange(count) > 0
    self.example_id = np.arange(count, dtype=np.int32)


def logits_of(task, rows, noise, seed):
  rng = np.random.default_rng(seed)
  scale = 1.0 if task.kind == TaskKind.REGRESSION else 2.0
  centred = rows.label - (0.5 if task.kind == TaskKind.MULTI_LABEL else 0)
  return scale * centred + rng.normal(0, noise, rows.label.shape)


def finished(path, task, noise, seed, value=0.5, seconds=10.0, rows=None):
  """A run's directory with predictions and results."""
  rows = rows or Rows(task)
  run = RunDirectory(path)
  logits = logits_of(task, rows, noise, seed)
  write_predictions(run.predictions("test"), task, rows, logits)
  metrics = {
    split: {task.metrics[0]: value} for split in ("validation", "test")
  }
  run.write_results(
    build_results(
      method="m",
      task=task.name,
      seed=seed,
      metrics=metrics,
      teacher_metrics={"test": {task.metrics[0]: 0.9}},
      agreement=0.8,
      num_params={"student": 5, "teacher": 9},
      num_steps=1000,
      best_step=900,
      train_seconds=seconds,
      batch_size=8,
    )
  )
  return str(path)


def grid(folder, task, methods, seeds=(0, 1, 2), sizes=(None,)):
  """Cells of finished runs: method -> (noise, value, seconds)."""
  cells = []
  for size in sizes:
    for seed in seeds:
      for method, (noise, value, seconds) in methods.items():
        path = folder / f"{method}_{size}_{seed}"
        finished(path, task, noise, seed, value + seed / 100, seconds)
        cells.append(Cell(method, size, seed, str(path), None, f"run {method}"))
  return cells
