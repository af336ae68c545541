"""What is found out about an export before it is said to be done.

Whether it says what the run says, what its weights cost, and how fast it is.
"""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from augdistill.checkpoints import exported
from augdistill.data.batches import batch_length, make_batch
from augdistill.data.dataset import Examples
from augdistill.errors import RunError
from augdistill.evaluation.latency import latency
from augdistill.evaluation.metrics import compute
from augdistill.evaluation.predict import agreement, logits_of, predict_split
from augdistill.types import Network, Params, Task

TOLERANCE = 1e-4  # of a logit, in float32
_COMPARED = 64  # rows
_BATCH_SIZES = (1, 32)


def logits(network: Network, params: Params, rows: Examples) -> np.ndarray:
  """What a network says of all rows, f32[N, C]."""
  size = min(256, -(-len(rows) // 16) * 16)
  return predict_split(network, jax.device_put(params), rows, size)


def compare(
  directory: pathlib.Path,
  written: exported.Logits,
  rows: Examples,
  said: np.ndarray,
) -> dict[str, Any]:
  """Compares what the files say of texts with what the run says.

  Args:
    directory: of the export, whose texts.py reads the texts.
    written: the logits of the files.
    rows: the run's; of more than 64, 64 of all lengths, the shortest and the
      longest among them.
    said: f32[N, C] the run's own logits of all rows.

  Returns:
    How many rows, their lengths, and the largest difference of a logit.

  Raises:
    RunError: if a text has other tokens, or a logit differs by more than
      `TOLERANCE`.
  """
  texts = exported.read_texts(directory)
  by_length = np.argsort(rows.lengths, kind="stable")
  at = np.linspace(0, len(rows) - 1, min(_COMPARED, len(rows)))
  chosen, largest = by_length[np.rint(at).astype(np.int64)], 0.0
  for part in np.array_split(chosen, -(-len(chosen) // 16)):
    tokens, mask = texts.batch([_as_given(rows.texts[i]) for i in part])
    wanted = make_batch(rows, part, tokens.shape[1])
    if not (
      np.array_equal(mask.sum(axis=1), rows.lengths[part])
      and np.array_equal(np.where(mask, tokens, -1), _masked(wanted))
    ):
      raise RunError(
        "the export must read texts as the run does, and does not: "
        f"{rows.texts[part[0]]!r} or one of the {len(part) - 1} rows after it; "
        "nothing was written"
      )
    off = np.abs(written(tokens, mask) - said[part]).max()
    largest = max(largest, float(np.nan_to_num(off, nan=np.inf)))
  if not largest <= TOLERANCE:
    raise RunError(
      f"the export's logits must be the run's, up to {TOLERANCE}, and differ "
      f"by {largest:.3g} on {len(chosen)} rows; nothing was written"
    )
  return {
    "rows": len(chosen),
    "shortest": int(rows.lengths[chosen].min()),
    "longest": int(rows.lengths[chosen].max()),
    "largest_difference": largest,
    "tolerance": TOLERANCE,
  }


def _as_given(texts: tuple[str, ...]) -> str | tuple[str, ...]:
  return texts if len(texts) == 2 else texts[0]


def _masked(batch) -> np.ndarray:
  return np.where(batch.mask, batch.tokens, -1)


def scores(
  task: Task, rows: Examples, before: np.ndarray, after: np.ndarray
) -> dict[str, Any]:
  """What it costs to store weights otherwise.

  Args:
    task: what logits mean.
    rows: the rows.
    before: f32[N, C] logits with the run's own weights.
    after: f32[N, C] logits with the weights as they are stored.

  Returns:
    How many rows; the metrics of both, `before` and `after`, where rows have
    labels; how often the two agree; and the largest change of a logit.
  """
  found: dict[str, Any] = {"rows": len(rows)}
  if rows.has_label.any():
    for name, said in (("before", before), ("after", after)):
      found[name] = compute(task, said, rows.label, rows.has_label)
  return found | {
    "agreement": agreement(after, before, task),
    "largest_change": float(np.abs(after - before).max()),
  }


def latencies(
  networks: Mapping[str, tuple[Network, Params]],
  written: exported.Logits,
  rows: Examples,
) -> dict[str, Any]:
  """How long networks take, jitted, and what was written.

  Args:
    networks: name -> network and parameters.
    written: the logits of the files; it is called "export".
    rows: the run's; those of middling length are timed.

  Returns:
    The device; for batches of 1 and of 32 their tokens per row; and by name,
    then by size of the batch, the latency.
  """
  by_length = np.argsort(rows.lengths, kind="stable")
  device = jax.devices()[0]
  found: dict[str, Any] = {
    "device": f"{device.platform}: {device.device_kind}",
    "cpu_cores": os.cpu_count(),
    "tokens": {},
    **{name: {} for name in (*networks, "export")},
  }
  for size in _BATCH_SIZES:
    middle = np.arange(size) + (len(rows) - size) // 2
    chosen = by_length[np.clip(middle, 0, len(rows) - 1)]
    batch = make_batch(rows, chosen, batch_length(rows.lengths, chosen))
    found["tokens"][str(size)] = batch.tokens.shape[1]

    def call_written(batch=batch):
      return written(batch.tokens, batch.mask)

    calls: dict[str, Callable[[], Any]] = {"export": call_written}
    for name, (network, params) in networks.items():
      calls[name] = lambda n=network, p=params, b=batch: np.asarray(
        logits_of(n, p, b)
      )
    for name, call in calls.items():
      found[name][str(size)] = latency(call)._asdict()
  return found
