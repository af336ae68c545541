"""The parts of a run, made from its configuration: teacher, data, networks."""

import dataclasses
import functools
from collections.abc import Callable

import jax

from augdistill.atomic import check_local
from augdistill.cli.beginning import beginning, inheriting, selecting
from augdistill.cli.config import RunConfig
from augdistill.cli.given_rewrites import check_rewrites, training_rewrites
from augdistill.cli.placing import check_batch_size, place_params
from augdistill.cli.pretrained import check_generator, vocab_path
from augdistill.cli.trained import Trained
from augdistill.data.answers import Answers
from augdistill.data.batches import round_down_length
from augdistill.data.dataset import Examples, concat, tokens_of
from augdistill.data.load import Data, DataConfig, load_data
from augdistill.data.rewrites import Rewrites
from augdistill.data.texts import read_again
from augdistill.data.vocabulary import load_vocab
from augdistill.errors import UsageError
from augdistill.models.bert_config import BertConfig
from augdistill.models.networks import ModelConfig, network
from augdistill.models.projected import with_projections
from augdistill.reports.student_gin import Served
from augdistill.training import mesh
from augdistill.training.lookups import with_lookups
from augdistill.training.policies import Policy, build_policy
from augdistill.training.rehearsal import rehearse
from augdistill.types import Lexicon, Network, Params, TaskKind


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The made parts of a run.

  Attributes:
    config: what was asked for.
    data: its splits.
    train: the rows to learn from: labelled ones, then unlabelled ones.
    served: what the student needs to be used alone.
    policy: the loss of every step.
    student: the network that learns.
    teacher: the run that it learns from, as it teaches, or None.
    rewrites: other texts of the rows of `train`, or None.
    apart: whether the teacher reads with a vocabulary of its own.
    begin: what the student's first parameters are made of its random ones.
    mesh: the devices.
    answers: the teacher's to the rows of `train`, where they are kept; None:
      it is asked at every step.
  """

  config: RunConfig
  data: Data
  train: Examples
  served: Served
  policy: Policy
  student: Network
  teacher: Trained | None
  rewrites: Rewrites | None
  apart: bool
  begin: Callable[[Params], Params]
  mesh: jax.sharding.Mesh
  answers: Answers | None = None

  @functools.cached_property
  def teacher_params(self) -> Params | None:
    """The teacher's parameters on the devices, which all share."""
    if self.teacher is None:
      return None
    its, over_data = self.teacher, self.config.shard_teacher
    return place_params(its.network, its.params, self.mesh, over_data)

  @functools.cached_property
  def lexicon(self) -> Lexicon:
    """What the vocabulary allows, on the devices."""
    whole = mesh.replicated(self.mesh)
    lexicon = mesh.place(self.data.vocab.lexicon, whole)
    if not self.policy.needs_teacher or self.apart:
      return lexicon
    found = with_lookups(
      lexicon,
      self.policy.methods,
      self.teacher.network,
      self.teacher_params,
      mesh.place(tokens_of(self.train), whole),
    )
    return mesh.place(found, whole)

  def for_teacher(self, rows: Examples) -> Examples:
    """Rows as the teacher reads them, no longer than it can."""
    if not self.apart:
      return rows
    longest = self.teacher.served.model.max_length
    length = self.config.data.max_length
    if longest is not None:
      length = min(length, round_down_length(longest))
    return read_again(rows, self.teacher.vocab, length)


def check(config: RunConfig) -> None:
  """Finds what is wrong with a configuration before anything is loaded.

  Raises:
    UsageError: if its parts do not fit each other, or the devices.
  """
  policy = build_policy(config.method, TaskKind.CLASSES, config.recipes)
  if policy.needs_teacher and config.teacher is None:
    raise UsageError(
      f"the method {config.method!r} needs a teacher: give augdistill distill "
      "--teacher DIR, a finished run, or --teacher_model NAME, to fine-tune "
      "one first"
    )
  if config.data.unlabeled is not None and not policy.needs_teacher:
    raise UsageError(
      f"--unlabeled needs a method with a teacher, got {config.method!r}"
    )
  _check_cache(config)
  check_rewrites(config)
  if config.generator:
    check_generator(config.generator)
  check_batch_size(config.batch_size, config.mesh, config.num_microbatches)


def _check_cache(config: RunConfig) -> None:
  """Raises UsageError where it is not clear which answers are to be kept."""
  draws = config.teacher_cache_draws
  if config.teacher_cache is None:
    if draws is not None:
      raise UsageError("--teacher_cache_draws is for --teacher_cache DIR")
    return
  check_local(config.teacher_cache)
  if config.teacher_dropout and draws is None:
    raise UsageError(
      "--teacher_cache keeps what a teacher answers, and one that drops out "
      "answers otherwise each time: give --no_teacher_dropout, or "
      "--teacher_cache_draws M, to keep M of its answers to each text"
    )
  if draws is not None and not config.teacher_dropout:
    raise UsageError(
      "give --no_teacher_dropout, with which a teacher has one answer to each "
      "text, or --teacher_cache_draws, but not both"
    )


def prepare(config: RunConfig) -> Experiment:
  """Makes the parts of a run, and writes nothing but the data cache.

  Raises:
    UsageError: if data, teacher and configuration do not fit.
  """
  check(config)
  teacher = Trained.load(config.teacher) if config.teacher else None
  data = load_data(as_read_by(teacher, config.data, config.init))
  if data.train is None and data.unlabeled is None:
    raise UsageError("training needs texts: --task, --train or --unlabeled")
  train = training_rows(config, data)
  max_length, policy = config.data.max_length, _policy(config, data)
  shape = _shape(config.model, data, max_length)
  teacher_shape = teacher.served.model if teacher else None
  apart = bool(teacher) and teacher.vocab.fingerprint != data.vocab.fingerprint
  if teacher and not apart:
    check_length(teacher_shape, max_length)
  _check_fit(config, policy, shape, teacher_shape, apart)
  if apart:
    note = f"the teacher reads with its own vocabulary, {teacher.vocab_path}"
    data = dataclasses.replace(data, notes=(*data.notes, note))
  return Experiment(
    config=config,
    data=data,
    train=train,
    served=Served(shape, data.task, max_length),
    policy=policy,
    student=student_network(
      dataclasses.replace(shape, remat=config.remat), policy, teacher_shape
    ),
    teacher=teacher and teacher.cast(config.teacher_dtype),
    apart=apart,
    begin=beginning(config, shape, data.task, teacher),
    mesh=mesh.make_mesh(config.mesh),
    # The last, since making them takes long.
    rewrites=training_rewrites(config, data, train),
  )


def training_rows(config: RunConfig, data: Data) -> Examples:
  """The labelled rows to learn from, then the unlabelled ones.

  Where a share of the rows keeps its labels, a teacher has learnt from it
  already: the student of a teacher learns from the others alone.
  """
  parts = [data.train, data.unlabeled]
  if config.data.labeled_fraction is not None:
    needs_teacher = _policy(config, data).needs_teacher
    parts = [data.unlabeled] if needs_teacher else [data.train]
  parts = [part for part in parts if part is not None]
  return concat(*parts) if len(parts) > 1 else parts[0]


def check_before_teacher(
  config: RunConfig, teacher: Callable[..., ModelConfig]
) -> None:
  """Finds what is wrong with a run whose teacher is still to be trained.

  Args:
    config: the student's run.
    teacher: factory of the teacher's shape, as `RunConfig.model`.

  Raises:
    UsageError: as `prepare`.
  """
  data = load_data(config.data)
  max_length = config.data.max_length
  shape = _shape(config.model, data, max_length)
  if config.rewrites:
    training_rewrites(config, data, training_rows(config, data))
  if config.init:
    inheriting(config, shape, data.task)
  theirs = _shape(teacher, data, max_length)
  _check_fit(config, _policy(config, data), shape, theirs)


def _check_fit(
  config: RunConfig,
  policy: Policy,
  shape: ModelConfig,
  teacher: ModelConfig | None,
  apart: bool = False,
) -> None:
  """Raises UsageError if method, student and teacher do not fit each other."""
  if config.init_layers is not None and config.init is None:
    if teacher is None:
      raise UsageError(
        "--init_layers needs a teacher, or --init, to take the layers from"
      )
    select = selecting(config.init_layers, shape, teacher)
    init = network(shape).init, network(teacher).init
    jax.eval_shape(
      lambda key: select(*(make(key) for make in init)), jax.random.key(0)
    )
  student = student_network(shape, policy, teacher)
  for method in policy.methods:
    theirs = teacher and network(teacher)
    rehearse(method, student, theirs, shape.vocab_size, apart)


def _policy(config: RunConfig, data: Data) -> Policy:
  return build_policy(config.method, data.task.kind, config.recipes)


def _shape(
  model: Callable[..., ModelConfig], data: Data, max_length: int
) -> ModelConfig:
  """The shape of a model that reads these data.

  Raises:
    UsageError: if they are longer than it can read.
  """
  shape = model(vocab_size=data.vocab.size, num_outputs=data.task.num_outputs)
  check_length(shape, max_length)
  if not isinstance(shape, BertConfig):
    return shape
  end_id = data.vocab.frame.end_id
  return dataclasses.replace(shape, separator_id=end_id)


def check_length(shape: ModelConfig, max_length: int) -> None:
  """Raises UsageError if a model cannot read so many tokens."""
  if shape.max_length is None:
    return
  longest = round_down_length(shape.max_length)
  if max_length > longest:
    raise UsageError(
      f"--max_length must be at most {longest}, the positions that the model "
      f"knows, got {max_length}"
    )


def student_network(
  shape: ModelConfig, policy: Policy, teacher: ModelConfig | None
) -> Network:
  """The network that learns, with projections if a term reads them."""
  if not policy.needs_projections:
    return network(shape)
  return with_projections(network(shape), teacher.emb_dim)


def as_read_by(
  teacher: Trained | None, config: DataConfig, init: str | None = None
) -> DataConfig:
  """The data with the vocabulary of the models that there are already.

  The student's is that of what it begins with, or the one that was given, or
  else the teacher's.

  Args:
    teacher: gives the labels in its order, too.
    config: which data.
    init: what the student begins with, as of `pretrained.source_of`.

  Raises:
    UsageError: if the one that was given is not that of `init`.
  """
  if init is not None:
    path = vocab_path(init, config.vocab or (teacher and teacher.vocab_path))
    if config.vocab and not _same_vocab(path, config.vocab):
      raise UsageError(
        f"--vocab must be that of --init, got {config.vocab} and {path}; a run "
        f"of augdistill pretrain has it with --vocab {config.vocab}"
      )
    config = dataclasses.replace(config, vocab=config.vocab or path)
  if teacher is None:
    return config
  task = teacher.served.task
  if config.task_kind not in (None, task.kind):
    raise UsageError(
      f"--task_kind must be the teacher's, {task.kind}, got {config.task_kind}"
    )
  return dataclasses.replace(
    config,
    vocab=config.vocab or teacher.vocab_path,
    label_names=task.label_names,
    task_kind=str(task.kind),
    pair=teacher.pair,
  )


def _same_vocab(one: str, other: str) -> bool:
  return load_vocab(one).fingerprint == load_vocab(other).fingerprint
