"""Planted runs of a grid, and what is said of them."""

import json
import re

import numpy as np
import pytest

from augdistill.errors import UsageError
from augdistill.evaluation.outputs import probabilities
from augdistill.evaluation.significance import compare
from augdistill.reports import comparison, pages, plots
from augdistill.reports.answers import read_answers
from augdistill.reports.comparison import compare_runs
from augdistill.reports.grid_results import Cell, write_results
from augdistill.types import TaskKind
from tests.reports.planted import (
  CLASSES,
  NAMES,
  ROWS,
  VALUES,
  Rows,
  finished,
  grid,
  logits_of,
)

METHODS = {
  "kd": (2.0, 0.6, 10.0),
  "good": (0.5, 0.8, 20.0),
  "same": (2.0, 0.59, 30.0),
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
  return grid(tmp_path_factory.mktemp("grid"), CLASSES, METHODS)


@pytest.fixture(scope="module")
def compared(cells):
  return compare_runs(cells, "kd")


def test_answers_are_those_that_were_written(tmp_path):
  for task in (CLASSES, VALUES, NAMES):
    rows = Rows(task)
    path = finished(tmp_path / task.name, task, 1.0, 0)
    its = read_answers(path, "test")
    logits = logits_of(task, rows, 1.0, 0)[1:]
    np.testing.assert_allclose(its.labels, rows.label[1:], rtol=1e-6)
    np.testing.assert_array_equal(its.example_id, rows.example_id[1:])
    if task.kind == TaskKind.REGRESSION:
      assert its.probabilities is None
      np.testing.assert_allclose(its.decisions, logits, rtol=1e-6)
    else:
      expected = probabilities(task.kind, logits)
      np.testing.assert_allclose(its.probabilities, expected, atol=1e-6)
      assert its.names == task.label_names


def test_a_row_is_the_mean_over_seeds(compared):
  kd, good, same = compared.table
  assert kd.mean == pytest.approx(0.61)
  assert kd.deviation == pytest.approx(0.01)
  assert (kd.seconds, kd.per_1000, kd.relative) == (10, 10, 1)
  assert good.relative == 2
  assert good.agreement == pytest.approx(0.8)
  assert 0 < good.calibration < 1
  assert kd.difference is None
  assert same.steps == 1000
  assert compared.teacher == 0.9
  assert compared.scored == ROWS - 1
  assert (compared.best, compared.second) == ("good", "kd")


def test_differences_are_those_of_the_decisions(cells, compared):
  rows = [read_answers(cell.path, "test") for cell in cells]
  by_method = {
    method: np.stack(
      [
        a.decisions
        for a, c in zip(rows, cells, strict=True)
        if c.method == method
      ]
    )
    for method in METHODS
  }
  expected = compare(
    {m: by_method[m] for m in ("good", "same")},
    by_method["kd"],
    rows[0].labels,
    "accuracy",
  )
  made = {row.method: row.difference for row in compared.table}
  assert made == {"kd": None, **expected}
  assert made["good"].verdict == "better"
  assert made["same"].verdict == ""


def test_only_what_the_interval_says_is_claimed(compared):
  (claim,) = pages.claims(compared)
  assert claim.startswith("good is better than kd, by ")


def test_a_method_without_the_baselines_seeds_has_no_difference(tmp_path):
  cells = grid(tmp_path / "a", CLASSES, METHODS, seeds=(0, 1))
  cells[0] = cells[0]._replace(error="out of memory")  # kd, seed 0
  cells[3] = cells[3]._replace(error="out of memory")  # kd, seed 1
  kd, good, _ = compare_runs(cells, "kd").table
  assert kd.mean is None
  assert kd.errors == ("out of memory",) * 2
  assert good.difference is None
  assert good.relative is None
  cells[0] = cells[0]._replace(error=None)
  _, good, _ = compare_runs(cells, "kd").table
  assert good.difference.seeds == 1
  assert good.difference.verdict == ""


def test_runs_on_other_rows_cannot_be_compared(tmp_path):
  cells = grid(tmp_path, CLASSES, {"kd": (1.0, 0.5, 1.0)})
  finished(tmp_path / "x", CLASSES, 1.0, 0, rows=Rows(CLASSES, 99))
  other = Cell("x", None, 0, str(tmp_path / "x"), None, "")
  with pytest.raises(UsageError, match="same test rows"):
    compare_runs([*cells, other], "kd")


def test_a_grid_without_a_finished_run_is_refused():
  with pytest.raises(UsageError, match="finished run"):
    compare_runs([Cell("kd", None, 0, "x", "NaN", "")], "kd")


def test_a_run_without_predictions_is_refused(tmp_path):
  with pytest.raises(UsageError, match="predictions"):
    read_answers(str(tmp_path), "test")


def test_a_smaller_error_is_the_better_one(tmp_path):
  methods = {"kd": (1.0, 1.0, 1.0), "good": (0.1, 0.01, 2.0)}
  made = compare_runs(grid(tmp_path, VALUES, methods), "kd")
  assert made.best == "good"
  (claim,) = pages.claims(made)
  assert claim.startswith("good is better than kd")
  assert made.table[0].calibration is None


def test_texts_where_the_best_two_differ_are_shown(compared, cells):
  assert len(compared.disagreements) == comparison.SHOWN
  for row in compared.disagreements:
    assert row.best != row.second
    assert {row.best, row.second, row.label} <= {*CLASSES.label_names}


def test_the_pages_hold_every_number_and_open_offline(compared, cells):
  failed = Cell("bad", None, 0, "x", "loss is NaN", "run bad")
  made = compare_runs([*cells, failed], "kd")
  html, markdown = pages.comparison_pages(made, [*cells, failed], {"jax": "1"})
  for text in (html, markdown):
    for word in ("61.0", "81.0", "loss is NaN", "run good", "jax 1", "ECE"):
      assert word in text, word
  assert "text | " in html
  assert r"text \| " in markdown
  for line in markdown.splitlines():
    if line.startswith("| good"):
      assert len(re.findall(r"(?<!\\)\|", line)) == 14
  assert not re.search(r"(src|href)=.?http|@import|url\(.?http", html)
  assert html.count("<svg") == 1  # One number of rows: no plot over sizes.


def test_text_of_users_is_escaped(cells, compared):
  evil = compared.disagreements[0]._replace(text="<script>alert(1)</script>")
  html, _ = pages.comparison_pages(
    compared._replace(disagreements=(evil,)), cells, {}
  )
  assert "<script>" not in html
  assert "&lt;script&gt;" in html


def test_plots_have_axes_units_and_a_legend_in_the_pages_colours(compared):
  svg = plots.cost_plot(compared)
  words = re.findall(r">([^<>]+)</text>", svg)
  for word in ("training, seconds per run", "test accuracy, %", *METHODS):
    assert word in words
  assert "#000000" not in svg
  assert "currentColor" in svg
  assert svg == plots.cost_plot(compared)


def test_sizes_are_plotted_where_there_are_several(tmp_path):
  methods = {"kd": (2.0, 0.5, 1.0), "good": (1.0, 0.6, 1.0)}
  cells = grid(
    tmp_path, CLASSES, methods, seeds=(0, 1), sizes=(100, 1000, None)
  )
  made = compare_runs(cells, "kd")
  words = re.findall(r">([^<>]+)</text>", plots.size_plot(made))
  for word in ("training rows", "100", "1,000", "all", *methods):
    assert word in words
  assert plots.size_plot(compare_runs(cells[:4], "kd")) is None
  assert [row.rows for row in made.table] == [100, 100, 1000, 1000, None, None]
  table = pages.comparison_table(made)
  assert table.row_count == 6


def test_the_front_holds_what_is_not_dominated(compared):
  kd, good, same = compared.table
  assert plots.pareto([same, good, kd]) == [kd, good]
  assert plots.pareto([same, good, kd], higher=False) == [kd, same]
  equal = kd._replace(mean=kd.mean - 0.1)
  assert plots.pareto([equal, kd]) == [kd]


def test_results_are_a_line_per_run(cells, tmp_path):
  failed = Cell("bad", 5, 0, "x", "loss is NaN", "run bad")
  write_results(tmp_path / "results.jsonl", [*cells, failed])
  lines = (tmp_path / "results.jsonl").read_text().splitlines()
  made = [json.loads(line) for line in lines]
  assert len(made) == len(cells) + 1
  assert made[0]["results"]["seed"] == 0
  assert made[-1]["error"] == "loss is NaN"
  assert "results" not in made[-1]
