"""What a run's model is worth: scores, predictions and results.json."""

import functools
from typing import Any

import numpy as np

from augdistill.cli.parts import Experiment
from augdistill.cli.placing import place_params
from augdistill.cli.trained import count
from augdistill.data.dataset import Examples
from augdistill.evaluation.metrics import compute
from augdistill.evaluation.predict import agreement, predict_split
from augdistill.evaluation.predictions import write_predictions
from augdistill.models.networks import network
from augdistill.models.projected import without_projections
from augdistill.reports.model_card import model_card
from augdistill.reports.provenance import versions
from augdistill.reports.results import build_results
from augdistill.reports.run_directory import RunDirectory
from augdistill.training import mesh
from augdistill.types import Network, Params


def score(
  experiment: Experiment, network: Network, params: Params, examples: Examples
) -> tuple[np.ndarray, dict[str, float]]:
  """A network's logits and metrics on a split; its parameters are placed."""
  devices = experiment.mesh
  size = mesh.round_up_rows(experiment.config.eval_batch_size, devices)
  logits = predict_split(
    network,
    params,
    examples,
    size,
    host=mesh.shares_here(devices),
    place=functools.partial(mesh.place_batch, mesh=devices),
  )
  task = experiment.data.task
  return logits, compute(task, logits, examples.label, examples.has_label)


def report(
  experiment: Experiment,
  run: RunDirectory,
  params: Params,
  step: int,
  seconds: float,
) -> dict[str, Any]:
  """Writes predictions and, last of all, results.json.

  Args:
    experiment: the run's parts.
    run: its directory.
    params: the student's, at `step`.
    step: the step with the best validation score, or the last one.
    seconds: spent in steps.

  Returns:
    What results.json holds.
  """
  config, data, teacher = experiment.config, experiment.data, experiment.teacher
  params = without_projections(params)  # As it is served.
  student = network(experiment.served.model)
  placed = place_params(student, params, experiment.mesh)
  metrics, teacher_metrics, agreed = {}, {}, None
  for split in ("validation", "test"):
    examples = getattr(data, split)
    if examples is None:
      continue
    logits, metrics[split] = score(experiment, student, placed, examples)
    answers = None
    if teacher:
      its = experiment.for_teacher(examples)
      answers, teacher_metrics[split] = score(
        experiment, teacher.network, experiment.teacher_params, its
      )
      agreed = agreement(logits, answers, data.task)
    if run.writes:
      write_predictions(
        run.predictions(split), data.task, examples, logits, answers
      )
  results = build_results(
    method=config.method,
    task=data.task.name,
    seed=config.seed,
    metrics=metrics,
    teacher_metrics=teacher_metrics,
    agreement=agreed,
    num_params={
      "student": count(params),
      "teacher": count(teacher.params) if teacher else None,
    },
    num_steps=config.num_steps,
    best_step=step,
    train_seconds=seconds,
    batch_size=config.batch_size,
  )
  rows = {"training": experiment.train}
  rows |= {s: getattr(data, s) for s in ("validation", "test")}
  run.write_card(
    model_card(
      results,
      rows={s: len(examples) for s, examples in rows.items() if examples},
      label_names=data.task.label_names,
      max_length=config.data.max_length,
      teacher=config.teacher if teacher else None,
      argv=run.argv,
      versions=versions(),
    )
  )
  run.write_results(results)
  return results
