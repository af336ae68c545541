"""What numbers about a run mean: fine, doubtful, or a mistake, and what to do.

Every threshold that `augdistill doctor` has stands here.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from augdistill.data.quality import Lengths
from augdistill.errors import listing
from augdistill.evaluation.relabeling import Relabeling

# Shares of rows: yellow up to them, red above; green is none at all.
REPEATED = 0.05
LEAKED = 0.05
CONTRADICTED = 0.05
# Green up to the first, red above the second.
UNKNOWN = (0.005, 0.05)
CUT = (0.01, 0.5)
# The largest class beside the smallest, above which it is yellow.
IMBALANCE = 20
# Labelled rows that it takes to say whether a teacher knows anything.
ENOUGH_ROWS = 30
# Share of a device's memory above which it is yellow.
NEARLY_FULL = 0.8
# So many times the disk space that checkpoints take should be free.
SPARE_DISK = 3


class Level(enum.StrEnum):
  """How serious a finding is."""

  GREEN = "green"
  YELLOW = "yellow"
  RED = "red"


class Finding(NamedTuple):
  """One thing that was looked at.

  Attributes:
    level: how serious it is.
    topic: what was looked at, in a word or two.
    says: what was found.
    remedy: what to do about it; "" where there is nothing to be done.
    numbers: what was measured, by name.
  """

  level: Level
  topic: str
  says: str
  remedy: str = ""
  numbers: Mapping[str, float] = {}


def worst(findings: Sequence[Finding]) -> Level:
  """The most serious level; green where nothing was looked at."""
  levels = {finding.level for finding in findings}
  for level in (Level.RED, Level.YELLOW):
    if level in levels:
      return level
  return Level.GREEN


def judge_teacher(
  found: Relabeling, label_names: Sequence[str], rows: int
) -> Finding:
  """Whether a teacher of classes knows the task, in the data's order.

  Args:
    found: its answers on validation rows, as of `relabel`.
    label_names: the name of each class.
    rows: how many labelled rows these were.
  """
  topic = "teacher"
  scored = f"accuracy {found.accuracy:.1%} on {rows:,} validation rows"
  if rows < ENOUGH_ROWS:
    return Finding(
      Level.YELLOW,
      topic,
      f"{scored}, too few to tell whether it knows the task",
      f"give --validation at least {ENOUGH_ROWS} labelled rows",
    )
  if found.permuted:
    moved = [
      f"{label_names[output]} means {label_names[meant]}"
      for output, meant in enumerate(found.order)
      if output != meant
    ]
    return Finding(
      Level.RED,
      topic,
      f"its classes are permuted: {scored}, and "
      f"{found.permuted_accuracy:.1%} where {listing(moved, 6)}",
      "give the labels of the data the teacher's names for them, or "
      "fine-tune a teacher on these data",
    )
  chance = f"the most frequent class alone has {found.chance:.1%}"
  if not found.knows:
    return Finding(
      Level.RED,
      topic,
      f"near chance: {scored}, and {chance}",
      "fine-tune it on this task, or for more steps, before it teaches",
    )
  return Finding(Level.GREEN, topic, f"{scored} ({chance})")


def judge_values(correlation: float, chance: float, rows: int) -> Finding:
  """Whether a teacher of values, or of sets of names, knows the task.

  Args:
    correlation: of its outputs with the labels, on validation rows.
    chance: the p-value of this correlation, if there were none.
    rows: how many labelled rows these were.
  """
  says = f"correlation {correlation:.2f} with the labels of {rows:,} rows"
  if rows < ENOUGH_ROWS:
    return Finding(
      Level.YELLOW,
      "teacher",
      f"{says}, too few to tell whether it knows the task",
      f"give --validation at least {ENOUGH_ROWS} labelled rows",
    )
  if correlation > 0 and chance < 1e-3:
    return Finding(Level.GREEN, "teacher", says)
  return Finding(
    Level.RED,
    "teacher",
    f"near chance: {says}",
    "fine-tune it on this task, or for more steps, before it teaches",
  )


def judge_classes(
  counts: Int[np.ndarray, " C"], label_names: Sequence[str]
) -> Finding:
  """Whether every class can be learnt.

  Args:
    counts: labelled training rows of each class.
    label_names: the name of each class.
  """
  pairs = [*zip(label_names, counts.tolist(), strict=True)]
  missing = [name for name, count in pairs if not count]
  if missing:
    return Finding(
      Level.RED,
      "classes",
      f"no training row of {listing(missing)}",
      "add rows of it, or learn from more rows (--train_examples)",
    )
  most, least = max(pairs, key=lambda p: p[1]), min(pairs, key=lambda p: p[1])
  says = (
    f"{len(pairs)} classes, from {least[1]:,} ({least[0]}) to {most[1]:,} "
    f"({most[0]}) training rows"
  )
  if most[1] > IMBALANCE * least[1]:
    return Finding(
      Level.YELLOW,
      "classes",
      says,
      "read macro_f1 beside accuracy, or add rows of the rare classes",
    )
  return Finding(Level.GREEN, "classes", says)


def judge_vocabularies(path: str) -> Finding:
  """Student and teacher read with two of them.

  Args:
    path: the teacher's vocabulary's file.
  """
  return Finding(
    Level.YELLOW,
    "vocabularies",
    f"the student does not read with the teacher's vocabulary, {path}, so that "
    "views which put tokens in the place of others cannot be taken",
    "leave out --vocab and --init unless that is what you want",
  )


def judge_share(
  topic: str, what: str, count: int, rows: int, limit: float, remedy: str
) -> Finding:
  """Rows of a kind that should not be: green if none, red above a limit.

  Args:
    topic: what was looked at.
    what: says what is wrong with these rows.
    count: how many there are.
    rows: among how many.
    limit: the share up to which it is only doubtful.
    remedy: what to do about it.
  """
  says = f"{count:,} of {rows:,} rows ({count / max(rows, 1):.1%}) {what}"
  if not count:
    return Finding(Level.GREEN, topic, says)
  level = Level.RED if count > limit * rows else Level.YELLOW
  return Finding(level, topic, says, remedy)


def judge_lengths(lengths: Lengths) -> Finding:
  """Whether texts are cut, or much is padding."""
  counts, edges = lengths.histogram()
  half, most, longest = np.percentile(
    lengths.tokens, (50, 99, 100), method="inverted_cdf"
  ).tolist()
  says = (
    f"{_bars(counts)} 0 to {edges[-1]:.0f} tokens, half of the rows up to "
    f"{half}; {lengths.share_cut:.1%} are cut at {lengths.max_length}"
  )
  if lengths.share_cut > CUT[0]:
    level = Level.RED if lengths.share_cut > CUT[1] else Level.YELLOW
    return Finding(level, "lengths", says, f"--max_length {_up(most)}")
  if _up(longest) <= lengths.max_length // 2:
    # Nothing is wrong, but steps cost twice what they could.
    says += f"; --max_length {_up(longest)} would do, and steps cost less"
  return Finding(Level.GREEN, "lengths", says)


def judge_unknown(share: float, tokens: int) -> Finding:
  """Whether the vocabulary covers the texts.

  Args:
    share: of the tokens that no piece covers.
    tokens: how many tokens there are.
  """
  says = f"{share:.2%} of {tokens:,} tokens are unknown to the vocabulary"
  if share <= UNKNOWN[0]:
    return Finding(Level.GREEN, "vocabulary", says)
  level = Level.RED if share > UNKNOWN[1] else Level.YELLOW
  return Finding(
    level,
    "vocabulary",
    says,
    "give a --vocab of these texts' language, and a teacher that reads with it",
  )


def judge_memory(needed: int, there: int | None, device: str) -> Finding:
  """Whether a step fits on a device.

  Args:
    needed: bytes of a step on one device, as its compiler estimates them.
    there: bytes that the device has; None if it does not say.
    device: its name.
  """
  says = f"a step takes about {_size(needed)} (the compiler's estimate)"
  if there is None:
    return Finding(
      Level.GREEN, "memory", f"{says}; {device} does not tell more"
    )
  says += f" of the {_size(there)} of {device}"
  remedy = "a smaller --batch_size, or --gin.RunConfig.num_microbatches=2"
  if needed > there:
    return Finding(Level.RED, "memory", says, remedy)
  if needed > NEARLY_FULL * there:
    return Finding(Level.YELLOW, "memory", says, remedy)
  return Finding(Level.GREEN, "memory", says)


def judge_disk(needed: int, free: int, path: str) -> Finding:
  """Whether the checkpoints find room.

  Args:
    needed: bytes of all that are kept at a time.
    free: bytes.
    path: where.
  """
  says = f"checkpoints take {_size(needed)}, and {_size(free)} are free"
  remedy = f"free some space in {path}, or choose another --output_dir"
  if needed > free:
    return Finding(Level.RED, "disk", says, remedy)
  if SPARE_DISK * needed > free:
    return Finding(Level.YELLOW, "disk", says, remedy)
  return Finding(Level.GREEN, "disk", says)


def as_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
  """The findings as objects."""
  return [
    {**finding._asdict(), "level": str(finding.level)} for finding in findings
  ]


def _bars(counts: Int[np.ndarray, " n"]) -> str:
  """Counts as a line of bars; the lowest bar is one row at least."""
  heights = np.ceil(8 * counts / max(counts.max(), 1)).astype(int)
  return "".join(" ▁▂▃▄▅▆▇█"[height] for height in heights)


def _up(tokens: int) -> int:
  """The next multiple of eight: the shapes that devices like."""
  return -(-tokens // 8) * 8


def _size(number: int | float) -> str:
  """Bytes for a person."""
  for unit in ("bytes", "KB", "MB", "GB"):
    if number < 1000:
      return f"{number:.3g} {unit}"
    number /= 1000
  return f"{number:.3g} TB"
