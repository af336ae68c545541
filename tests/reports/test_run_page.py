"""One run's page: what is counted, and that all of it stands there."""

import json
import re

import numpy as np
import pytest

from augdistill.errors import UsageError
from augdistill.reports import run_page as page
from augdistill.reports.answers import Answers, read_answers
from augdistill.types import TaskKind
from tests.reports.planted import CLASSES, NAMES, VALUES, finished

REPORTS = [
  {"step": 1, "loss": 2.0, "clean/kl": 1.5, "mixup/changed": 0.4},
  {"step": 2, "loss": None, "clean/kl": 1.0, "gradient_norm": 3.0},
  {"step": 2, "validation/accuracy": 0.5, "validation/mse": 0.1},
]


def planted(path, task):
  """A finished run with metrics, a command and a configuration."""
  finished(path, task, 2.0, 0)
  lines = [json.dumps(report) + "\n" for report in REPORTS]
  (path / "metrics.jsonl").write_text("".join(lines))
  (path / "command.sh").write_text("#!/bin/sh\naugdistill distill --x\n")
  (path / "config.gin").write_text("METHOD = '<kd>'\n")
  return path


def test_curves_are_losses_and_validation_metrics():
  assert page.curves(REPORTS) == {
    "training loss": {
      "loss": [(1, 2.0)],
      "clean/kl": [(1, 1.5), (2, 1.0)],
    },
    "validation": {"accuracy": [(2, 0.5)]},
    "validation mse": {"mse": [(2, 0.1)]},
  }


def answers(labels, decisions, probabilities, names=("a", "b", "c")):
  count = len(labels)
  return Answers(
    texts=tuple((f"text {i}",) for i in range(count)),
    example_id=np.arange(count),
    names=names,
    labels=np.eye(3)[labels],
    decisions=np.eye(3)[decisions],
    probabilities=np.array(probabilities),
  )


ONE = answers(
  [0, 0, 0, 1, 2],
  [0, 1, 1, 2, 2],
  [
    [0.9, 0.1, 0.0],
    [0.3, 0.6, 0.1],
    [0.1, 0.8, 0.1],
    [0.2, 0.1, 0.7],
    [0.0, 0.0, 1.0],
  ],
)


def test_confusions_are_counted_by_class_and_by_what_was_said():
  table = page.confusions(ONE)
  np.testing.assert_array_equal(table, [[1, 2, 0], [0, 0, 1], [0, 0, 1]])
  assert page.confused_pairs(table, ONE.names) == [
    ("a", "b", 2, 3),
    ("b", "c", 1, 1),
  ]


def test_the_surest_errors_come_first():
  found = page.worst_errors(ONE)
  assert [(e.text, e.label, e.said) for e in found] == [
    ("text 2", "a", "b"),
    ("text 3", "b", "c"),
    ("text 1", "a", "b"),
  ]
  assert [e.by for e in found] == [0.8, 0.7, 0.6]
  assert len(page.worst_errors(ONE, count=1)) == 1


@pytest.mark.parametrize("task", [CLASSES, NAMES, VALUES])
def test_the_page_of_every_kind_of_task_opens_offline(tmp_path, task):
  html = page.run_page(planted(tmp_path / "run", task))
  for word in ("augdistill distill --x", "&lt;kd&gt;", "0.5000", "0.9000"):
    assert word in html, word
  classes = task.kind == TaskKind.CLASSES
  assert html.count("<svg") == 3 + classes
  assert ("What it takes for what" in html) == classes
  assert not re.search(r"(src|href)=.?http|@import|url\(.?http", html)
  its = read_answers(str(tmp_path / "run"), "test")
  worst = page.worst_errors(its)
  assert len(worst) == 10
  assert worst[0].text in html
  by = [error.by for error in worst]
  assert by == sorted(by, reverse=True)
  for error in worst:
    assert error.label != error.said


def test_a_run_that_is_not_finished_has_no_page(tmp_path):
  with pytest.raises(UsageError, match="finished run"):
    page.run_page(tmp_path)
