"""Texts as tokens, as the model was trained to read them, and its answers.

This file is written into an export, beside the vocabulary that it reads. It
needs NumPy, and sentencepiece or tokenizers, whichever reads that:

  texts = Texts(DIRECTORY)
  tokens, mask = texts.batch(["my card has not arrived"])
  answers = texts.answers(logits)

where logits are what the model says of tokens and mask.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np


def _encoder(path: str) -> Callable[[str], list[int]]:
  """A text's ids, without those that stand around it.

  Raises:
    OSError: if there is no such file.
  """
  if not path.endswith(".json"):
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=path).encode
  import tokenizers

  with open(path, "rb") as file:
    tokenizer = tokenizers.Tokenizer.from_buffer(file.read())
  # A special token that is written out in a text is letters.
  tokenizer.encode_special_tokens = True
  return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


class Texts:
  """The vocabulary, the length and the labels of the model in a directory.

  Args:
    directory: of the export.

  Attributes:
    task: what task.json holds: `kind` ("classes", "regression" or
      "multi_label"), `label_names`, `pair`, `max_length`, `vocab`, the name of
      the vocabulary's file, and the ids that stand around texts: `before`
      them, `between` those of a pair, and the `end`.

  Raises:
    FileNotFoundError: if it holds no task.json.
    OSError: if it holds no vocabulary.
  """

  def __init__(self, directory: str | os.PathLike):
    with open(os.path.join(directory, "task.json"), encoding="utf-8") as file:
      self.task = json.load(file)
    self._encode = _encoder(os.path.join(directory, self.task["vocab"]))

  def tokens(self, text: str | Sequence[str]) -> list[int]:
    """The ids of a text, or of a pair of texts, as the model reads them.

    With the special tokens around texts. What is longer than the model's length
    is cut, of a pair the longer text first.

    Args:
      text: a text; or two of them, where the model was trained on pairs.

    Returns:
      Up to `max_length` ids.

    Raises:
      ValueError: if it is a pair where it should be one text, or the other
        way round, or a text is empty.
    """
    parts = [text] if isinstance(text, str) else list(text)
    if len(parts) != 1 + self.task["pair"]:
      wanted = "pairs of texts" if self.task["pair"] else "single texts"
      raise ValueError(f"the model reads {wanted}, got {text!r}")
    if not all(isinstance(part, str) and part.strip() for part in parts):
      raise ValueError(f"a text must be a str and not empty, got {text!r}")
    ids = [self._encode(part) for part in parts]
    before, between = self.task["before"], self.task["between"]
    keep = [len(part) for part in ids]
    room = self.task["max_length"] - len(before) - 1
    room -= len(between) * (len(parts) - 1)
    while sum(keep) > room:
      keep[max(range(len(keep)), key=lambda i: (keep[i], i))] -= 1
    row = [*before, *ids[0][: keep[0]]]
    for part, count in zip(ids[1:], keep[1:], strict=True):
      row += [*between, *part[:count]]
    return [*row, self.task["end"]]

  def batch(
    self, texts: Iterable[str | Sequence[str]]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Texts as arrays, padded to 16, 24, 32, 48, 64, 96, ... tokens.

    So a compiled program has few shapes to be compiled for.

    Args:
      texts: at least one, as of `tokens`.

    Returns:
      tokens i32[B, L] and mask bool[B, L], False at padding.

    Raises:
      ValueError: as `tokens`, and if there is no text.
    """
    if isinstance(texts, str):
      raise ValueError(f"texts must be a list of them, got {texts!r}")
    rows = [self.tokens(text) for text in texts]
    if not rows:
      raise ValueError("there must be at least one text, got none")
    longest = max(map(len, rows))
    size = 16
    while size < longest:  # 2^k, then 3/2 2^k, then 2^(k + 1)
      size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    size = min(size, self.task["max_length"])
    tokens = np.zeros((len(rows), size), np.int32)
    mask = np.zeros((len(rows), size), bool)
    for i, row in enumerate(rows):
      tokens[i, : len(row)], mask[i, : len(row)] = row, True
    return tokens, mask

  def answers(self, logits: np.ndarray) -> list[dict[str, Any]]:
    """What logits mean.

    Args:
      logits: f[B, C], or values of a regression, C = 1.

    Returns:
      Per row {"prediction": its class, the names that apply, or its value;
      "probabilities": {name: number}, where it is no regression}.

    Raises:
      ValueError: if there are not as many columns as the model has outputs.
    """
    logits = np.asarray(logits, np.float64)
    names, kind = self.task["label_names"], self.task["kind"]
    if logits.ndim != 2 or logits.shape[1] != max(len(names), 1):
      raise ValueError(
        f"logits must be of the shape [B, {max(len(names), 1)}], got "
        f"{list(logits.shape)}"
      )
    if kind == "regression":
      return [{"prediction": float(row[0])} for row in logits]
    if kind == "classes":
      p = np.exp(logits - logits.max(axis=1, keepdims=True))
      p /= p.sum(axis=1, keepdims=True)
      said = [names[int(i)] for i in logits.argmax(axis=1)]
    else:
      p = np.exp(-np.logaddexp(0.0, -logits))
      said = [
        [n for n, x in zip(names, row, strict=True) if x > 0] for row in logits
      ]
    return [
      {
        "prediction": prediction,
        "probabilities": dict(zip(names, row, strict=True)),
      }
      for prediction, row in zip(said, np.round(p, 6).tolist(), strict=True)
    ]
