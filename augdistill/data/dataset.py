"""A split of a data set: tokens and labels of all its rows, ready to batch.

Splits are tokenised once. Their arrays lie in a directory named by a hash of
what they were made from, and are memory-mapped: opening them again takes
neither tensorflow nor time.
"""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence

import numpy as np

from augdistill.data.draws import permutation
from augdistill.errors import RunError, UsageError
from augdistill.types import Task, TaskKind

Texts = list[tuple[str, ...]]
_ARRAYS = ("tokens", "offsets", "label", "has_label", "example_id")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Examples:
  """The rows of a split. Rows have different lengths, so tokens lie flat.

  Attributes:
    tokens: i32[T] the tokens of all rows, one row after the other.
    offsets: i64[N + 1] row i is tokens[offsets[i] : offsets[i + 1]].
    label: f32[N, C] as `labels.encode_labels` makes them, 0 without a label.
    has_label: bool[N].
    example_id: i32[N] each row's number in the data that it came from.
    read_texts: reads the rows' texts, when they are wanted.
  """

  tokens: np.ndarray
  offsets: np.ndarray
  label: np.ndarray
  has_label: np.ndarray
  example_id: np.ndarray
  read_texts: Callable[[], Texts]

  def __len__(self) -> int:
    return len(self.has_label)

  def __repr__(self) -> str:
    return f"Examples({len(self)} rows, {len(self.tokens)} tokens)"

  @functools.cached_property
  def texts(self) -> Texts:
    """Per row one text, or two for pairs."""
    return self.read_texts()

  @functools.cached_property
  def lengths(self) -> np.ndarray:
    """i64[N]: how many tokens each row has."""
    return np.diff(self.offsets)

  @functools.cached_property
  def fingerprint(self) -> str:
    """sha256 of everything but the texts."""
    digest = hashlib.sha256()
    for name in _ARRAYS:
      array = np.ascontiguousarray(getattr(self, name))
      digest.update(f"{name}{array.dtype}{array.shape}".encode())
      digest.update(array)
    return digest.hexdigest()


def materialise(
  cache_dir: str | os.PathLike, key: str, make: Callable[[], Examples]
) -> Examples:
  """Opens the split that was made from `key`, or makes it first.

  A split is written to a temporary directory that is renamed when it is
  whole; one that is damaged all the same is made again.

  Args:
    cache_dir: where splits are kept.
    key: a hash of everything that the split is made from.
    make: makes it.

  Returns:
    The split, memory-mapped.

  Raises:
    RunError: if it cannot be written.
  """
  directory = os.path.join(cache_dir, f"examples-{key}")
  examples = _open(directory)
  if examples is None:
    try:
      os.makedirs(cache_dir, exist_ok=True)
      _write(make(), directory)
    except OSError as error:
      raise RunError(
        f"cannot write to the data cache {cache_dir}: {error.strerror}."
      ) from None
    examples = _open(directory)
  return examples


def _write(examples: Examples, directory: str) -> None:
  temporary = tempfile.mkdtemp(dir=os.path.dirname(directory))
  try:
    for name in _ARRAYS:
      path = os.path.join(temporary, f"{name}.npy")
      np.save(path, getattr(examples, name), allow_pickle=False)
    with open(
      os.path.join(temporary, "texts.jsonl"), "w", encoding="utf-8"
    ) as file:
      file.writelines(json.dumps(t) + "\n" for t in examples.texts)
    with open(os.path.join(temporary, "fingerprint"), "w") as file:
      file.write(examples.fingerprint)
    # Another process may have been faster; its copy is as good as ours.
    if _open(directory) is None:
      shutil.rmtree(directory, ignore_errors=True)
      os.rename(temporary, directory)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _open(directory: str) -> Examples | None:
  try:
    arrays = {
      name: np.load(os.path.join(directory, f"{name}.npy"), mmap_mode="r")
      for name in _ARRAYS
    }
    with open(os.path.join(directory, "fingerprint")) as file:
      fingerprint = file.read()
  except (OSError, ValueError):
    return None
  path = os.path.join(directory, "texts.jsonl")
  examples = Examples(**arrays, read_texts=lambda: _read_texts(path))
  return examples if examples.fingerprint == fingerprint else None


def _read_texts(path: str) -> Texts:
  with open(path, encoding="utf-8") as file:
    return [tuple(json.loads(line)) for line in file]


def take(examples: Examples, rows: Sequence[int] | np.ndarray) -> Examples:
  """The rows of these numbers, in this order, each with its example id."""
  rows = np.asarray(rows, np.int64)
  parts = [
    examples.tokens[examples.offsets[r] : examples.offsets[r + 1]] for r in rows
  ]
  return Examples(
    tokens=np.concatenate(parts) if parts else examples.tokens[:0],
    offsets=np.concatenate([[0], np.cumsum(examples.lengths[rows])]),
    label=examples.label[rows],
    has_label=examples.has_label[rows],
    example_id=examples.example_id[rows],
    read_texts=lambda: [examples.texts[r] for r in rows],
  )


def tokens_of(examples: Examples) -> np.ndarray:
  """i32[...]: the ids that occur in any row, ascending."""
  seen = np.zeros(1 + examples.tokens.max(initial=0), bool)
  seen[examples.tokens] = True
  return np.flatnonzero(seen).astype(np.int32)


def concat(first: Examples, second: Examples) -> Examples:
  """The rows of both. The second's example ids follow on the first's."""
  after = 1 + (first.example_id.max() if len(first) else -1)
  return Examples(
    tokens=np.concatenate([first.tokens, second.tokens]),
    offsets=np.concatenate(
      [first.offsets, first.offsets[-1] + second.offsets[1:]]
    ),
    label=np.concatenate([first.label, second.label]),
    has_label=np.concatenate([first.has_label, second.has_label]),
    example_id=np.concatenate([first.example_id, after + second.example_id]),
    read_texts=lambda: first.texts + second.texts,
  )


def balanced_subset(
  examples: Examples, task: Task, n: int, seed: int
) -> Examples:
  """n rows, of each class as equally many as there are rows for.

  Args:
    examples: what to choose from.
    task: what the labels mean; only classes can be balanced, the rows of
      other kinds are drawn plainly.
    n: how many.
    seed: makes the draw; larger n of one seed hold smaller ones.

  Returns:
    The chosen rows, in their order.

  Raises:
    UsageError: if there are fewer than n rows, or n is not positive.
  """
  if not 0 < n <= len(examples):
    raise UsageError(
      f"the number of training examples must be from 1 to {len(examples)}, "
      f"got {n}."
    )
  order = permutation(len(examples), "balanced_subset", seed)
  # Round k takes the k-th row of each class, in the order of the draw.
  round_of, _ = _ranks(_classes(examples, task)[order])
  chosen = order[np.argsort(round_of, kind="stable")[:n]]
  return take(examples, np.sort(chosen))


def share_of(
  examples: Examples, task: Task, fraction: float, *name: object
) -> tuple[Examples, Examples]:
  """Draws a share of the rows, the same share of each class.

  Args:
    examples: what to draw from.
    task: what the labels mean; the rows of other kinds than classes are
      drawn plainly.
    fraction: the share, in (0, 1].
    *name: makes the draw: strings and numbers. Larger shares of one name hold
      smaller ones.

  Returns:
    (the share, the rest), both in their order; at least one row in the share.

  Raises:
    UsageError: if fraction is not in (0, 1].
  """
  if not 0 < fraction <= 1:
    raise UsageError(
      f"the share of the training rows must be above 0 and at most 1, got "
      f"{fraction}."
    )
  order = permutation(len(examples), *name)
  rank, size = _ranks(_classes(examples, task)[order])
  # Where a row stands in its class, as a share of it, says when it is taken.
  order = order[np.argsort((rank + 0.5) / size, kind="stable")]
  count = max(round(fraction * len(order)), 1)
  share, rest = np.split(order, [count])
  return take(examples, np.sort(share)), take(examples, np.sort(rest))


def without_labels(examples: Examples) -> Examples:
  """The same rows, whose labels nobody knows."""
  return dataclasses.replace(
    examples,
    label=np.zeros_like(examples.label),
    has_label=np.zeros_like(examples.has_label),
  )


def hold_out(
  examples: Examples, task: Task, fraction: float, seed: int
) -> tuple[Examples, Examples]:
  """Splits off validation rows, the same share of each class.

  Args:
    examples: all rows.
    task: what the labels mean; the rows of other kinds than classes are
      drawn plainly.
    fraction: the share of rows to hold out, between 0 and 1.
    seed: makes the draw.

  Returns:
    (the rows that stay, the rows held out), both in their order; at least
    one row in each.

  Raises:
    UsageError: if fraction is not between 0 and 1, or there is one row.
  """
  if not 0 < fraction < 1:
    raise UsageError(
      f"the validation fraction must be between 0 and 1, got {fraction}."
    )
  if len(examples) < 2:
    raise UsageError("one row cannot be split into training and validation.")
  order = permutation(len(examples), "hold_out", seed)
  # Sorted by class, rows at equal distances are equal shares of the classes.
  order = order[np.argsort(_classes(examples, task)[order], kind="stable")]
  count = min(max(round(fraction * len(order)), 1), len(order) - 1)
  at = ((np.arange(count) + 0.5) * len(order) / count).astype(np.int64)
  return (
    take(examples, np.sort(np.delete(order, at))),
    take(examples, np.sort(order[at])),
  )


def _classes(examples: Examples, task: Task) -> np.ndarray:
  """i64[N]: the class of each row; 0 where rows are not of classes."""
  if task.kind == TaskKind.CLASSES:
    return np.argmax(examples.label, axis=1)
  return np.zeros(len(examples), np.int64)


def _ranks(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Of each row: how many of its group stand before it, and all there are."""
  rank, size = np.empty((2, len(groups)), np.int64)
  for group in np.unique(groups):
    members = np.flatnonzero(groups == group)
    rank[members] = np.arange(len(members))
    size[members] = len(members)
  return rank, size
