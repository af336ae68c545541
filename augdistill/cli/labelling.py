"""A trained run as a function of texts: to tokens, to a batch, to answers."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from augdistill.cli.trained import Trained
from augdistill.cli.waiting import Model
from augdistill.data.shapes import (
  Shape,
  next_batch,
  padded_batch,
  shapes_up_to,
)
from augdistill.data.texts import encode_rows
from augdistill.evaluation.predict import logits_of, predict
from augdistill.evaluation.predictions import answers, prediction_rows
from augdistill.types import Batch

Text = tuple[str, ...]  # one text, or two of a pair
Answer = dict[str, Any]

# Of a batch from a file. A line of a terminal is not worth a batch of 256.
_FILE_ROWS = (16, 256)
# Of a server's batch: one text is worth its own, and 64 keep a CPU busy. None
# has more positions than these, so that nobody waits long behind it.
_SERVER_ROWS = (1, 8, 64)
_MAX_POSITIONS = 8192


def labeller(
  trained: Trained,
) -> Callable[[Sequence[Text]], Iterator[dict[str, Any]]]:
  """Labels many texts at once, those of about one length together.

  Args:
    trained: the run; its vocabulary is read here.

  Returns:
    texts -> what `prediction_rows` makes of them, in their order.
  """
  served, vocab = trained.served, trained.vocab
  params = jax.device_put(trained.params)
  shapes = shapes_up_to(served.max_length, _FILE_ROWS)

  def label(texts: Sequence[Text]) -> Iterator[dict[str, Any]]:
    outputs = served.task.num_outputs
    rows = encode_rows(texts, vocab, served.max_length, outputs)
    order = []

    def batches() -> Iterator[Batch]:
      tokens, left = _split(rows.tokens, rows.offsets), np.arange(len(texts))
      while left.size:
        chosen, shape = next_batch(rows.lengths[left], shapes)
        order.extend(left[chosen])
        yield padded_batch([tokens[i] for i in left[chosen]], shape, outputs)
        left = np.delete(left, chosen)

    found = predict(trained.network, params, batches())
    logits = np.empty_like(found)
    logits[order] = found
    yield from prediction_rows(served.task, rows, logits)

  return label


def server_model(trained: Trained) -> Model:
  """The run as a server asks it.

  Requests have few shapes, three for each padded length: of a model of 128
  tokens (1, 16), (8, 16), (64, 16), (1, 32), ..., (64, 128), of one of 512 also
  (1, 256), (8, 256), (32, 256), (1, 512), (8, 512) and (16, 512), rows and
  tokens. A text is cut to the run's `max_length`, as in a file.

  Args:
    trained: the run; its vocabulary is read here.

  Returns:
    What encodes and answers, in these shapes.
  """
  served, vocab = trained.served, trained.vocab
  outputs, params = served.task.num_outputs, jax.device_put(trained.params)

  def encode(texts: Sequence[Text]) -> list[np.ndarray]:
    rows = encode_rows(texts, vocab, served.max_length, outputs)
    return _split(rows.tokens, rows.offsets)

  def answer(rows: Sequence[np.ndarray], shape: Shape) -> list[Answer]:
    batch = padded_batch(rows, shape, outputs)
    logits = np.asarray(logits_of(trained.network, params, batch))
    return answers(served.task, logits[: len(rows)].astype(np.float32))

  shapes = shapes_up_to(served.max_length, _SERVER_ROWS, _MAX_POSITIONS)
  return Model(encode, answer, shapes)


def _split(tokens: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
  """The tokens of each row."""
  return [tokens[a:b] for a, b in itertools.pairwise(offsets)]
