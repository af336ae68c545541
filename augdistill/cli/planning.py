"""What a run will take, from its configuration alone."""

import contextlib
import dataclasses
import importlib.util
import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from augdistill.cli import parts
from augdistill.cli.adopted import is_foreign
from augdistill.cli.config import RunConfig
from augdistill.cli.placing import check_shares
from augdistill.cli.served import load_served
from augdistill.cli.trained import Trained, open_finished
from augdistill.data.load import load_data
from augdistill.data.vocabulary import find_vocab, load_vocab
from augdistill.errors import UsageError, suggest
from augdistill.models.networks import ModelConfig, network
from augdistill.models.sizes import enct5_config
from augdistill.training import abstract, forecast, mesh
from augdistill.training.abstract import Arguments, Job, Peak
from augdistill.training.chips import CHIPS, grid_of
from augdistill.training.flops import Costs, mean_of
from augdistill.training.policies import Policy, build_policy
from augdistill.types import TaskKind

T5_VOCAB_SIZE = 32128  # Rows of T5 1.1's table of embeddings.
_REWRITES = 4  # Of each row, where a method reads some; they are but tokens.
# Of whose steps it is seen how often each method of a policy comes.
_SEEN_STEPS = 100
# libtpu compiles here and looks for no TPU: one that runs is left alone.
_ALOOF = {
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_ACCELERATOR_TYPE": "v5e-8",  # Any will do.
  "TPU_WORKER_HOSTNAMES": "localhost",
}


class Models(NamedTuple):
  """What learns from what.

  Attributes:
    student: its shape.
    teacher: its shape, or None.
    kind: of the task.
    apart: whether the teacher reads with a vocabulary of its own.
  """

  student: ModelConfig
  teacher: ModelConfig | None
  kind: TaskKind
  apart: bool


class Asked(NamedTuple):
  """What the flags ask beside the configuration.

  Attributes:
    kind: of the devices, a key of `CHIPS`.
    devices: how many.
    utilisation: the share of the published peaks that a step reaches.
    length: tokens of a row; None: the configuration's longest.
    vocab_size: V where there are neither data nor a teacher; None: T5's.
    num_outputs: C likewise; None: two, or one of a regression.
    teacher_model: the size of a teacher that is not there yet, or None.
    price_per_hour: of all devices together, or None.
    compiles: whether the step is compiled, too.
  """

  kind: str
  devices: int
  utilisation: float
  length: int | None = None
  vocab_size: int | None = None
  num_outputs: int | None = None
  teacher_model: str | None = None
  price_per_hour: float | None = None
  compiles: bool = True


def check(asked: Asked) -> None:
  """Raises UsageError for what no configuration makes right."""
  if asked.kind not in CHIPS:
    raise UsageError(
      f"--kind must be one of {', '.join(CHIPS)}, got {asked.kind!r}."
      + suggest(asked.kind, CHIPS)
    )
  for name in ("devices", "length", "vocab_size", "num_outputs"):
    value = getattr(asked, name)
    if value is not None and value < 1:
      raise UsageError(f"--{name} must be at least 1, got {value}")
  if not 0 < asked.utilisation <= 1:
    raise UsageError(
      f"--utilisation must be in (0, 1], got {asked.utilisation}"
    )
  if asked.price_per_hour is not None and asked.price_per_hour < 0:
    raise UsageError(
      f"--price_per_hour must be at least 0, got {asked.price_per_hour}"
    )


def models(config: RunConfig, asked: Asked) -> Models:
  """The shapes of student and teacher; no parameter is read.

  The vocabulary and the outputs are those of the data, else of the teacher,
  else as asked.

  Raises:
    UsageError: if models, data and flags do not fit each other.
  """
  teacher = _teacher(config.teacher) if config.teacher else None
  given, apart = config.data, False
  kind = TaskKind(given.task_kind or TaskKind.CLASSES)
  vocab_size, num_outputs = asked.vocab_size, asked.num_outputs
  if given.task or given.train or given.unlabeled:
    if vocab_size or num_outputs:
      raise UsageError(
        "--vocab_size and --num_outputs are those of the data: leave them out"
      )
    data = load_data(parts.as_read_by(teacher, given))
    vocab_size, kind = data.vocab.size, data.task.kind
    num_outputs = data.task.num_outputs
    apart = bool(teacher) and (
      teacher.vocab.fingerprint != data.vocab.fingerprint
    )
  elif teacher:
    kind = teacher.served.task.kind
    vocab_size = vocab_size or teacher.served.model.vocab_size
    num_outputs = num_outputs or teacher.served.model.num_outputs
    apart = vocab_size != teacher.served.model.vocab_size
  if given.vocab and not vocab_size:
    vocab_size = load_vocab(given.vocab).size
  shape = config.model(
    vocab_size=vocab_size or T5_VOCAB_SIZE,
    num_outputs=num_outputs or (1 if kind == TaskKind.REGRESSION else 2),
  )
  theirs = teacher.served.model if teacher else None
  if asked.teacher_model:
    # As if it was fine-tuned with the student's settings.
    theirs = enct5_config(
      asked.teacher_model,
      shape.vocab_size,
      shape.num_outputs,
      dropout_rate=shape.dropout_rate,
      dtype=shape.dtype,
    )
  if theirs and config.teacher_dtype:
    theirs = dataclasses.replace(theirs, dtype=config.teacher_dtype)
  return Models(shape, theirs, kind, apart)


def _teacher(path: str) -> Trained:
  """A teacher, without its parameters where it is a run of ours."""
  if is_foreign(path):
    return Trained.load(path)
  run, _ = open_finished(path, pretrained=False)
  served = load_served(str(run.student_gin))
  vocab_path, pair = find_vocab(run.vocab), served.task.pair
  return Trained(served, network(served.model), {}, vocab_path, pair)


def plan(config: RunConfig, asked: Asked) -> dict[str, Any]:
  """What a run takes: parameters, operations, memory, time and money.

  Args:
    config: the run.
    asked: the devices, and what is not in a configuration.

  Returns:
    What `screens.show_plan` prints, as JSON can hold it.

  Raises:
    UsageError: if anything does not fit.
  """
  check(asked)
  found, compiler = _devices(asked)  # Before JAX begins with fewer.
  its = models(config, asked)
  policy = build_policy(config.method, its.kind, config.recipes)
  if policy.needs_teacher and its.teacher is None:
    raise UsageError(
      f"the method {config.method!r} needs a teacher: give --teacher_model "
      "NAME, or --teacher DIR"
    )
  length = asked.length or config.data.max_length
  for shape in filter(None, (its.student, its.teacher)):
    parts.check_length(shape, length)
  devices = mesh.make_mesh(config.mesh, found)
  check_shares(
    config.batch_size, devices.shape["data"], config.num_microbatches
  )
  job = Job(
    student=parts.student_network(
      dataclasses.replace(its.student, remat=config.remat), policy, its.teacher
    ),
    teacher=network(its.teacher) if policy.needs_teacher else None,
    optimizer=config.optimizer,
    batch_size=config.batch_size,
    length=length,
    vocab_size=its.student.vocab_size,
    rewrites=_REWRITES if "rewrites" in config.method else 0,
    neighbours=policy.num_neighbours if policy.needs_teacher else 0,
    apart=its.apart,
    answered=config.teacher_cache is not None,
    teacher_dropout=config.teacher_dropout,
    num_microbatches=config.num_microbatches,
    shard_teacher=config.shard_teacher,
    teacher_dtype=config.teacher_dtype,
  )
  given, chip = abstract.arguments(job, devices), CHIPS[asked.kind]
  compiled_for = devices if asked.compiles else None
  costs, peak = _steps(job, policy, config.seed, given, compiled_for)
  return {
    "method": config.method,
    "num_steps": config.num_steps,
    "batch_size": config.batch_size,
    "length": length,
    "num_microbatches": config.num_microbatches,
    "student": _described(its.student, given.state.params),
    "teacher": _described(its.teacher, given.teacher_params)
    if job.teacher
    else None,
    "devices": {
      "kind": asked.kind,
      "count": asked.devices,
      "mesh": dict(devices.shape),
    },
    "flops_per_step": dict(costs.by_part.most_common()),
    "bytes_moved_per_step": costs.moved,
    "memory": forecast.memory(given, peak, chip, compiler),
    "time": forecast.time(
      *(costs, chip, asked.devices, asked.utilisation),
      *(config.num_steps, asked.price_per_hour),
    ),
  }


def _described(shape: ModelConfig, params: Any) -> dict[str, Any]:
  return {
    "parameters": abstract.count(params),
    "vocab_size": shape.vocab_size,
    "num_outputs": shape.num_outputs,
    "num_layers": shape.num_layers,
    "dtype": shape.dtype,
    "dropout_rate": shape.dropout_rate,
  }


def _steps(
  job: Job, policy: Policy, seed: int, given: Arguments, devices: Mesh | None
) -> tuple[Costs, Peak | None]:
  """The costs of the mean step, and the peak of the largest.

  The peak is None where there are no devices to compile for.

  Raises:
    UsageError: if a method does not fit the models.
  """
  chosen = Counter(policy.choose(seed, step) for step in range(_SEEN_STEPS))
  costs, peaks = [], []
  for number, times in chosen.items():
    traced = abstract.trace(job, policy.methods[number], given)
    costs.append((times / _SEEN_STEPS, abstract.costs(job, traced, given)))
    if devices is not None:
      peaks.append(abstract.peak_of(traced, devices))
  return mean_of(costs), max(peaks, key=_refused_first, default=None)


def _refused_first(peak: Peak) -> tuple[bool, int]:
  return peak.refused, peak.bytes


def _devices(asked: Asked) -> tuple[Sequence[jax.Device], str]:
  """Devices to compile for, which need not be there; and whose compiler does.

  TPUs as their own compiler knows them, where it is installed (libtpu) and
  there is such a slice, or else as many CPUs.

  Raises:
    UsageError: if JAX has begun with fewer CPUs.
  """
  grid = grid_of(asked.kind, asked.devices)
  if asked.compiles and grid and importlib.util.find_spec("libtpu"):
    for name, value in _ALOOF.items():
      os.environ.setdefault(name, value)
    name = f"{asked.kind}:{'x'.join(map(str, grid))}"
    # A host of most slices has four chips.
    small = {"chips_per_host_bounds": [*grid, 1][:3]}
    host = small if math.prod(grid) < 4 else {}
    with contextlib.suppress(Exception):  # An old libtpu, or none for it.
      found = topologies.get_topology_desc(name, "tpu", **host).devices
      if len(found) == asked.devices:
        return found, asked.kind
  with contextlib.suppress(RuntimeError):  # JAX has begun, as in tests.
    jax.config.update("jax_num_cpu_devices", asked.devices)
  found = jax.devices("cpu")
  if len(found) < asked.devices:
    raise UsageError(
      f"--devices must be at most {len(found)}, with which JAX has begun in "
      f"this process, got {asked.devices}"
    )
  return found[: asked.devices], "cpu"
