"""seqio Tasks: files are registered as such, and any of them is read as rows.

So there is one way from data to tokens: a seqio Task whose feature `inputs`
holds the tokens of each text followed by the end of the sentence, one after
the other.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from augdistill.data.files import Table
from augdistill.data.vocabulary import Frame, Vocab

TEXT_FEATURES = (("sentence",), ("sentence1", "sentence2"))


@functools.cache
def import_seqio() -> ModuleType:
  """seqio, imported without noise; tensorflow keeps off GPUs.

  Every use of seqio and tensorflow in this package starts here.
  """
  if "t5x" in sys.modules:  # A host with its own logs and threads.
    import seqio

    return seqio
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  with _stderr_to(os.devnull):
    import seqio
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # the caller has used tensorflow
      tf.config.threading.set_intra_op_parallelism_threads(1)
      tf.config.threading.set_inter_op_parallelism_threads(2)
      tf.config.set_visible_devices([], "GPU")
  logging.getLogger("absl").setLevel(logging.ERROR)
  return seqio


@contextlib.contextmanager
def _stderr_to(path: str) -> Iterator[None]:
  """Redirects file descriptor 2, which C++ writes to before logging is set."""
  sys.stderr.flush()
  saved = os.dup(2)
  with open(path, "w") as file:
    os.dup2(file.fileno(), 2)
  try:
    yield
  finally:
    os.dup2(saved, 2)
    os.close(saved)


def encode_texts(
  dataset: Any, output_features: Any, frame: Frame | None = None
) -> Any:
  """A seqio preprocessor: `inputs` from `sentence`, or from a pair.

  inputs = before tokens(sentence1) between tokens(sentence2) end

  Args:
    dataset: a tf.data.Dataset of rows with text features.
    output_features: the Task's; `inputs` has the vocabulary.
    frame: what stands around the texts; by default the vocabulary's end of
      sentence behind each.

  Returns:
    The dataset with `inputs`, i32[length].
  """
  seqio = import_seqio()
  import tensorflow as tf

  vocabulary = output_features["inputs"].vocabulary
  if frame is None:
    end_id = vocabulary.eos_id
    frame = Frame(end_id, before=(), between=(end_id,))

  @seqio.map_over_dataset
  def encode(row):
    names = [n for n in itertools.chain(*TEXT_FEATURES) if n in row]
    first, *others = (vocabulary.encode_tf(row[name]) for name in names)
    parts = [frame.before, first]
    for text in others:
      parts += [frame.between, text]
    parts = [tf.cast(part, tf.int32) for part in (*parts, (frame.end_id,))]
    return {**row, "inputs": tf.concat(parts, axis=0)}

  return encode(dataset)


def register_file_task(
  name: str,
  splits: dict[str, Table],
  vocab: Vocab,
  cache_dir: str | os.PathLike,
) -> str:
  """Makes files a seqio Task.

  Args:
    name: what the files are about.
    splits: the table of each split.
    vocab: makes the tokens.
    cache_dir: where the vocabulary's file may stay.

  Returns:
    The Task's name in seqio's registry, which ends in a hash of the contents,
    so that registering the same files twice is harmless. Features: `inputs`,
    the texts, and `label` as written ("" without one, a list as JSON).
  """
  seqio = import_seqio()
  import tensorflow as tf

  content = [vocab.fingerprint, *((s, splits[s].fingerprint) for s in splits)]
  digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
  safe_name = re.sub(r"\W", "_", name)
  full_name = f"augdistill_{safe_name}_{digest}"
  if full_name in seqio.TaskRegistry.names():
    return full_name

  def read(split: str, shuffle_files: bool, seed: int | None = None) -> Any:
    del shuffle_files, seed  # the order is the reader's
    table = splits[split]
    names = TEXT_FEATURES[table.pair]
    features = dict(zip(names, zip(*table.texts, strict=True), strict=True))
    labels = table.labels or [""] * len(table.texts)
    features["label"] = [
      n if isinstance(n, str) else json.dumps(n) for n in labels
    ]
    return tf.data.Dataset.from_tensor_slices(
      {k: list(v) for k, v in features.items()}
    )

  seqio.TaskRegistry.add(
    full_name,
    source=seqio.FunctionDataSource(
      read,
      splits=tuple(splits),
      num_input_examples={s: len(t.texts) for s, t in splits.items()},
    ),
    preprocessors=[functools.partial(encode_texts, frame=vocab.frame)],
    output_features={
      "inputs": seqio.Feature(vocab.seqio_vocabulary(cache_dir))
    },
  )
  return full_name


def read_tokens(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
  """The tokens of all rows of a registered Task's split, in its own order.

  Args:
    name: the Task's.
    split: one of its splits.

  Returns:
    Tokens i32[T], flat, and offsets i64[N + 1].
  """
  task = import_seqio().TaskRegistry.get(name)
  dataset = task.get_dataset(None, split=split, shuffle=False)
  dataset = dataset.map(lambda row: row["inputs"]).ragged_batch(1024)
  chunks = list(dataset)
  tokens = [c.flat_values.numpy() for c in chunks]
  lengths = [c.row_lengths().numpy() for c in chunks]
  return (
    np.concatenate(tokens).astype(np.int32),
    np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
  )


def truncate(
  tokens: np.ndarray, offsets: np.ndarray, max_length: int, frame: Frame
) -> tuple[np.ndarray, np.ndarray]:
  """Cuts rows to at most `max_length` tokens, what stands around texts kept.

  Of a pair the longer text is cut first.

  Args:
    tokens: i32[T] flat, of rows as of `Frame.join`.
    offsets: i64[N + 1].
    max_length: the most tokens that a row may have; at least as many as stand
      around texts.
    frame: what stands around them.

  Returns:
    Tokens and offsets of the cut rows.
  """
  rows = [tokens[a:b] for a, b in itertools.pairwise(offsets)]
  rows = [
    r if len(r) <= max_length else _truncate_row(r, max_length, frame)
    for r in rows
  ]
  lengths = np.array([0] + [len(r) for r in rows], np.int64)
  return np.concatenate([tokens[:0], *rows]), np.cumsum(lengths)


def _truncate_row(row: np.ndarray, max_length: int, frame: Frame) -> np.ndarray:
  texts = frame.split(row)
  keep = [len(text) for text in texts]
  room = max_length - (len(row) - sum(keep))
  while sum(keep) > room:
    longest = max(range(len(keep)), key=lambda i: (keep[i], i))
    keep[longest] -= 1
  cut = [text[:k].tolist() for text, k in zip(texts, keep, strict=True)]
  return np.array(frame.join(cut), row.dtype)
