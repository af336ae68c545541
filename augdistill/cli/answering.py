"""The teacher's answers to a run's training rows, asked once for all runs.

For the clean batch a frozen teacher is asked the same in every epoch, in every
run of a grid and after every restart. With --teacher_cache it is asked once;
what is kept and by what it is found is said in `augdistill.data.answers`.
"""

import dataclasses
import hashlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from augdistill.cli.parts import Experiment
from augdistill.data.answers import Answers, AnswerStore, keys_of, stand_ins
from augdistill.data.batches import (
  make_batch,
  round_down_length,
  share_of_host,
  text_length,
)
from augdistill.data.dataset import Examples
from augdistill.data.plan import evaluation_rows
from augdistill.errors import UsageError
from augdistill.evaluation.answers import answers_of
from augdistill.evaluation.predict import fetch
from augdistill.training import mesh, processes
from augdistill.training.rehearsal import spares_teacher
from augdistill.types import Params

# Rows of which the teacher is asked again, to see that it still answers so.
_ASKED_AGAIN = 8
# How far the two may be apart, as a share of the largest answer: programs of
# other shapes round differently.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
# A file is written when a tenth of all that was asked would be lost, if not
# before so many seconds; or when it has so many bytes.
_SHARE, _SECONDS, _BYTES = 0.1, 30.0, 64 * 2**20


def with_answers(experiment: Experiment) -> Experiment:
  """The experiment with its teacher's answers; what its cache lacks is asked.

  Without a cache, or with a method that must run the teacher all the same, it
  is as it was; the latter is told.

  Raises:
    UsageError: if the cache cannot be used, is not what it says, or is not the
      same for all processes.
  """
  config = experiment.config
  if not _has_cache(experiment):
    return experiment
  if not _spares_teacher(experiment):
    print(
      f"{config.method} reads more of the teacher than its answers to the "
      "training rows: it is asked at every step, and --teacher_cache is left "
      "as it is"
    )
    return experiment
  rows = experiment.for_teacher(experiment.train)
  keys = keys_of(rows)
  store = AnswerStore(
    config.teacher_cache,
    _ingredients(experiment),
    config.teacher_cache_draws or 1,
    experiment.data.task.num_outputs,
  )
  there = processes.as_first(store.find(keys).there)
  missing = np.setdiff1d(
    np.unique(keys, return_index=True)[1], np.flatnonzero(there)
  )
  print(
    f"the teacher's answers to {len(rows):,} rows: {there.sum():,} are in "
    f"{store.path}"
    + (f", {len(missing):,} texts are asked now" if len(missing) else "")
  )
  _fill(experiment, rows, keys, missing, store)
  processes.wait_for_all("the teacher's answers are kept")
  found = store.find(keys)
  if not processes.are_alike(found.there.tobytes() + found.digest):
    raise UsageError(
      f"all processes must see the same files in {store.path}; give a "
      "--teacher_cache on a disk that all hosts share"
    )
  if not found.there.all():
    raise UsageError(
      f"{store.path} must keep what is written to it, and lacks "
      f"{np.sum(~found.there):,} rows that were; choose another "
      "--teacher_cache"
    )
  _check(experiment, rows, found.answers, np.flatnonzero(there), store)
  return dataclasses.replace(experiment, answers=found.answers)


def with_stand_ins(experiment: Experiment) -> Experiment:
  """As `with_answers`, with made-up ones, to see what a step costs.

  Nothing is asked, read, written or said.
  """
  if not (_has_cache(experiment) and _spares_teacher(experiment)):
    return experiment
  rows, outputs = len(experiment.train), experiment.data.task.num_outputs
  return dataclasses.replace(experiment, answers=stand_ins(rows, outputs))


def _has_cache(experiment: Experiment) -> bool:
  given = experiment.config.teacher_cache is not None
  return given and experiment.policy.needs_teacher


def _spares_teacher(experiment: Experiment) -> bool:
  """Whether a method of the run need not ask where the answers are known."""
  return any(
    spares_teacher(
      method,
      experiment.student,
      experiment.teacher.network,
      experiment.served.model.vocab_size,
      experiment.apart,
    )
    for method in experiment.policy.methods
  )


def _ingredients(experiment: Experiment) -> dict[str, Any]:
  """All that a teacher's answer to given tokens depends on.

  What makes tokens of a text, lengths among them, is in the tokens.
  """
  teacher, config = experiment.teacher, experiment.config
  model = teacher.served.model
  device = jax.devices()[0]
  return {
    "format": 1,
    "parameters": _hash_of(teacher.params),
    "model": {"type": type(model).__name__} | dataclasses.asdict(model),
    "vocabulary": teacher.vocab.fingerprint,
    "draws_with_dropout": config.teacher_cache_draws,
    # They round differently, and draw differently some day.
    "device": device.device_kind,
    "matmul_precision": jax.config.jax_default_matmul_precision,
    "jax": jax.__version__,
  }


def _hash_of(params: Params) -> str:
  """sha256 of names, shapes, types and contents."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    leaf = np.ascontiguousarray(leaf)
    name = jax.tree_util.keystr(path)
    digest.update(f"{name} {leaf.shape} {leaf.dtype}\n".encode())
    digest.update(leaf.tobytes())
  return digest.hexdigest()


def _fill(
  experiment: Experiment,
  rows: Examples,
  keys: np.ndarray,
  missing: np.ndarray,
  store: AnswerStore,
) -> None:
  """Asks for what is missing, all processes together; the first one writes."""
  start = last = time.monotonic()
  asked, held = [], []
  done = size = 0
  for batch, answers in _asked(experiment, rows, missing):
    asked, held = [*asked, keys[batch]], [*held, answers]
    done, size = done + len(batch), size + answers.nbytes
    now = time.monotonic()
    due = now - last >= max(_SECONDS, _SHARE * (now - start))
    if due or size >= _BYTES or done == len(missing):
      if processes.is_first():
        store.add(np.concatenate(asked), np.concatenate(held))
      print(
        f"the teacher has answered {done:,} of {len(missing):,} texts in "
        f"{time.monotonic() - start:.1f} s"
      )
      asked, held, last, size = [], [], now, 0


def _asked(
  experiment: Experiment, rows: Examples, chosen: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """(numbers of rows, f32[K, m, C] the teacher's answers to them).

  A row is padded to the `text_length` of its own, whatever is beside it.
  """
  teacher, config = experiment.teacher, experiment.config
  devices = experiment.mesh
  lengths = _padded(rows.lengths[chosen], teacher.served.model.max_length)
  for length in np.unique(lengths):
    its = chosen[lengths == length]
    # One program for each length, and no larger than its rows need.
    size = min(config.eval_batch_size, len(its))
    size = mesh.round_up_rows(size, devices)
    shard = share_of_host(size, mesh.shares_here(devices))
    for places, weight in evaluation_rows(len(its), size):
      batch = make_batch(rows, its[places][shard], int(length), weight[shard])
      answers = answers_of(
        teacher.network,
        experiment.teacher_params,
        mesh.place_batch(batch, devices),
        config.teacher_cache_draws,
      )
      yield its[places][weight > 0], fetch(answers)[weight > 0]


def _padded(lengths: np.ndarray, longest: int | None = None) -> np.ndarray:
  """The length that each row is padded to, no longer than a model can read."""
  sizes = np.array(list(map(text_length, lengths.tolist())))
  return (
    sizes if longest is None else np.minimum(sizes, round_down_length(longest))
  )


def _check(
  experiment: Experiment,
  rows: Examples,
  kept: Answers,
  found: np.ndarray,
  store: AnswerStore,
) -> None:
  """Raises UsageError where the teacher answers otherwise than it did.

  Some of the rows that others have asked are asked again: whatever a
  fingerprint does not know of, such as another version of a model's code, shows
  here.
  """
  if not len(found):
    return
  lengths = _padded(rows.lengths[found])
  values, counts = np.unique(lengths, return_counts=True)
  found = found[lengths == values[np.argmax(counts)]]  # So, one program.
  sample = found[:: max(1, len(found) // _ASKED_AGAIN)][:_ASKED_AGAIN]
  batches = zip(*_asked(experiment, rows, sample), strict=True)
  sample, now = map(np.concatenate, batches)
  then = np.stack(
    [kept.at(sample, np.full(len(sample), draw)) for draw in range(kept.draws)],
    axis=1,
  )
  tolerance = _TOLERANCE[experiment.teacher.served.model.dtype]
  apart = np.abs(now - then).max(axis=(1, 2))
  worst = int(np.argmax(apart))
  if not apart[worst] <= tolerance * max(1.0, np.abs(now).max()):
    example = int(rows.example_id[sample[worst]])
    raise UsageError(
      f"{store.path} must hold what the teacher answers, but its answer to "
      f"example {example} is {apart[worst]:.3g} away from the teacher's of "
      "today; remove the directory, to ask again"
    )
