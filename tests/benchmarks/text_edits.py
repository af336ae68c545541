"""Sentences per second of EDA on the device, against EDA as a loop in Python.

Both edit the same rows of the help-desk data with the same lists of neighbours,
those of the teacher's table, and both end with padded rows of tokens. Python's
is measured on lists of token ids, and on texts that are tokenised behind it, as
tools for texts do it, one core each; the device has all.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from augdistill import prng
from augdistill.augment.edits import edit_tokens
from augdistill.augment.replacement import (
  neighbour_lists,
  replace_by_neighbours,
)
from augdistill.data.batches import make_batch
from augdistill.data.load import Data, DataConfig, load_data
from augdistill.data.vocabulary import PAD_ID
from augdistill.models.enct5 import enct5
from augdistill.models.sizes import enct5_config
from augdistill.types import Batch, Models, ViewMaker
from tests.benchmarks import python_edits
from tests.benchmarks.python_edits import Neighbours, Words
from tests.benchmarks.turns import Figure, at_least, figure, taking_turns

RATE, K = 0.1, 15
LENGTH = 32
ROWS = 4096
BATCH_SIZE = 512
_BEGINS_WORD = "▁"  # as SentencePiece writes it


def measure(quick: bool) -> list[Figure]:
  """EDA and KNN."""
  return figures_of(2048 if quick else ROWS, BATCH_SIZE)


def figures_of(rows: int, batch_size: int) -> list[Figure]:
  """The edits of some rows.

  Args:
    rows: how many.
    batch_size: rows that the device edits at once; it must divide `rows`.
  """
  data = load_data(DataConfig(task="helpdesk", max_length=LENGTH))
  models = make_models(data)
  batches = [
    make_batch(data.train, chosen, LENGTH)
    for chosen in np.split(np.arange(rows), rows // batch_size)
  ]
  on_device = jax.device_put(batches)
  ids = [row for batch in batches for row in words_of(batch, data)]
  near = dict(enumerate(np.asarray(models.lexicon.neighbours).tolist()))
  texts = [texts[0].split() for texts in data.train.texts[:rows]]
  near_words = words_near(near, data)
  draw = random.Random(0)

  def loop(edit, rows, neighbours):
    return [edit(words, neighbours, RATE, draw) for words in rows]

  def text_loop():
    edited = loop(python_edits.eda, texts, near_words)
    return padded(data.vocab.encode([" ".join(words) for words in edited]))

  slow = "EDA in Python, on ids", "EDA in Python, on texts, then tokenised"
  knn, fast, fast_knn = "KNN in Python, on ids", "EDA, a view", "KNN, a view"
  seconds = taking_turns(
    {
      slow[0]: lambda: padded(loop(python_edits.eda, ids, near)),
      slow[1]: text_loop,
      fast: edited(edit_tokens(RATE, k=K), models, on_device),
      knn: lambda: padded(loop(python_edits.knn, ids, near)),
      fast_knn: edited(replace_by_neighbours(RATE, K), models, on_device),
    }
  )

  def speed(name):
    return f"{rows / np.median(seconds[name]):,.0f}"

  asked = (
    (slow[0], fast, at_least(20)),
    (slow[1], fast, None),
    (knn, fast_knn, None),
  )
  return [
    figure(
      seconds,
      name,
      of,
      bound=bound,
      note=f"{speed(name)} and {speed(of)} sentences/s; {rows:,}, in batches "
      f"of {batch_size} x {LENGTH}",
    )
    for name, of, bound in asked
  ]


def make_models(data: Data) -> Models:
  """A micro student, a mini teacher, and the neighbours in its table."""
  student, teacher = (
    enct5(enct5_config(size, data.vocab.size, data.task.num_outputs))
    for size in ("micro", "mini")
  )
  params, theirs = (
    jax.jit(model.init)(prng.run_key(seed))
    for seed, model in enumerate((student, teacher))
  )
  lexicon = jax.device_put(data.vocab.lexicon)
  lists = neighbour_lists(teacher.table(theirs), lexicon, K)
  lexicon = lexicon._replace(neighbours=lists)
  return Models(student, params, teacher, theirs, lexicon)


def edited(
  maker: ViewMaker, models: Models, batches: Sequence[Batch]
) -> Callable[[], list[jax.Array]]:
  """What makes the view of every batch, with keys that none has seen."""

  @jax.jit
  def make(step, batch, lexicon):
    key = prng.at_step(prng.run_key(0), step)
    its = models._replace(lexicon=lexicon)
    return maker.make(key, batch, None, its, step).student.tokens

  steps = itertools.count()
  return lambda: [
    make(np.int32(next(steps)), batch, models.lexicon) for batch in batches
  ]


def words_of(batch: Batch, data: Data) -> Iterable[Words]:
  """The tokens of each row that may be edited."""
  protected = np.asarray(data.vocab.lexicon.protected)
  for row in batch.tokens:
    yield row[~protected[row]].tolist()


def words_near(near: Neighbours, data: Data) -> Neighbours:
  """The same lists, of the pieces that are whole words."""
  pieces = data.vocab.pieces(range(data.vocab.num_pieces))

  def begins(token):
    return token < len(pieces) and pieces[token].startswith(_BEGINS_WORD)

  return {
    pieces[token][1:]: [pieces[i][1:] for i in others if begins(i)]
    for token, others in near.items()
    if begins(token)
  }


def padded(rows: Sequence[Words]) -> np.ndarray:
  """Rows as i32[B, L], each cut to `LENGTH`."""
  array = np.full((len(rows), LENGTH), PAD_ID, np.int32)
  for i, row in enumerate(rows):
    row = row[:LENGTH]
    array[i, : len(row)] = row
  return array
