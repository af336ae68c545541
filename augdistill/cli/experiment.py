"""One run from its configuration to its results: the wiring, no algorithm.

`finetune` is a run without a teacher; `distill` is one with it. The parts are
made in order: data, networks, step, state, hooks; then the loop; then the
final scores.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from augdistill import prng
from augdistill.checkpoints.store import Store
from augdistill.cli import config as configs
from augdistill.cli import preemption
from augdistill.cli.config import RunConfig, Served
from augdistill.cli.trained import Trained
from augdistill.data.batches import eval_batches, train_batches
from augdistill.data.dataset import Examples, concat
from augdistill.data.load import Data, load_data
from augdistill.errors import UsageError
from augdistill.evaluation import metrics as scores
from augdistill.evaluation.predict import agreement, predict
from augdistill.evaluation.predictions import write_predictions
from augdistill.models.enct5 import enct5
from augdistill.reports.progress import Progress
from augdistill.reports.provenance import provenance
from augdistill.reports.results import build_results
from augdistill.reports.run_directory import RunDirectory
from augdistill.training import loop, mesh
from augdistill.training.methods import build_method
from augdistill.training.step import TrainState, train_step
from augdistill.types import Batch, Lexicon, Method, Network, Params


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The made parts of a run."""

  config: RunConfig
  data: Data
  train: Examples
  served: Served
  method: Method
  student: Network
  teacher: Trained | None
  mesh: jax.sharding.Mesh


def run_experiment(
  config: RunConfig, text: str, run: RunDirectory, argv: list[str]
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
  run.claim(text, ["augdistill", *argv])
  if (finished := run.results()) is not None:
    print(f"{run.path} is finished already")
    return finished
  experiment = prepare(config)
  _describe(experiment, run)
  best = _metric(experiment.data)
  with Store(
    run.checkpoints,
    keep=config.keep_checkpoints,
    best_metric=best,
    higher=best is None or scores.higher_is_better(best),
  ) as store:
    seconds = _train(experiment, run, store)
    store.wait()
    step = store.best_step() or store.latest_step()
    params = store.restore_params(step)
  return _report(experiment, run, params, step, seconds)


def prepare(config: RunConfig) -> Experiment:
  """Loads teacher and data, and makes network and method."""
  teacher = Trained.load(config.teacher) if config.teacher else None
  data_config = config.data
  if teacher:
    if data_config.vocab:
      raise UsageError(
        "the student reads its teacher's vocabulary; leave --vocab out"
      )
    data_config = dataclasses.replace(
      data_config,
      vocab=teacher.vocab_path,
      label_names=teacher.served.task.label_names,
      task_kind=data_config.task_kind or str(teacher.served.task.kind),
    )
  data = load_data(data_config)
  for note in data.notes:
    print(note)
  if data.train is None and data.unlabeled is None:
    raise UsageError("training needs texts: --task, --train or --unlabeled")
  method = build_method(config.method, data.task.kind, config.recipes)
  if method.needs_teacher and teacher is None:
    raise UsageError(
      f"the method {config.method!r} needs a teacher: give --teacher DIR, a "
      "finished run, or --teacher_model NAME to fine-tune one first"
    )
  if data.unlabeled is not None and not method.needs_teacher:
    raise UsageError(
      f"--unlabeled needs a method with a teacher, got {config.method!r}"
    )
  train = data.train
  if data.unlabeled is not None:
    train = data.unlabeled if train is None else concat(train, data.unlabeled)
  shape = config.model(
    vocab_size=data.vocab.size, num_outputs=data.task.num_outputs
  )
  device_mesh = mesh.make_mesh(config.model_parallel)
  if config.batch_size % (
    device_mesh.shape["data"] * config.num_microbatches
  ):
    raise UsageError(
      f"the batch size must be a multiple of {config.num_microbatches} "
      f"microbatches x {device_mesh.shape['data']} devices, got "
      f"{config.batch_size}"
    )
  return Experiment(
    config=config,
    data=data,
    train=train,
    served=Served(shape, data.task, config.data.max_length),
    method=method,
    student=enct5(shape),
    teacher=teacher,
    mesh=device_mesh,
  )


def _describe(experiment: Experiment, run: RunDirectory) -> None:
  """Writes what is known before the first step."""
  data = experiment.data
  data.vocab.save(run.vocab)
  run.write_student(configs.served_text(experiment.served))
  fingerprints = {
    name: examples.fingerprint
    for name in ("train", "validation", "test", "unlabeled")
    if (examples := getattr(data, name)) is not None
  }
  run.write_provenance(
    provenance(
      experiment.config.seed, fingerprints, data.task.label_names, run.argv
    )
  )


def initial_state(experiment: Experiment) -> TrainState:
  """Step 0, laid out on the mesh."""
  config, student = experiment.config, experiment.student
  optimizer = config.optimizer
  shardings = mesh.param_shardings(student, experiment.mesh)

  def init(key):
    params = jax.lax.with_sharding_constraint(student.init(key), shardings)
    return TrainState(jnp.int32(0), params, optimizer.init(params))

  key = prng.stream(prng.run_key(config.seed), "init")
  return jax.jit(init)(jax.device_put(key, mesh.replicated(experiment.mesh)))


def make_step(
  experiment: Experiment,
) -> Callable[[TrainState, Batch], tuple]:
  """The compiled step: (state, batch of NumPy arrays) -> (state, metrics)."""
  config, device_mesh = experiment.config, experiment.mesh
  whole = mesh.replicated(device_mesh)
  teacher = experiment.teacher if experiment.method.needs_teacher else None
  teacher_params = None
  if teacher:
    teacher_params = jax.device_put(
      teacher.params, mesh.param_shardings(teacher.network, device_mesh)
    )
  lexicon = jax.device_put(
    Lexicon(experiment.data.vocab.producible, experiment.data.vocab.protected),
    whole,
  )
  key = jax.device_put(prng.run_key(config.seed), whole)
  compiled = jax.jit(
    functools.partial(
      train_step,
      optimizer=config.optimizer,
      student=experiment.student,
      teacher=teacher.network if teacher else None,
      method=experiment.method,
      teacher_dropout=config.teacher_dropout,
      num_microbatches=config.num_microbatches,
    ),
    donate_argnums=0,
  )

  def step(state, batch):
    placed = mesh.place_batch(batch, device_mesh)
    return compiled(state, teacher_params, lexicon, placed, key)

  return step


def score(
  experiment: Experiment, network: Network, params: Params, examples: Examples
) -> tuple[np.ndarray, dict[str, float]]:
  """A network's logits and metrics on a split."""
  size = mesh.round_up_rows(
    experiment.config.eval_batch_size, experiment.mesh
  )
  logits = predict(
    network,
    params,
    eval_batches(examples, size),
    functools.partial(mesh.place_batch, mesh=experiment.mesh),
  )
  task = experiment.data.task
  return logits, scores.compute(
    task, logits, examples.label, examples.has_label
  )


def _metric(data: Data) -> str | None:
  """The metric that chooses the best checkpoint, if anything can."""
  return data.task.metrics[0] if data.validation is not None else None


def _train(experiment: Experiment, run: RunDirectory, store: Store) -> float:
  """The loop with its hooks; returns the seconds spent in steps."""
  config, validation = experiment.config, experiment.data.validation
  state = initial_state(experiment)
  if store.latest_step() is not None:
    state = store.restore(state)
    print(f"resuming {run.path} at step {int(state.step)}")
  start = int(state.step)
  clock = Stopwatch(run.train_seconds(before=start))
  if start >= config.num_steps:
    return clock.seconds()
  period = config.eval_period or -(-config.num_steps // 10)

  with (
    run.metrics_writer(start) as writer,
    Progress(start, config.num_steps, config.method) as progress,
    preemption.watch() as asked_to_stop,
  ):

    def report(step, means):
      writer.write(step, means | {"train_seconds": clock.seconds()})
      progress.update(step, means["loss"])

    def evaluate_and_save(step, state, metrics):
      del metrics
      with clock.paused():
        jax.block_until_ready(state)
        values = None
        if validation is not None:
          _, values = score(
            experiment, experiment.student, state.params, validation
          )
          writer.write(step, {f"validation/{k}": v for k, v in values.items()})
          progress.note(step, values)
        store.save(step, state, values)

    loop.train(
      state,
      clock.after_first(make_step(experiment)),
      train_batches(experiment.train, config.batch_size, config.seed),
      config.num_steps,
      [
        # First, so that a state with a NaN loss is never saved.
        loop.average_metrics(
          report, _common(config.log_period, period), config.num_steps
        ),
        loop.every(period, config.num_steps, evaluate_and_save),
        loop.stop_when(asked_to_stop, evaluate_and_save),
      ],
    )
    return clock.seconds()


def _common(log_period: int, eval_period: int) -> int:
  """The largest divisor of `eval_period` that is at most `log_period`."""
  return next(
    p for p in range(min(log_period, eval_period), 0, -1) if eval_period % p == 0
  )


def _report(
  experiment: Experiment,
  run: RunDirectory,
  params: Params,
  step: int,
  seconds: float,
) -> dict[str, Any]:
  """Final scores, predictions and results.json."""
  config, data, teacher = experiment.config, experiment.data, experiment.teacher
  metrics, teacher_metrics, agreed = {}, {}, None
  for split in ("validation", "test"):
    examples = getattr(data, split)
    if examples is None:
      continue
    logits, metrics[split] = score(
      experiment, experiment.student, params, examples
    )
    answers = None
    if teacher:
      answers, teacher_metrics[split] = score(
        experiment, teacher.network, teacher.params, examples
      )
      agreed = agreement(logits, answers, data.task)
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
  run.write_results(results)
  return results


def count(params: Params) -> int:
  """How many numbers a tree of parameters holds."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


class Stopwatch:
  """Seconds spent in steps: neither compiling nor evaluating nor saving.

  The first step of a process compiles; it is counted as long as an average
  later one.
  """

  def __init__(self, before: float):
    self._before, self._start, self._idle, self._steps = before, None, 0.0, 0

  def after_first(self, step_fn):
    """`step_fn`, with the clock started when its first call is complete."""

    def timed(state, batch):
      result = step_fn(state, batch)
      self._steps += 1
      if self._start is None:
        jax.block_until_ready(result)
        self._start = time.perf_counter()
      return result

    return timed

  def seconds(self) -> float:
    """Seconds so far, with those of earlier processes."""
    if self._start is None:
      return self._before
    running = time.perf_counter() - self._start - self._idle
    first = running / (self._steps - 1) if self._steps > 1 else 0.0
    return self._before + running + first

  def paused(self):
    """A context whose time does not count."""
    return _Pause(self)


class _Pause:
  def __init__(self, clock):
    self._clock = clock

  def __enter__(self):
    self._from = time.perf_counter()

  def __exit__(self, *_):
    self._clock._idle += time.perf_counter() - self._from
