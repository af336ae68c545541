"""The steps of AugPro in PyTorch, as the paper describes them.

Written as one would who wants them fast: a teacher in inference mode, its
table normalised once, one pass of a model for all that is known beforehand,
and fused AdamW.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from tests.benchmarks.torch_models import EncT5

# Rows of a table that are searched at a time: with 32,000 of them faster than
# all at once.
BLOCK = 4096


class Rows(NamedTuple):
  """A batch.

  Attributes:
    tokens: i64[B, L], 0 at padding.
    mask: bool[B, L].
    label: i64[B], a class.
  """

  tokens: Tensor
  mask: Tensor
  label: Tensor


class Words(NamedTuple):
  """What may be put into a text.

  Attributes:
    producible: i64[P], ids that may be put somewhere.
    protected: bool[V], ids that stay where they are.
  """

  producible: Tensor
  protected: Tensor


class Distiller:
  """A student, its frozen teacher, and a step of each method."""

  def __init__(
    self, student: EncT5, teacher: EncT5, words: Words, compiled: bool
  ):
    self.student, self.teacher = student, teacher.requires_grad_(False)
    self.words = words
    # The teacher's does not change.
    self.directions = F.normalize(self._producible(teacher), dim=-1)
    weights = [*student.parameters()]
    self.optimizer = torch.optim.AdamW(
      [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": 0.01},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
      ],
      lr=1e-3,
      fused=True,
    )
    if compiled:
      student.compile(dynamic=False)
      teacher.compile(dynamic=False)

  def step(
    self, rows: Rows, method: str, partner: Tensor | None = None
  ) -> Tensor:
    """One step of a method; returns its loss, before the step.

    The views whose tokens are known beforehand, the batch and AugPro-Mix, go
    through each model together. FGSM's gradient is that of the first backward
    pass: the rows of a batch do not know each other.

    Args:
      rows: the batch.
      method: "kd", and "augpro_mix" or "augpro_fgsm" behind a plus.
      partner: i64[B], the row that each is mixed with; drawn by default.
    """
    size, (tokens, mask, label) = len(rows.tokens), rows
    if "augpro_mix" in method:
      tokens = torch.cat([tokens, self._mixed(rows, partner)])
      mask = torch.cat([mask, mask])
    words = self.student.embed(tokens)
    if "augpro_fgsm" in method:
      words.retain_grad()
    logits = self.student(words, mask)
    loss = F.cross_entropy(logits[:size], label)
    loss = loss + self._divergence(logits, tokens, mask) / size
    loss.backward()
    loss = loss.detach()
    if "augpro_fgsm" in method:
      tokens = self._perturbed(rows, words[:size].detach(), words.grad[:size])
      logits = self.student(self.student.embed(tokens), rows.mask)
      more = self._divergence(logits, tokens, rows.mask) / size
      more.backward()
      loss = loss + more.detach()
    torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
    self.optimizer.step()
    self.optimizer.zero_grad()
    return loss

  def _divergence(self, logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """The KL divergence from the teacher to the student, summed over rows."""
    with torch.inference_mode():
      answers = self.teacher(self.teacher.embed(tokens), mask)
      answers = F.log_softmax(answers, dim=-1)
    return F.kl_div(
      F.log_softmax(logits, dim=-1),
      answers.clone(),  # A tensor that autograd may keep.
      reduction="sum",
      log_target=True,
    )

  @torch.no_grad()
  def _mixed(self, rows: Rows, partner: Tensor | None) -> Tensor:
    """AugPro-Mix: the tokens nearest to the midpoints with the partners."""
    if partner is None:
      circle = torch.randperm(len(rows.tokens))
      partner = torch.empty_like(circle)
      partner[circle] = circle.roll(1)
    others = rows.tokens[partner]
    midpoints = self.teacher.embed(rows.tokens) + self.teacher.embed(others)
    free = self._free(rows.tokens) & self._free(others)
    return torch.where(
      free, self._nearest(midpoints, self.directions), rows.tokens
    )

  @torch.no_grad()
  def _perturbed(self, rows: Rows, words: Tensor, gradient: Tensor) -> Tensor:
    """AugPro-FGSM: the tokens nearest to where the gradient's sign points."""
    table = self._producible(self.student)
    moved = words + 2.0 * table.std(correction=0) * gradient.sign()
    nearest = self._nearest(moved, F.normalize(table, dim=-1))
    return torch.where(self._free(rows.tokens), nearest, rows.tokens)

  def _producible(self, model: EncT5) -> Tensor:
    """The embeddings that may be chosen: f32[P, D]."""
    return model.encoder.embed_tokens.weight.detach()[self.words.producible]

  def _nearest(self, queries: Tensor, directions: Tensor) -> Tensor:
    """Ids i64[B, L] of the rows nearest to f32[B, L, D] by cosine."""
    flat = queries.flatten(0, 1)
    best = [(flat @ part.T).max(dim=-1) for part in directions.split(BLOCK)]
    winner = torch.stack([found.values for found in best]).argmax(0, True)
    places = [found.indices + BLOCK * i for i, found in enumerate(best)]
    place = torch.stack(places).gather(0, winner)[0]
    return self.words.producible[place].view(queries.shape[:-1])

  def _free(self, tokens: Tensor) -> Tensor:
    """Where another token may stand; padding is protected."""
    return ~self.words.protected[tokens]


def batches(
  texts: list[tuple[Tensor, int]], batch_size: int, length: int | None
) -> Iterator[Rows]:
  """Shuffled batches without end.

  Args:
    texts: tokens and class of each row.
    batch_size: B.
    length: L; by default that of the longest text of the batch.
  """
  loader = DataLoader(
    texts,
    batch_size,
    shuffle=True,
    drop_last=True,
    collate_fn=lambda chosen: padded(chosen, length),
  )
  return itertools.chain.from_iterable(itertools.repeat(loader))


def padded(chosen: list[tuple[Tensor, int]], length: int | None) -> Rows:
  """Rows of one length; arguments as of `batches`."""
  texts, labels = zip(*chosen, strict=True)
  tokens = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
  if length is not None:
    tokens = F.pad(tokens, (0, length - tokens.shape[1]))
  return Rows(tokens, tokens > 0, torch.tensor(labels))
