"""MODEL_CARD.md: what a student is, for whoever meets it without its run.

References:
  Mitchell et al. 2019, Model Cards for Model Reporting, arXiv:1810.03993.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from augdistill.evaluation.metrics import higher_is_better
from augdistill.reports.rendering import environment, markdown_table

_SHOWN_LABELS = 100


def model_card(
  results: Mapping[str, Any],
  *,
  rows: Mapping[str, int],
  label_names: Sequence[str],
  max_length: int,
  teacher: str | None,
  argv: Sequence[str],
  versions: Mapping[str, str | None],
) -> str:
  """The card of a finished run.

  Args:
    results: what results.json holds.
    rows: split -> number of rows.
    label_names: the name of each output; () for a regression.
    max_length: tokens that the model reads of a text.
    teacher: the teacher's directory; None without one.
    argv: the command, word by word.
    versions: package -> version.

  Returns:
    Markdown, headed by what Hugging Face reads of a card.
  """
  scores = []
  for split, values in results["metrics"].items():
    for name, value in values.items():
      taught = results["teacher_metrics"].get(split, {}).get(name)
      scores.append(
        [
          f"{split} ({rows[split]:,} rows)",
          name if higher_is_better(name) else f"{name} (lower is better)",
          f"{value:.4f}",
          "" if taught is None else f"{taught:.4f}",
        ]
      )
  shown = [*label_names[:_SHOWN_LABELS]]
  return (
    environment()
    .get_template("model_card.md")
    .render(
      results=results,
      rows=rows,
      labels=shown,
      more_labels=len(label_names) - len(shown),
      max_length=max_length,
      teacher=teacher,
      command=shlex.join(argv),
      versions=versions,
      scores=markdown_table(scores, ["rows", "metric", "student", "teacher"]),
    )
  )
