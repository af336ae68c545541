"""What can be seen to be wrong with a run before it begins."""

import os
import shutil
import statistics
import time
from typing import Any

import jax
import numpy as np

from augdistill.cli import fit
from augdistill.cli.answering import with_stand_ins
from augdistill.cli.parts import Experiment
from augdistill.cli.scoring import score
from augdistill.cli.trained import count
from augdistill.data import quality
from augdistill.data.dataset import Examples, take
from augdistill.errors import UsageError
from augdistill.evaluation.outputs import decide
from augdistill.evaluation.relabeling import relabel
from augdistill.reports import diagnosis
from augdistill.reports.diagnosis import Finding, Level
from augdistill.training import freed_memory
from augdistill.training.abstract import peak_bytes
from augdistill.training.step import TrainState
from augdistill.types import Batch, TaskKind

# Rows on which a teacher is judged: a sample of this size tells enough.
_JUDGED_ROWS = 2000
_TIMED_STEPS = 10
# Steps whose batches are looked at for the lengths that there are.
_SEEN_STEPS = 100


def judge_teacher(experiment: Experiment) -> Finding | None:
  """Whether the teacher knows the task; None where there is no teacher.

  It is asked for validation rows, or for labelled training rows where there
  are none.
  """
  teacher, data = experiment.teacher, experiment.data
  rows = data.validation if data.validation is not None else data.train
  if teacher is None or rows is None:
    return None
  rows = _even_sample(take(rows, np.flatnonzero(rows.has_label)))
  its = experiment.for_teacher(rows)
  theirs = experiment.teacher_params
  logits, _ = score(experiment, teacher.network, theirs, its)
  if data.task.kind == TaskKind.CLASSES and len(rows):
    found = relabel(decide(data.task.kind, logits), rows.label)
    return diagnosis.judge_teacher(found, data.task.label_names, len(rows))
  correlation = chance = 0.0
  # Each output against its own labels: some names are given more often.
  x, y = logits - logits.mean(axis=0), rows.label - rows.label.mean(axis=0)
  if np.any(x) and np.any(y):
    from scipy import stats  # The longest import of all.

    correlation, chance = stats.pearsonr(x.ravel(), y.ravel())
  return diagnosis.judge_values(float(correlation), float(chance), len(rows))


def refuse_useless_teacher(experiment: Experiment) -> None:
  """Raises UsageError if nothing can be learnt from the teacher."""
  found = judge_teacher(experiment)
  if found and found.level == Level.RED:
    raise UsageError(
      f"{experiment.config.teacher} cannot teach: {found.says}; "
      f"{found.remedy}. --force learns from it all the same"
    )


def _even_sample(rows: Examples) -> Examples:
  if len(rows) <= _JUDGED_ROWS:
    return rows
  return take(rows, np.linspace(0, len(rows) - 1, _JUDGED_ROWS).astype(int))


def judge_data(experiment: Experiment) -> list[Finding]:
  """Classes, copies, leaks, lengths and unknown tokens."""
  data, train = experiment.data, experiment.train
  findings = []
  if experiment.apart:
    path = experiment.teacher.vocab_path
    findings.append(diagnosis.judge_vocabularies(path))
  if data.task.kind == TaskKind.CLASSES and train.has_label.any():
    counts = quality.class_counts(train, data.task.num_outputs)
    findings.append(diagnosis.judge_classes(counts, data.task.label_names))
  findings.append(
    diagnosis.judge_share(
      "duplicates",
      "repeat the text of an earlier training row",
      int(quality.repeated(train).sum()),
      len(train),
      diagnosis.REPEATED,
      "leave them out, for example: "
      + "; ".join(map(repr, quality.most_repeated(train))),
    )
  )
  findings.append(
    diagnosis.judge_share(
      "labels",
      "have a text that has another label elsewhere",
      int(quality.contradicted(train).sum()),
      len(train),
      diagnosis.CONTRADICTED,
      "decide for one label",
    )
  )
  for split in ("validation", "test"):
    rows = getattr(data, split)
    if rows is not None:
      findings.append(
        diagnosis.judge_share(
          f"{split} leak",
          "have a text that is learnt from",
          int(quality.leaked(train, rows).sum()),
          len(rows),
          diagnosis.LEAKED,
          f"take these texts out of the training rows, or {split} scores "
          "praise learning by heart",
        )
      )
  max_length = experiment.config.data.max_length
  findings.append(
    diagnosis.judge_lengths(quality.lengths(train, data.vocab, max_length))
  )
  unknown = quality.unknown_share(train, data.vocab)
  findings.append(diagnosis.judge_unknown(unknown, len(train.tokens)))
  return findings


def judge_step(experiment: Experiment) -> list[Finding]:
  """What a step takes: memory as its compiler says, seconds as measured.

  Batches have different lengths. The longest and the shortest are run, and
  between them the seconds are taken to grow with the length.
  """
  config = experiment.config
  training = fit.training(with_stand_ins(experiment))
  state, step = training.initial_state(), training.make_step()
  device = jax.local_devices()[0]
  there, needed, costs = _memory_of(device), 0, []
  for chosen in range(len(step.compiled)):
    numbers = [n for n in range(_SEEN_STEPS) if step.choose(n) == chosen]
    batches = [training.batch_at(number) for number in numbers]
    batches.sort(key=lambda batch: batch.tokens.shape[-1])
    seconds = []
    for batch in (batches[-1], batches[0]):
      lowered = step.compiled[chosen].lower(*step.arguments(state, batch))
      compiled = lowered.compile()
      needed = max(needed, peak_bytes(compiled.memory_analysis()))
      memory = diagnosis.judge_memory(needed, there, device.device_kind)
      if memory.level == Level.RED:  # To run it would be to fail.
        return [memory]
      state, took = _run_steps(compiled, step, state, batch)
      seconds.append(took)
    lengths = [batch.tokens.shape[-1] for batch in batches]
    ends = ([lengths[0], lengths[-1]], seconds[::-1])
    costs += np.interp(lengths, *ends).tolist()
  per_step = statistics.fmean(costs)
  return [
    memory,
    Finding(
      Level.GREEN,
      "time",
      f"about {per_step:.2g} s a step, so {config.num_steps:,} steps take "
      f"{_spell(per_step * config.num_steps)} without compiling and "
      f"evaluating (from {_TIMED_STEPS} steps)",
      numbers={
        "seconds_per_step": per_step,
        "num_steps": config.num_steps,
      },
    ),
  ]


def _run_steps(
  compiled: Any, step: fit.Step, state: TrainState, batch: Batch
) -> tuple[TrainState, float]:
  """Runs a batch's step: the state, and its median seconds."""
  seconds = []
  for number in range(1 + _TIMED_STEPS // 2):
    start = time.perf_counter()
    state, metrics = compiled(*step.arguments(state, batch))
    jax.block_until_ready((state, metrics))
    if not number:
      freed_memory.keep()  # As a run does.
    seconds.append(time.perf_counter() - start)
  return state, statistics.median(seconds[1:])  # The first warms up.


def judge_disk(experiment: Experiment, output_dir: str) -> Finding:
  """Whether the checkpoints find room in the directory of the run."""
  path = os.path.abspath(output_dir)
  while not os.path.exists(path):
    path = os.path.dirname(path)
  shapes = jax.eval_shape(experiment.student.init, jax.random.key(0))
  state = 3 * 4 * count(shapes)  # Parameters and two moments, in float32.
  kept = experiment.config.keep_checkpoints + 2  # The best, and one being made.
  free = shutil.disk_usage(path).free
  return diagnosis.judge_disk(kept * state, free, path)


def _memory_of(device: jax.Device) -> int | None:
  """Bytes of a device; of the whole machine for a CPU."""
  if device.platform == "cpu":
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  return (device.memory_stats() or {}).get("bytes_limit")


def _spell(seconds: float) -> str:
  """Seconds for a person."""
  if seconds < 120:
    return f"{seconds:.0f} s"
  if seconds < 7200:
    return f"{seconds / 60:.0f} min"
  return f"{seconds / 3600:.1f} h"
