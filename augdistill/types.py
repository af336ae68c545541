"""The few types that every room shares, and the axis letters.

Axis letters, used in every shape comment and annotation:

  B  rows of a batch        L  positions of a sequence   D  embedding width
  M  rows of a view         n  copies of each example    C  model outputs
  N  layers                 H  attention heads           V  vocabulary rows

M equals B except where a view mixes a whole batch into fewer or more rows.
Inputs, Outputs and View carry the copy axis first: `[n, M, ...]`.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Bool, Float, Int, Key

Params = Mapping[str, Any]
# A number, or a function of the step (i32[]) that returns one.
Schedule = float | Callable[[Int[Array, ""]], Float[Array, ""]]
# Name -> (sum, weight); divided once, where it is reported.
Metrics = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]


class TaskKind(enum.StrEnum):
  """What a label is, which decides heads, losses and metrics."""

  CLASSES = "classes"  # one of C names
  REGRESSION = "regression"  # one real number, C = 1
  MULTI_LABEL = "multi_label"  # any subset of C names


@dataclasses.dataclass(frozen=True)
class Task:
  """What is to be learnt: the meaning of a model's C outputs.

  Attributes:
    name: a short name for reports.
    kind: what a label is.
    label_names: the name of each output, in order; () for regression.
    metrics: names of metrics in `augdistill.evaluation.metrics`, the first
      being the one that chooses the best checkpoint.
    pair: whether an example is two texts, not one.
  """

  name: str
  kind: TaskKind
  label_names: tuple[str, ...] = ()
  metrics: tuple[str, ...] = ()
  pair: bool = False

  def __post_init__(self):
    object.__setattr__(self, "kind", TaskKind(self.kind))
    object.__setattr__(self, "label_names", tuple(self.label_names))
    object.__setattr__(self, "metrics", tuple(self.metrics))
    if self.kind == TaskKind.REGRESSION and self.label_names:
      raise ValueError(
        f"a regression task has no label names, got {self.label_names[:3]}"
      )
    if self.kind != TaskKind.REGRESSION and not self.label_names:
      raise ValueError(f"a task of kind {self.kind.value} needs label names")

  @property
  def num_outputs(self) -> int:
    """C, the number of outputs that a model of this task has."""
    return 1 if self.kind == TaskKind.REGRESSION else len(self.label_names)


class Text(NamedTuple):
  """The same rows as another vocabulary has them.

  Attributes:
    tokens: i32[B, L'] token ids.
    mask: bool[B, L'] True at real tokens.
  """

  tokens: Int[Array, "*n B K"]
  mask: Bool[Array, "*n B K"]


class Batch(NamedTuple):
  """Rows of one step. A row of weight 0 and a masked position count nothing.

  Attributes:
    tokens: i32[B, L] token ids, padding id where `mask` is False. A partner
      batch has a copy axis in front of every field: [n, B, L].
    mask: bool[B, L] True at real tokens.
    label: f32[B, C] probabilities of classes (one-hot), 0/1 per name
      (multi-label), or the value (regression, C = 1).
    has_label: bool[B] False where `label` means nothing.
    weight: f32[B] 0 for rows that only fill the shape, else 1.
    example_id: i32[B] the example's number in its data set.
    partner: for a view that mixes: the rows that each row is mixed with.
    rewrites: other texts of the same example, made before training: a batch
      with a copy axis, [R, B, ...], whose `weight` is 0 where there are fewer.
    teacher: the rows as the teacher reads them, where it has a vocabulary of
      its own; None: it reads `tokens`.
    answers: f32[B, C] the teacher's logits, or values, on the rows, where they
      are known before; None: it is asked.
  """

  tokens: Int[Array, "*n B L"]
  mask: Bool[Array, "*n B L"]
  label: Float[Array, "*n B C"]
  has_label: Bool[Array, "*n B"]
  weight: Float[Array, "*n B"]
  example_id: Int[Array, "*n B"]
  partner: "Batch | None" = None
  rewrites: "Batch | None" = None
  teacher: Text | None = None
  answers: Float[Array, "*n B C"] | None = None


@dataclasses.dataclass(frozen=True)
class Inputs:
  """What enters a model, and where: exactly one of the four.

  Attributes:
    mask: bool[n, M, L] True at real positions.
    tokens: i32[n, M, L] token ids.
    embeddings: f[n, M, L, D] word embeddings.
    hidden: f[n, M, L, D] hidden states at the entry of layer `layer`.
    pooled: f[n, M, D] vectors that the head reads; nothing else runs.
    layer: the index of the first layer that still has to run on `hidden`.
    segment_ids: i32[n, M, L] the text of a pair, 0 or 1, that a position of
      `embeddings` is of, for models that tell these apart; None: all 0. Of
      `tokens` a model sees it itself.
  """

  mask: Bool[Array, "n M L"]
  tokens: Int[Array, "n M L"] | None = None
  embeddings: Float[Array, "n M L D"] | None = None
  hidden: Float[Array, "n M L D"] | None = None
  pooled: Float[Array, "n M D"] | None = None
  layer: int = 0
  segment_ids: Int[Array, "n M L"] | None = None


jax.tree_util.register_dataclass(
  Inputs,
  data_fields=[
    *("mask", "tokens", "embeddings", "hidden", "pooled"),
    "segment_ids",
  ],
  meta_fields=["layer"],
)


class Outputs(NamedTuple):
  """Everything a model computes on the way; jit removes what nobody reads.

  Attributes:
    logits: f32[n, M, C] logits, or values for regression.
    pooled: f[n, M, D] the vector that the head reads.
    hidden: N + 1 arrays f[n, M, L, D]: entry of each layer, then the last exit.
      Layers before the entry of `Inputs.hidden` are left out.
    attention: N arrays f[n, M, H, L, L], probabilities of the layers that ran.
    values: N arrays f[n, M, L, H, K], what attention mixes in those layers.
    projected: `hidden`, each mapped to the teacher's width by a projection
      that is learnt with the model; () where there is none.
  """

  logits: Float[Array, "n M C"]
  pooled: Float[Array, "n M D"]
  hidden: tuple[Float[Array, "n M L D"], ...] = ()
  attention: tuple[Float[Array, "n M H L L"], ...] = ()
  values: tuple[Float[Array, "n M L H K"], ...] = ()
  projected: tuple[Float[Array, "n M L P"], ...] = ()


class View(NamedTuple):
  """n augmented copies of a batch, as the student and the teacher see them.

  Attributes:
    student: the student's inputs.
    teacher: the teacher's inputs; or its outputs where the teacher sees
      something that it has answered already; or None without a teacher.
    label: f32[n, M, C], or None where the augmentation does not keep labels.
    has_label: bool[n, M] where `label` means something.
    weight: f32[n, M] 0 for rows that count for nothing.
    stats: name -> (sum, weight), what the augmentation did (for example the
      share of tokens that it changed).
    label_vectors: f[n, M, D], labels as vectors in the space of `pooled`, for
      a view that mixes classes in that space.
    mixture: where the embeddings are mixtures of two words': of which.
  """

  student: Inputs
  teacher: Inputs | Outputs | None
  label: Float[Array, "n M C"] | None
  has_label: Bool[Array, "n M"]
  weight: Float[Array, "n M"]
  stats: Metrics = {}  # noqa: RUF012  (never mutated)
  label_vectors: Float[Array, "n M D"] | None = None
  mixture: "Mixture | None" = None


class Mixture(NamedTuple):
  """Of which two words each word embedding of a view is a mixture.

  Attributes:
    first: i32[n, M, L] tokens.
    second: i32[n, M, L] tokens.
    share: f32[n, M, L] the first one's, in [0, 1].
  """

  first: Int[Array, "n M L"]
  second: Int[Array, "n M L"]
  share: Float[Array, "n M L"]


def clean_view(batch: Batch) -> View:
  """The batch itself as a view of one copy, which both models read."""
  inputs = theirs = Inputs(mask=batch.mask[None], tokens=batch.tokens[None])
  if batch.teacher is not None:
    text = batch.teacher
    theirs = Inputs(mask=text.mask[None], tokens=text.tokens[None])
  return View(
    student=inputs,
    teacher=theirs,
    label=batch.label[None],
    has_label=batch.has_label[None],
    weight=batch.weight[None],
  )


@runtime_checkable
class Forward(Protocol):
  """`key=None` is deterministic; there is no train flag."""

  def __call__(
    self, params: Params, inputs: Inputs, *, key: Key[Array, ""] | None = None
  ) -> Outputs: ...


@dataclasses.dataclass(frozen=True)
class Network:
  """A model as pure functions; parameters are always an argument.

  Attributes:
    init: key -> params (float32).
    forward: (params, inputs, *, key=None) -> Outputs.
    embed: (params, tokens i32[n, M, L], mask bool[n, M, L]) -> Inputs that
      enter at the word embeddings of these tokens.
    table: params -> f[V, D], the word embedding table, whose rows `embed`
      gives.
    logical_axes: params-shaped tree of tuples of T5X's logical axis names.
    num_outputs: C.
    class_vectors: params -> f32[C, D], one vector per output in the space of
      `Outputs.pooled`; a logit is their product, plus a bias.
  """

  init: Callable[[Key[Array, ""]], Params]
  forward: Forward
  embed: Callable[[Params, Int[Array, "n M L"], Bool[Array, "n M L"]], Inputs]
  table: Callable[[Params], Float[Array, "V D"]]
  logical_axes: Callable[[], Params]
  num_outputs: int
  class_vectors: Callable[[Params], Float[Array, "C D"]] | None = None


@dataclasses.dataclass(frozen=True)
class MaskedLM:
  """A masked language model as pure functions: what hidden tokens may be.

  How a hidden token looks to the model is the model's own affair, so that it
  needs no id.

  Attributes:
    init: key -> params (float32).
    logits: (params, tokens i32[n, M, L], hidden bool[n, M, L], mask
      bool[n, M, L], positions i32[n, M, P], *, key=None) -> f32[n, M, P, V]
      at those positions; tokens do not matter where `hidden`.
    logical_axes: params-shaped tree of tuples of T5X's logical axis names.
  """

  init: Callable[[Key[Array, ""]], Params]
  logits: Callable[..., Float[Array, "n M P V"]]
  logical_axes: Callable[[], Params]


class Surroundings(NamedTuple):
  """Of each row of a frozen table, the nearest rows that may be produced.

  Attributes:
    norm: f32[V], |e_w|.
    ids: i32[V, k] the k allowed rows with the largest cosine to each row,
      which may be itself, nearest first; -1 where there are fewer.
    cosine: f32[V, k + 1] their cosines, and that of the next one.
  """

  norm: Float[Array, "V"]
  ids: Int[Array, "V k"]
  cosine: Float[Array, "V k1"]


class Lexicon(NamedTuple):
  """What augmentations may do with a vocabulary of V rows.

  Attributes:
    producible: bool[V] ids that an augmentation may produce: False at special
      ids, sentinels and rows without a piece.
    protected: bool[V] ids that an augmentation must leave where they are:
      padding, end of sentence, separators.
    continues: bool[V] ids that continue a word, for vocabularies in which
      these cannot stand for others: a near token is sought among those that
      continue words as the own one does. None: anything may stand anywhere.
    surroundings: of the teacher's word embeddings, which make a projection of
      mixtures much cheaper; it finds the same without.
    neighbours: i32[V, k] the producible tokens nearest to each in the table of
      a frozen teacher, nearest first, the token itself where there are fewer.
      None: they are sought when they are needed.
  """

  producible: Bool[Array, "V"]
  protected: Bool[Array, "V"]
  continues: Bool[Array, "V"] | None = None
  surroundings: Surroundings | None = None
  neighbours: Int[Array, "V k"] | None = None


class Models(NamedTuple):
  """The live student, the frozen teacher and the vocabulary, for views.

  Attributes:
    student: the student network and its parameters, both differentiable.
    student_params: its parameters.
    teacher: the teacher network, or None.
    teacher_params: its parameters, or None.
    lexicon: what the vocabulary allows augmentations to do.
    student_key: of the dropout masks where a view itself runs the student,
      for the layers below its entry; None: no dropout.
    teacher_key: the same for the teacher.
  """

  student: Network
  student_params: Params
  teacher: Network | None
  teacher_params: Params | None
  lexicon: Lexicon
  student_key: Key[Array, ""] | None = None
  teacher_key: Key[Array, ""] | None = None

  def ask_teacher(
    self, inputs: Inputs | Outputs | None, key: Key[Array, ""] | None
  ) -> Outputs | None:
    """The teacher's answer, a constant; None where there is no teacher.

    Args:
      inputs: what it reads; or its answer, if a view has it already.
      key: of its dropout masks; None: no dropout.
    """
    if self.teacher is None or inputs is None or isinstance(inputs, Outputs):
      return inputs if self.teacher else None
    outputs = self.teacher.forward(self.teacher_params, inputs, key=key)
    return jax.lax.stop_gradient(outputs)


class Clean(NamedTuple):
  """What phase 1 of the step learnt from the clean batch.

  Attributes:
    student: the student's outputs on the clean batch, n = 1.
    teacher: the teacher's outputs on it, or None without a teacher.
    gradient: f[1, B, L, D], the gradient of each example's own loss with
      respect to its own word embeddings (not divided by the batch size).
    pull_back: Outputs cotangent -> f[1, B, L, D], through the same
      linearisation, for a view whose adversary has another target.
    view: the clean batch as a view of one copy.
  """

  student: Outputs
  teacher: Outputs | None
  gradient: Float[Array, "1 B L D"]
  pull_back: Callable[[Outputs], Float[Array, "1 B L D"]]
  view: View


@runtime_checkable
class MakeView(Protocol):
  """(key, batch, clean, models, step) -> View; pure, traced under jit."""

  def __call__(
    self,
    key: Key[Array, ""],
    batch: Batch,
    clean: Clean | None,
    models: Models,
    step: Int[Array, ""],
  ) -> View: ...


@dataclasses.dataclass(frozen=True)
class ViewMaker:
  """How a view is made.

  Attributes:
    make: makes the view of one microbatch.
    partners: (key, batch) -> i32[n, B]: for views that mix rows, the row that
      each row is mixed with, drawn for the whole batch, before it is cut into
      microbatches. The step gathers them into `batch.partner`.
    needs_clean: whether `make` reads `clean` (phase 1 must have run).
    projects_mixtures: whether `Lexicon.surroundings` make it cheaper.
    num_neighbours: how many neighbours of a token `make` chooses from, so that
      a run can look them up once; 0 for none.
  """

  make: MakeView
  partners: Callable[[Key[Array, ""], Batch], Int[Array, "n B"]] | None = None
  needs_clean: bool = False
  projects_mixtures: bool = False
  num_neighbours: int = 0


@runtime_checkable
class LossTerm(Protocol):
  """How far the student is off, un-reduced: f32[n, M].

  Called as (student, teacher, view, clean, models); most terms read the first
  two or three. A row whose target is missing gets 0.
  """

  def __call__(
    self,
    student: Outputs,
    teacher: Outputs | None,
    view: View,
    clean: Clean | None,
    models: Models,
  ) -> Float[Array, "n M"]: ...


@runtime_checkable
class Reweight(Protocol):
  """How the copies of an example share its weight: f[n, M] -> f[M]."""

  def __call__(
    self, losses: Float[Array, "n M"], view: View
  ) -> Float[Array, "M"]: ...


@dataclasses.dataclass(frozen=True)
class WeightedView:
  """One summand of the loss: a view, its terms, its reweighting, its weight.

  Attributes:
    name: unique within a method; names metrics and random streams.
    maker: makes the view; None for the clean batch itself.
    terms: (name, coefficient, term) triples.
    reweight: how copies share their example's weight.
    weight: the summand's weight.
  """

  name: str
  maker: ViewMaker | None
  terms: tuple[tuple[str, Schedule, LossTerm], ...]
  reweight: Reweight
  weight: Schedule = 1.0


@dataclasses.dataclass(frozen=True)
class Method:
  """A distillation method: the clean summand, if any, and the augmented ones.

  Attributes:
    name: the method as the user wrote it.
    clean: the summand of the clean batch, phase 1; None for a method that
      trains on its views alone.
    views: the other summands, phase 2.
    needs_teacher: whether any term or view reads the teacher.
    needs_projections: whether a term reads `Outputs.projected`.
  """

  name: str
  clean: WeightedView | None
  views: tuple[WeightedView, ...] = ()
  needs_teacher: bool = True
  needs_projections: bool = False
