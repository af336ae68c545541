"""Rows for a host that reads seqio Tasks by itself: a Task, and its features.

A Task of ours has the features

  inputs  i32[length]  the tokens, as the standalone trainer has them
  targets f32[C]       the label as `labels.encode_labels` makes it, or f32[0]

and `TextConverter` makes of them what `as_batch` takes. Only a host that has
imported seqio already imports this module.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import seqio
import tensorflow as tf
from jaxtyping import Array

from augdistill.cache_dir import default_cache_dir
from augdistill.data.dataset import Examples, concat
from augdistill.data.load import Data, DataConfig, load_data
from augdistill.data.vocabulary import PAD_ID
from augdistill.errors import UsageError
from augdistill.types import Batch, Task, TaskKind

_SPEC = seqio.FeatureConverter.FeatureSpec
_REGISTERED: dict[str, "TextTask"] = {}
_NAMES: dict[str, str] = {}  # by configuration: gin asks again and again


class TextTask(NamedTuple):
  """A Task of ours in seqio's registry.

  Attributes:
    data: what it was made from.
    max_length: tokens kept of a text.
    vocabularies: seqio's, of `inputs` and of `targets`.
  """

  data: Data
  max_length: int
  vocabularies: tuple[seqio.Vocabulary, seqio.Vocabulary]


class LabelVocabulary(seqio.Vocabulary):
  """Labels as arrays, and logits as the words for what they say.

  Args:
    task: what a model's C outputs mean.
  """

  def __init__(self, task: Task):
    super().__init__()
    self.task = task

  def __eq__(self, other: object) -> bool:
    return isinstance(other, LabelVocabulary) and self.task == other.task

  __hash__ = None

  @property
  def eos_id(self) -> None:
    """There is no end."""

  @property
  def unk_id(self) -> None:
    """There is no unknown label."""

  @property
  def _base_vocab_size(self) -> int:
    return self.task.num_outputs

  def _encode(self, s: Any) -> Any:
    return s

  def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
    return s

  def _decode(self, ids: Sequence[float]) -> list[float]:
    return list(ids)

  def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
    """Logits f[C]: a name, names joined by "|", or a number as text."""
    if self.task.kind == TaskKind.REGRESSION:
      return tf.strings.as_string(ids[0])
    names = tf.constant(self.task.label_names)
    if self.task.kind == TaskKind.CLASSES:
      return names[tf.argmax(ids)]
    said = tf.boolean_mask(names, ids > 0)
    return tf.strings.reduce_join(said, separator="|")


class TextConverter(seqio.FeatureConverter):
  """The features of a Task of ours as those of a batch.

  example_id is a hash of the tokens, so that it is the row's own on any number
  of hosts, and in any order.

  Raises:
    UsageError: when it is called, if it is to pack rows.
  """

  TASK_FEATURES: Mapping[str, Any] = {
    "inputs": _SPEC(tf.int32),
    "targets": _SPEC(tf.float32),
  }
  MODEL_FEATURES: Mapping[str, Any] = {
    "encoder_input_tokens": _SPEC(tf.int32),
    "label": _SPEC(tf.float32),
    "has_label": _SPEC(tf.bool, rank=0),
    "example_id": _SPEC(tf.int32, rank=0),
  }
  PACKING_FEATURE_DTYPES: Mapping[str, Any] = {}

  def _convert_features(
    self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
  ) -> tf.data.Dataset:
    if self.pack:
      raise UsageError(
        "a row must be one text with one label: bind pack = False in "
        "train/utils.DatasetConfig and train_eval/utils.DatasetConfig"
      )

    def convert(row):
      content = tf.io.serialize_tensor(row["inputs"])
      number = tf.strings.to_hash_bucket_fast(content, 2**31 - 1)
      return {
        "encoder_input_tokens": row["inputs"],
        "label": row["targets"],
        "has_label": tf.size(row["targets"]) > 0,
        "example_id": tf.cast(number, tf.int32),
      }

    lengths = self.get_model_feature_lengths(task_feature_lengths)
    padded = {name: lengths[name] for name in ("encoder_input_tokens", "label")}
    return self._pack_or_pad(ds.map(convert), padded)

  def get_model_feature_lengths(
    self, task_feature_lengths: Mapping[str, int]
  ) -> Mapping[str, int]:
    """The length of each feature; those of a scalar are not read."""
    return {
      "encoder_input_tokens": task_feature_lengths["inputs"],
      "label": task_feature_lengths["targets"],
      "has_label": 1,
      "example_id": 1,
    }


def as_batch(features: Mapping[str, Array]) -> Batch:
  """The features that `TextConverter` makes, B rows of them, as a Batch.

  Args:
    features: encoder_input_tokens i32[B, L], label f32[B, C], has_label
      bool[B], example_id i32[B].

  Returns:
    The batch, every row of weight 1.
  """
  tokens = features["encoder_input_tokens"]
  return Batch(
    tokens=tokens,
    mask=tokens != PAD_ID,
    label=features["label"],
    has_label=features["has_label"],
    weight=jnp.ones(tokens.shape[:1], jnp.float32),
    example_id=features["example_id"],
  )


def register(
  config: DataConfig, compute: Callable[..., Mapping[str, float]]
) -> str:
  """Makes data a Task in seqio's registry; twice is harmless.

  Rows, splits, tokens and labels are those that the standalone trainer makes
  of the same configuration; rows without labels are of the training split.

  Args:
    config: which data.
    compute: (task, logits f32[N, C], label f32[N, C], has_label bool[N]) ->
      name -> value, the Task's metrics.

  Returns:
    The Task's name, which ends in a hash of what it was made from.

  Raises:
    UsageError: as of `load_data`.
  """
  asked = repr(config)
  if asked not in _NAMES:
    _NAMES[asked] = _register(load_data(config), config.max_length, compute)
  return _NAMES[asked]


def _register(
  data: Data, max_length: int, compute: Callable[..., Mapping[str, float]]
) -> str:
  train = [x for x in (data.train, data.unlabeled) if x is not None]
  splits = {"validation": data.validation, "test": data.test}
  splits = {name: rows for name, rows in splits.items() if rows is not None}
  if train:
    splits["train"] = concat(*train) if len(train) > 1 else train[0]
  content = [
    max_length,
    data.vocab.fingerprint,
    data.task.label_names,
    *sorted((split, rows.fingerprint) for split, rows in splits.items()),
  ]
  digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]
  safe = "".join(c if c.isalnum() else "_" for c in data.task.name)
  name = f"augdistill_{safe}_{digest}"
  if name in _REGISTERED:
    return name
  folder = os.path.join(default_cache_dir(), "vocabularies")
  inputs, targets = (
    data.vocab.seqio_vocabulary(folder),
    LabelVocabulary(data.task),
  )
  seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(
      lambda split, shuffle_files, seed=None: _rows(
        splits[split], texts=split != "train"
      ),
      splits=tuple(splits),
      num_input_examples={s: len(rows) for s, rows in splits.items()},
    ),
    preprocessors=[],
    output_features={
      "inputs": seqio.Feature(inputs, add_eos=False),
      "targets": seqio.Feature(targets, add_eos=False, dtype=tf.float32),
    },
    metric_fns=[_metric(data.task, compute)],
  )
  _REGISTERED[name] = TextTask(data, max_length, (inputs, targets))
  return name


def registered(name: str) -> TextTask:
  """The Task of this name.

  Raises:
    UsageError: if it is none of ours.
  """
  if name not in _REGISTERED:
    raise UsageError(
      f"the Task must be one of augdistill's, got {name!r}; bind "
      "text_task.config with load.DataConfig.task = that name"
    )
  return _REGISTERED[name]


def lengths(name: str) -> dict[str, int]:
  """The length of each feature of a Task of ours: its longest row, and C."""
  data = registered(name).data
  splits = (data.train, data.validation, data.test, data.unlabeled)
  longest = max(rows.lengths.max() for rows in splits if rows is not None)
  return {"inputs": int(longest), "targets": data.task.num_outputs}


def _metric(task: Task, compute: Callable[..., Mapping[str, float]]) -> Any:
  """`compute` as seqio calls it; the names of the arguments say with what."""

  def metric(targets, scores):
    label = np.zeros((len(targets), task.num_outputs), np.float32)
    for row, target in enumerate(targets):
      label[row, : len(target)] = target
    has_label = np.array([len(target) > 0 for target in targets])
    return compute(task, np.asarray(scores, np.float32), label, has_label)

  return metric


def _rows(rows: Examples, texts: bool) -> tf.data.Dataset:
  """A split, a row at a time, in its own order."""
  tokens = tf.constant(np.asarray(rows.tokens))
  offsets = tf.constant(np.asarray(rows.offsets))
  label = tf.constant(np.asarray(rows.label))
  has_label = tf.constant(np.asarray(rows.has_label))
  shown = None
  if texts:
    shown = tf.constant(["\t".join(parts) for parts in rows.texts])

  def row(i):
    made = {
      "inputs": tokens[offsets[i] : offsets[i + 1]],
      "targets": label[i] if has_label[i] else label[i][:0],
    }
    return made if shown is None else made | {"inputs_pretokenized": shown[i]}

  return tf.data.Dataset.range(len(rows)).map(row)
