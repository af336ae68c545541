"""One run from its configuration to its results: the wiring, no algorithm.

`finetune` is a run without a teacher; `distill` is one with it; `pretrain` is
a job of its own. The parts are made first, and only then is the directory
claimed: a start that fails leaves it as it was. Then come the steps, then the
final scores.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from augdistill.checkpoints.store import Store
from augdistill.cli import answering, fit, scoring
from augdistill.cli.called import Call
from augdistill.cli.config import RunConfig
from augdistill.cli.parts import Experiment, prepare
from augdistill.data.load import Data
from augdistill.data.vocabulary import Vocab
from augdistill.errors import UsageError
from augdistill.evaluation.metrics import higher_is_better
from augdistill.reports.provenance import provenance
from augdistill.reports.run_directory import RunDirectory
from augdistill.reports.student_gin import served_text
from augdistill.training import processes
from augdistill.types import Params


@dataclasses.dataclass(frozen=True)
class Job:
  """A run with all its parts made, as its directory sees it.

  Attributes:
    training: what the loop does.
    seed: the run's.
    keep: how many of the newest checkpoints are kept.
    best: the validation metric that chooses the checkpoint; None for the last.
    vocab: what tokens mean.
    fingerprints: of the data, by split.
    label_names: the name of each output.
    served: the text of student.gin.
    report: (directory, parameters, their step, seconds) -> results, which it
      writes.
  """

  training: fit.Training
  seed: int
  keep: int
  best: str | None
  vocab: Vocab
  fingerprints: Mapping[str, str]
  label_names: tuple[str, ...]
  served: str
  report: Callable[[RunDirectory, Params, int, float], dict[str, Any]]


def run_experiment(
  config: RunConfig,
  text: str,
  run: RunDirectory,
  call: Call,
  before: Callable[[Experiment], None] | None = None,
) -> dict[str, Any]:
  """`run_job`, for the job of a `RunConfig`; arguments as there.

  `before` looks at the experiment, and may refuse it, before a new run claims
  its directory.
  """

  def make():
    experiment = prepare(config)
    for note in experiment.data.notes:
      print(note)
    if before and not Store(run.checkpoints).steps():
      before(experiment)
    return _job(answering.with_answers(experiment))

  return run_job(make, text, run, call)


def run_job(
  make: Callable[[], Job], text: str, run: RunDirectory, call: Call
) -> dict[str, Any]:
  """Runs, or resumes, a job.

  Args:
    make: makes its parts, and writes nothing but the data cache.
    text: its configuration as gin text, which says whose directory it is.
    run: where it goes.
    call: the command, to be written down.

  Returns:
    What came out, as in `results.json`.

  Raises:
    UsageError: for wrong data or a directory of another run.
    RunError: if the loss turns NaN.
    Preempted: if the process was asked to stop; the state is saved.
  """
  if not processes.is_first():
    run = run.read_only()
  finished = check_directory(run, text)
  processes.wait_for_all("the directory is looked at")
  if finished is not None:
    print(f"{run.where} is finished already")
    return finished
  job = make()
  _claim(job, text, run, call.argv)
  with Store(
    run.checkpoints,
    keep=job.keep,
    best_metric=job.best,
    higher=job.best is None or higher_is_better(job.best),
  ) as store:
    fresh = not store.steps()
    try:
      seconds = fit.fit(job.training, run, store, call.began)
    except BaseException:
      store.wait()
      if fresh and not store.steps():  # Nothing that could be lost is there.
        run.release()
      raise
    store.wait()
    step = store.best_step() or store.latest_step()
    params = store.restore_params(step)
  results = job.report(run, params, step, seconds)
  processes.wait_for_all("the results are written")
  return results


def _job(experiment: Experiment) -> Job:
  data, config = experiment.data, experiment.config
  prints = fingerprints(data)
  if experiment.rewrites is not None:
    prints["rewrites"] = experiment.rewrites.fingerprint
  return Job(
    training=fit.training(experiment),
    seed=config.seed,
    keep=config.keep_checkpoints,
    best=data.task.metrics[0] if data.validation is not None else None,
    vocab=data.vocab,
    fingerprints=prints,
    label_names=data.task.label_names,
    served=served_text(experiment.served),
    report=functools.partial(scoring.report, experiment),
  )


def fingerprints(data: Data) -> dict[str, str]:
  """What a run's rows are, by split."""
  return {
    split: examples.fingerprint
    for split in ("train", "validation", "test", "unlabeled")
    if (examples := getattr(data, split)) is not None
  }


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
      f"{run.where} holds a run, but no config.gin that says which; choose "
      "another --output_dir"
    )
  return None


def _claim(job: Job, text: str, run: RunDirectory, argv: Sequence[str]) -> None:
  """Makes the directory this run's, and writes what is known before it."""
  if Store(run.checkpoints).steps():
    _check_same_data(run, job.fingerprints)
  run.claim(text, ["augdistill", *argv])
  if run.writes:
    job.vocab.save(run.vocab)
  run.write_student(job.served)
  run.write_provenance(
    provenance(job.seed, job.fingerprints, job.label_names, run.argv)
  )


def _check_same_data(run: RunDirectory, now: Mapping[str, str]) -> None:
  """A run that goes on must go on with the data that it began with."""
  try:
    text = (run.path / "provenance.json").read_text(encoding="utf-8")
    before = json.loads(text)["data_fingerprints"]
  except (OSError, ValueError, KeyError):
    return
  changed = [k for k in before if before[k] != now.get(k)]
  if changed:
    raise UsageError(
      f"{run.where} holds a run of other data: its {', '.join(changed)} rows "
      "have changed since; restore them, or choose another --output_dir"
    )
