"""results.json has its keys and only numbers; tables are made of it alone."""

import json

import pytest
from rich.console import Console

from augdistill import errors
from augdistill.reports.results import build_results, read_results
from augdistill.reports.run_directory import RunDirectory
from augdistill.reports.table import table


def make(**changes):
  return build_results(
    **{
      "method": "kd",
      "task": "help_desk",
      "seed": 0,
      "metrics": {"validation": {"accuracy": 0.5}, "test": {"accuracy": 0.6}},
      "teacher_metrics": {"test": {"accuracy": 0.9}},
      "agreement": 0.7,
      "num_params": {"student": 150000, "teacher": 900000},
      "num_steps": 500,
      "best_step": 400,
      "train_seconds": 20.0,
      "batch_size": 64,
      **changes,
    }
  )


def write(directory, bindings=(), **changes):
  run, results = RunDirectory(directory), make(**changes)
  run.write_results(results)
  lines = (
    "# Macros:",
    f"METHOD = \\\n    '{results['method']}'",
    f"SEED = {results['seed']}",
    f"NUM_STEPS = {results['num_steps']}",
    "make_optimizer.num_steps = %NUM_STEPS",
    *bindings,
  )
  run.config_gin.write_text("\n".join(lines) + "\n")
  return directory


def test_results_have_the_keys_of_the_schema_and_the_speeds():
  assert make() == {
    "schema_version": 1,
    "method": "kd",
    "task": "help_desk",
    "seed": 0,
    "metrics": {"validation": {"accuracy": 0.5}, "test": {"accuracy": 0.6}},
    "teacher_metrics": {"test": {"accuracy": 0.9}},
    "agreement": 0.7,
    "num_params": {"student": 150000, "teacher": 900000},
    "num_steps": 500,
    "best_step": 400,
    "train_seconds": 20.0,
    "seconds_per_1000_steps": 40.0,
    "examples_per_second": 1600.0,
  }


def test_a_run_without_a_teacher_and_without_seconds_is_fine():
  results = make(
    teacher_metrics={},
    agreement=None,
    num_params={"student": 5, "teacher": None},
    train_seconds=0.0,
  )
  assert results["seconds_per_1000_steps"] == 0.0
  assert results["examples_per_second"] == 0.0


def test_results_are_read_as_they_were_written(tmp_path):
  assert read_results(write(tmp_path)) == make()
  assert RunDirectory(tmp_path).results() == make()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"seed": None}, "seed must be a finite number, got None"),
    ({"train_seconds": float("nan")}, "train_seconds must be a finite"),
    ({"agreement": "high"}, "agreement must be a finite number"),
    ({"metrics": {"dev": {}}}, "metrics must be of .*validation"),
    ({"metrics": {"test": {"f1": True}}}, "metrics.test.f1 must be a finite"),
    ({"metrics": {"test": 0.5}}, "metrics.test must be an object"),
    ({"teacher_metrics": {"accuracy": 1.0}}, "teacher_metrics must be of"),
    ({"teacher_metrics": []}, "teacher_metrics must be an object"),
    ({"num_params": {"student": 1}}, "of student and teacher"),
    ({"method": 3}, "method must be a text"),
    ({"schema_version": 2}, "schema_version must be 1, got 2"),
    ({"more": 1}, "keys are unknown: more"),
  ],
)
def test_a_wrong_value_is_an_error_that_names_it(tmp_path, change, message):
  (tmp_path / "results.json").write_text(json.dumps(make() | change))
  with pytest.raises(errors.UsageError, match=message) as error:
    read_results(tmp_path)
  assert str(tmp_path / "results.json") in str(error.value)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{", "Expecting"),
    ("[]", "must be an object, got list"),
    ('{"schema_version": 1}', "keys are missing: agreement, best_step"),
  ],
)
def test_a_damaged_file_is_an_error(tmp_path, text, message):
  (tmp_path / "results.json").write_text(text)
  with pytest.raises(errors.UsageError, match=message):
    read_results(tmp_path)


def test_what_is_no_run_and_what_is_not_finished_are_told_apart(tmp_path):
  with pytest.raises(errors.UsageError, match=r"has no results\.json"):
    read_results(tmp_path)
  with pytest.raises(errors.UsageError, match="does not exist"):
    read_results(tmp_path / "absent")


def test_a_value_that_is_not_finite_cannot_be_built():
  with pytest.raises(ValueError, match=r"metrics\.test\.accuracy"):
    make(metrics={"test": {"accuracy": float("inf")}})


def test_a_table_has_a_row_per_method_with_the_mean_over_seeds(tmp_path):
  runs = [
    write(
      tmp_path / "ft",
      method="ft",
      teacher_metrics={},
      agreement=None,
      num_params={"student": 1234567, "teacher": None},
    ),
    write(tmp_path / "kd0", seed=0),
    write(tmp_path / "kd1", seed=1, metrics={"test": {"accuracy": 0.7}}),
  ]
  result = table(runs)
  assert result.header[0] == "method"
  assert result.rows == (
    ("ft", "1", "60.0", "-", "-", "1,234,567", "40.0"),
    ("kd", "2", "65.0 ± 7.1", "90.0", "70.0 ± 0.0", "150,000", "40.0"),
  )
  assert result.title.endswith(", test accuracy")


def test_runs_of_other_settings_are_not_averaged(tmp_path):
  runs = [
    write(tmp_path / "teacher", ["MODEL = 'mini'"], method="ft"),
    write(tmp_path / "student", ["MODEL = 'micro'"], method="ft"),
    write(tmp_path / "a", num_steps=500),
    write(tmp_path / "b", num_steps=1000),
    write(tmp_path / "c", method="kd+fgsm", num_steps=700),
    write(tmp_path / "d", ["augpro_fgsm.delta = 30.0"], num_steps=500),
    write(tmp_path / "e", ["augpro_fgsm.delta = 30.0"], num_steps=500, seed=1),
  ]
  rows = table(runs).rows
  assert [row[0] for row in rows] == [
    "ft, MODEL=mini",
    "ft, MODEL=micro",
    "kd, NUM_STEPS=500",
    "kd, NUM_STEPS=1000",
    "kd+fgsm",
    "kd, NUM_STEPS=500, augpro_fgsm.delta=30.0",
  ]
  assert [row[1] for row in rows] == ["1", "1", "1", "1", "1", "2"]


def test_seeds_may_have_teachers_of_their_own(tmp_path):
  def runs(*teachers):
    return [
      write(tmp_path / f"{t}{seed}", [f"TEACHER = '{t}'"], seed=seed)
      for t, seed in teachers
    ]

  assert [row[:2] for row in table(runs(("x", 0), ("y", 1))).rows] == [
    ("kd", "2")
  ]
  rows = table(runs(("x", 0), ("x", 1), ("y", 0))).rows
  assert [row[:2] for row in rows] == [
    ("kd, TEACHER=x", "2"),
    ("kd, TEACHER=y", "1"),
  ]


def test_a_run_is_not_averaged_with_itself(tmp_path):
  runs = [write(tmp_path / name) for name in "ab"]
  with pytest.raises(
    errors.UsageError, match="are the same run, of seed 0; give one"
  ):
    table(runs)


def test_a_table_says_whose_configuration_is_missing(tmp_path):
  write(tmp_path)
  (tmp_path / "config.gin").unlink()
  with pytest.raises(
    errors.UsageError, match=r"config\.gin must hold the conf"
  ):
    table([tmp_path])


def test_a_table_of_two_tasks_names_them(tmp_path):
  runs = [
    write(tmp_path / "a", task="cola"),
    write(
      tmp_path / "b",
      task="stsb",
      metrics={"validation": {"mse": 0.51234}},
      teacher_metrics={},
    ),
  ]
  result = table(runs)
  assert [row[0] for row in result.rows] == ["cola: kd", "stsb: kd"]
  assert result.rows[1][2:4] == ("0.5123", "-")
  assert result.title == "cola, test accuracy; stsb, validation mse"


def test_a_run_without_any_metric_has_a_row_too(tmp_path):
  [row] = table([write(tmp_path, metrics={}, teacher_metrics={})]).rows
  assert row[2] == "-"


def test_a_table_is_text_and_can_be_printed(tmp_path, capsys):
  result = table([write(tmp_path, method="kd+fgsm[x]")])
  lines = str(result).splitlines()
  assert len({len(line) for line in lines}) == 1
  Console(width=80).print(result)
  shown = capsys.readouterr().out
  for cell in ("kd+fgsm[x]", "60.0", "150,000"):
    assert cell in shown
    assert cell in lines[1]
  assert "test accuracy" in shown
  assert "s/1000 steps" in shown
