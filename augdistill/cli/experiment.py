"""One run from its configuration to its results: the wiring, no algorithm.

`finetune` is a run without a teacher; `distill` is one with it. The parts are
made first, and only then is the directory claimed: a start that fails leaves
it as it was. Then come the steps, then the final scores.
"""

import json
from collections.abc import Sequence
from typing import Any

from augdistill.checkpoints.store import Store
from augdistill.cli import fit, preemption, scoring, served
from augdistill.cli.config import RunConfig
from augdistill.cli.parts import Experiment, prepare
from augdistill.errors import UsageError
from augdistill.evaluation.metrics import higher_is_better
from augdistill.reports.provenance import provenance
from augdistill.reports.run_directory import RunDirectory


def run_experiment(
  config: RunConfig, text: str, run: RunDirectory, argv: Sequence[str]
) -> dict[str, Any]:
  """Runs, or resumes, an experiment.

  Args:
    config: the run.
    text: its configuration as gin text, which says whose directory it is.
    run: where it goes.
    argv: the command, to be written down.

  Returns:
    What came out, as in `results.json`.

  Raises:
    UsageError: for wrong data or a directory of another run.
    RunError: if the loss turns NaN.
    Preempted: if the process was asked to stop; the state is saved.
  """
  with preemption.exit_at_once():
    if (finished := check_directory(run, text)) is not None:
      print(f"{run.path} is finished already")
      return finished
    experiment = prepare(config)
    _claim(experiment, text, run, argv)
    best = experiment.data.task.metrics[0]
    with Store(
      run.checkpoints,
      keep=config.keep_checkpoints,
      best_metric=best if experiment.data.validation is not None else None,
      higher=higher_is_better(best),
    ) as store:
      fresh = not store.steps()
      try:
        seconds = fit.fit(experiment, run, store)
      except BaseException:
        store.wait()
        if fresh and not store.steps():  # Nothing that could be lost is there.
          run.config_gin.unlink()
        raise
      store.wait()
      step = store.best_step() or store.latest_step()
      params = store.restore_params(step)
    return scoring.report(experiment, run, params, step, seconds)


def check_directory(run: RunDirectory, text: str) -> dict[str, Any] | None:
  """Looks whether a run may use its directory, and changes nothing.

  Args:
    run: the directory.
    text: the run's configuration.

  Returns:
    The results, if it is finished already.

  Raises:
    UsageError: if it is of a run of another configuration.
  """
  if run.check(text):
    return run.results()
  if run.results() is not None or Store(run.checkpoints).steps():
    raise UsageError(
      f"{run.path} holds a run, but no config.gin that says which; choose "
      "another --output_dir"
    )
  return None


def _claim(
  experiment: Experiment, text: str, run: RunDirectory, argv: Sequence[str]
) -> None:
  """Makes the directory this run's, and writes what is known before it."""
  data = experiment.data
  fingerprints = {
    split: examples.fingerprint
    for split in ("train", "validation", "test", "unlabeled")
    if (examples := getattr(data, split)) is not None
  }
  if Store(run.checkpoints).steps():
    _check_same_data(run, fingerprints)
  run.claim(text, ["augdistill", *argv])
  data.vocab.save(run.vocab)
  run.write_student(served.served_text(experiment.served))
  run.write_provenance(
    provenance(
      experiment.config.seed, fingerprints, data.task.label_names, run.argv
    )
  )


def _check_same_data(run: RunDirectory, fingerprints: dict[str, str]) -> None:
  """A run that goes on must go on with the data that it began with."""
  try:
    text = (run.path / "provenance.json").read_text(encoding="utf-8")
    before = json.loads(text)["data_fingerprints"]
  except (OSError, ValueError, KeyError):
    return
  changed = [k for k in before if before[k] != fingerprints.get(k)]
  if changed:
    raise UsageError(
      f"{run.path} holds a run of other data: its {', '.join(changed)} rows "
      "have changed since; restore them, or choose another --output_dir"
    )
