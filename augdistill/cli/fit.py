"""The training of a run: its first state, its step, its loop and the hooks."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from augdistill import prng
from augdistill.checkpoints.store import Store
from augdistill.cli import preemption
from augdistill.cli.parts import Experiment
from augdistill.cli.placing import param_shardings, place_params
from augdistill.cli.sampling import make_sampler
from augdistill.cli.scoring import score
from augdistill.cli.stopwatch import Stopwatch
from augdistill.data.batches import train_batches
from augdistill.errors import RunError
from augdistill.reports.metrics_file import MetricsWriter
from augdistill.reports.progress import Progress
from augdistill.reports.run_directory import RunDirectory
from augdistill.training import freed_memory, loop, mesh
from augdistill.training.step import TrainState, jitted_step
from augdistill.types import Batch, MaskedLM, Network, Params


@dataclasses.dataclass(frozen=True)
class Training:
  """What the loop does; it knows neither methods nor models.

  Attributes:
    name: stands beside the progress.
    num_steps: steps of the whole run.
    eval_period: steps between evaluations, each with a checkpoint; by default
      about a tenth of the run.
    log_period: steps between lines of metrics.
    initial_state: makes the state of step 0.
    make_step: makes (step, state, NumPy batch) -> (state, metrics).
    batch_at: the batch of a step.
    score: parameters -> metrics on validation rows; None without such rows.
    sample: (step, parameters) -> augmented texts to look at, as of
      `sampling.rows_of`; None without any.
  """

  name: str
  num_steps: int
  eval_period: int | None
  log_period: int
  initial_state: Callable[[], TrainState]
  make_step: Callable[[], Callable[[int, TrainState, Batch], tuple]]
  batch_at: Callable[[int], Batch]
  score: Callable[[Params], dict[str, float]] | None
  sample: Callable[[int, Params], list[dict[str, Any]]] | None = None


def fit(what: Training, run: RunDirectory, store: Store, began: float) -> float:
  """Takes all steps, from the newest checkpoint on.

  Args:
    what: the run's steps.
    run: its directory, for metrics.
    store: its checkpoints.
    began: when it was asked for, by `time.perf_counter`.

  Returns:
    The seconds spent in steps, over all starts.

  Raises:
    RunError: if a loss or a parameter is not finite, or what must be kept
      cannot be written.
    Preempted: if the process was asked to stop; the state is saved.
  """
  state = what.initial_state()
  if store.latest_step() is not None:
    state = store.restore(state)
    print(f"resuming {run.where} at step {int(state.step)}")
  start = int(state.step)
  clock = Stopwatch(run.train_seconds(before=start), began)
  if start >= what.num_steps:
    return clock.seconds()
  with (
    run.metrics_writer(start) as writer,
    Progress(start, what.num_steps, what.name) as progress,
    preemption.watch(start) as asked_to_stop,
  ):

    def after_first(step, state, metrics):
      del state, metrics
      if step == start + 1:
        freed_memory.keep()
        progress.first(step, clock.startup_seconds, clock.startup_compiling)

    def report(step, means):
      writer.write(step, means)
      progress.update(step, means["loss"])

    def keep(step, state, values=None):
      # Where a run goes on from must be what it reported up to there.
      run.push()
      store.save(step, state, values)

    save, score_and_save = _savers(what.score, keep, writer, progress, clock)
    period = what.eval_period or -(-what.num_steps // 10)
    loop.train(
      state,
      clock.timed(what.make_step()),
      what.batch_at,
      what.num_steps,
      [
        after_first,
        loop.average_metrics(report, what.log_period, what.num_steps),
        loop.every(period, what.num_steps, _shower(what.sample, writer, clock)),
        loop.every(period, what.num_steps, score_and_save),
        loop.stop_when(asked_to_stop, save),
      ],
    )
    return clock.seconds()


def _savers(
  score: Callable[[Params], dict[str, float]] | None,
  keep: Callable[..., None],
  writer: MetricsWriter,
  progress: Progress,
  clock: Stopwatch,
) -> tuple[loop.Hook, loop.Hook]:
  """Two hooks: one saves, and one also scores and may find the best.

  A run that was stopped is not scored where it was stopped, or its best
  checkpoint could be another one than that of a run which was not.
  """

  def check(step, state):
    if not _all_finite(state.params):
      raise RunError(
        f"the parameters must stay finite, and are not at step {step}; the "
        "last checkpoint is intact. Try a smaller --learning_rate"
      )

  def save(step, state, metrics):
    del metrics
    check(step, state)
    writer.write(step, _seconds(clock))
    keep(step, state)

  def score_and_save(step, state, metrics):
    if score is None:
      return save(step, state, metrics)
    check(step, state)
    seconds = _seconds(clock)
    with clock.paused():
      values = score(state.params)
      named = {f"validation/{name}": value for name, value in values.items()}
      writer.write(step, named | seconds)
      first = next(iter(values))
      progress.note(step, {f"validation {first}": values[first]})
      keep(step, state, values)
    return None

  return save, score_and_save


def _seconds(clock: Stopwatch) -> dict[str, float]:
  """Of all starts in steps, and of this one up to its first step."""
  return {
    "train_seconds": clock.seconds(),
    "startup_seconds": clock.startup_seconds,
  }


def _shower(
  sample: Callable[[int, Params], list[dict[str, Any]]] | None,
  writer: MetricsWriter,
  clock: Stopwatch,
) -> loop.Hook:
  """A hook that writes down what the views look like."""

  def show(step, state, metrics):
    del metrics
    if sample is not None:
      with clock.paused():
        writer.write_samples(step, sample(step, state.params))

  return show


@jax.jit
def _all_finite(params: Params) -> jax.Array:
  leaves = jax.tree.leaves(params)
  return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def initial_state(
  model: Network | MaskedLM,
  optimizer: optax.GradientTransformation,
  seed: int,
  devices: jax.sharding.Mesh,
) -> TrainState:
  """Step 0, laid out on the mesh."""
  shardings = param_shardings(model, devices)

  def init(key):
    params = jax.lax.with_sharding_constraint(model.init(key), shardings)
    return TrainState(jnp.int32(0), params, optimizer.init(params))

  key = prng.stream(prng.run_key(seed), "init")
  return jax.jit(init)(mesh.place(key, mesh.replicated(devices)))


def training(experiment: Experiment) -> Training:
  """What the loop does for a method."""
  config, validation = experiment.config, experiment.data.validation

  def score_validation(params):
    return score(experiment, experiment.student, params, validation)[1]

  rows = experiment.train
  batches = functools.partial(
    train_batches,
    rows,
    config.batch_size,
    config.seed,
    rewrites=experiment.rewrites,
    teacher=experiment.for_teacher(rows) if experiment.apart else None,
    answers=experiment.answers,
  )
  return Training(
    name=config.method,
    num_steps=config.num_steps,
    eval_period=config.eval_period,
    log_period=config.log_period,
    initial_state=lambda: first_state(experiment),
    make_step=lambda: make_step(experiment),
    batch_at=batches(host=mesh.shares_here(experiment.mesh)),
    score=None if validation is None else score_validation,
    sample=make_sampler(experiment, batches()(0)),
  )


def first_state(experiment: Experiment) -> TrainState:
  """Step 0 of a method's run."""
  config, devices = experiment.config, experiment.mesh
  student = experiment.student
  state = initial_state(student, config.optimizer, config.seed, devices)
  # No optimizer's first state depends on the parameters' values. Every step
  # gives its state away, so it must not share arrays with a teacher.
  params = jax.tree.map(
    lambda own, first: own if first is own else jnp.copy(first),
    state.params,
    experiment.begin(state.params),
  )
  params = place_params(student, params, devices)
  return state._replace(params=params)


@dataclasses.dataclass(frozen=True)
class Step:
  """The step: (its number, state, NumPy batch) -> (state, metrics).

  Each method of the policy is compiled when it is first chosen.

  Attributes:
    compiled: the jitted step of each method.
    choose: step's number -> which of them.
    arguments: (state, NumPy batch) -> what they are called with.
  """

  compiled: Sequence[Any]
  choose: Callable[[int], int]
  arguments: Callable[[TrainState, Batch], tuple]

  def __call__(self, number: int, state: Any, batch: Batch) -> tuple:
    return self.compiled[self.choose(number)](*self.arguments(state, batch))


def make_step(experiment: Experiment) -> Step:
  """The step of a method's run."""
  config, devices = experiment.config, experiment.mesh
  policy, whole = experiment.policy, mesh.replicated(devices)
  teacher = experiment.teacher if policy.needs_teacher else None
  teacher_params = experiment.teacher_params if teacher else None
  lexicon = experiment.lexicon
  key = mesh.place(prng.run_key(config.seed), whole)
  compiled = [
    jitted_step(
      optimizer=config.optimizer,
      student=experiment.student,
      teacher=teacher.network if teacher else None,
      method=method,
      teacher_dropout=config.teacher_dropout,
      num_microbatches=config.num_microbatches,
    )
    for method in policy.methods
  ]

  def arguments(state, batch):
    placed = mesh.place_batch(batch, devices)
    return state, teacher_params, lexicon, placed, key

  return Step(
    compiled, functools.partial(policy.choose, config.seed), arguments
  )
