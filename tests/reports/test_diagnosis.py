"""Thresholds, at both of their sides."""

import json

import numpy as np
import pytest

from augdistill.data.quality import Lengths
from augdistill.evaluation.relabeling import Relabeling
from augdistill.reports import diagnosis
from augdistill.reports.diagnosis import Finding, Level

GOOD = Relabeling(0.9, 0.4, True, (0, 1, 2), 0.9, False)
NAMES = ("a", "b", "c")


def test_a_teacher_that_knows_the_task_is_green():
  found = diagnosis.judge_teacher(GOOD, NAMES, 100)
  assert found.level == Level.GREEN
  assert "90.0%" in found.says
  assert "40.0%" in found.says
  assert found.remedy == ""


def test_a_permuted_teacher_is_told_which_class_means_which():
  mixed = GOOD._replace(
    accuracy=0.1, knows=False, order=(1, 0, 2), permuted=True
  )
  found = diagnosis.judge_teacher(mixed, NAMES, 100)
  assert found.level == Level.RED
  assert "a means b, b means a" in found.says
  assert "c means" not in found.says


def test_a_teacher_near_chance_is_red_where_there_are_rows_enough():
  poor = GOOD._replace(accuracy=0.41, knows=False)
  assert diagnosis.judge_teacher(poor, NAMES, 30).level == Level.RED
  assert diagnosis.judge_teacher(poor, NAMES, 29).level == Level.YELLOW


@pytest.mark.parametrize(
  ("correlation", "chance", "rows", "level"),
  [
    (0.5, 1e-6, 100, Level.GREEN),
    (0.5, 0.01, 100, Level.RED),
    (-0.5, 1e-6, 100, Level.RED),
    (0.5, 1e-6, 29, Level.YELLOW),
  ],
)
def test_a_teacher_of_values_must_correlate(correlation, chance, rows, level):
  assert diagnosis.judge_values(correlation, chance, rows).level == level


@pytest.mark.parametrize(
  ("counts", "level"),
  [
    ([5, 5, 6], Level.GREEN),
    ([1, 20, 6], Level.GREEN),
    ([1, 21, 6], Level.YELLOW),
    ([0, 5, 6], Level.RED),
  ],
)
def test_classes_must_have_rows(counts, level):
  found = diagnosis.judge_classes(np.array(counts), NAMES)
  assert found.level == level
  assert bool(found.remedy) == (level != Level.GREEN)


@pytest.mark.parametrize(
  ("count", "level"), [(0, "green"), (1, "yellow"), (5, "yellow"), (6, "red")]
)
def test_rows_that_should_not_be_are_a_share(count, level):
  found = diagnosis.judge_share("leak", "are bad", count, 100, 0.05, "mend it")
  assert found.level == level
  assert found.says == f"{count} of 100 rows ({count}.0%) are bad"


@pytest.mark.parametrize(
  ("cut", "level"), [(1, "green"), (2, "yellow"), (50, "yellow"), (51, "red")]
)
def test_texts_that_are_cut(cut, level):
  tokens = np.array([20] * (100 - cut) + [61] * cut)
  found = diagnosis.judge_lengths(Lengths(tokens, 32))
  assert found.level == level
  if level != "green":
    assert found.remedy == f"--max_length {64 if cut > 1 else 24}"


def test_padding_for_nothing_is_mentioned():
  tokens = np.array([9, 30])
  assert "--max_length 32" in diagnosis.judge_lengths(Lengths(tokens, 64)).says
  assert "--max_length" not in diagnosis.judge_lengths(Lengths(tokens, 63)).says


@pytest.mark.parametrize(
  ("share", "level"),
  [(0.005, "green"), (0.006, "yellow"), (0.05, "yellow"), (0.06, "red")],
)
def test_unknown_tokens(share, level):
  assert diagnosis.judge_unknown(share, 1000).level == level


@pytest.mark.parametrize(
  ("needed", "there", "level"),
  [
    (80, 100, "green"),
    (81, 100, "yellow"),
    (101, 100, "red"),
    (101, None, "green"),
  ],
)
def test_memory(needed, there, level):
  found = diagnosis.judge_memory(needed, there, "chip")
  assert found.level == level
  assert "estimate" in found.says


@pytest.mark.parametrize(
  ("needed", "free", "level"),
  [(10, 30, "green"), (10, 29, "yellow"), (10, 9, "red")],
)
def test_disk(needed, free, level):
  assert diagnosis.judge_disk(needed, free, "/x").level == level


def test_the_worst_finding_counts():
  green, yellow, red = (Finding(level, "x", "y") for level in Level)
  assert diagnosis.worst([]) == Level.GREEN
  assert diagnosis.worst([green, yellow, green]) == Level.YELLOW
  assert diagnosis.worst([red, yellow]) == Level.RED


def test_findings_are_objects():
  findings = [Finding(Level.RED, "disk", "full", "free some")]
  assert json.loads(json.dumps(diagnosis.as_json(findings))) == [
    {
      "level": "red",
      "topic": "disk",
      "says": "full",
      "remedy": "free some",
      "numbers": {},
    }
  ]


@pytest.mark.parametrize(
  ("number", "text"),
  [(12, "12 bytes"), (1500, "1.5 KB"), (2.5e9, "2.5 GB"), (3e12, "3 TB")],
)
def test_sizes_are_written_for_people(number, text):
  assert diagnosis._size(number) == text
