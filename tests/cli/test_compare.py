"""A grid of real runs: reported, gone on with, killed, locked."""

import json
import os
import re
import signal
import time

import pytest

from augdistill.cli import comparing, grid
from augdistill.errors import UsageError
from tests.cli.tiny import TINY, read_jsonl, run, snapshot, start

NAN = "kd(teacher_weight=1e38)"  # Its loss overflows.


def flags(files, teacher, output, methods="kd", seeds="0,1"):
  return [
    *("compare", f"--train={files / 'train.tsv'}"),
    *(f"--test={files / 'test.tsv'}", f"--teacher={teacher}", *TINY, "--force"),
    *(f"--methods={methods}", f"--seeds={seeds}", f"--output_dir={output}"),
  ]


@pytest.fixture(scope="module")
def compared(files, teacher, tmp_path_factory):
  """A grid with a method that fails."""
  output = tmp_path_factory.mktemp("grids") / "grid"
  return output, run(*flags(files, teacher, output, f"kd,{NAN}"))


def test_a_run_that_fails_is_reported_in_its_place(compared):
  output, done = compared
  assert done.code == 1
  cells = read_jsonl(output / "results.jsonl")
  assert [(c["method"], c["seed"]) for c in cells] == [
    (method, seed) for seed in (0, 1) for method in ("kd", NAN)
  ]
  for cell in cells:
    failed = cell["method"] == NAN
    assert (cell["error"] is not None) == failed
    assert ("results" in cell) != failed
  assert "NaN" in cells[1]["error"] or "finite" in cells[1]["error"]
  for name in ("report.html", "report.md"):
    text = (output / name).read_text()
    assert NAN in text
    assert cells[1]["error"].split(".")[0][:30] in text


def test_the_report_has_means_intervals_costs_plots_and_commands(compared):
  output, done = compared
  html = (output / "report.html").read_text()
  assert "<svg" in html
  assert "training, seconds per run" in html
  assert "augdistill distill" in html
  assert not re.search(r"(src|href)=.?http|@import|url\(.?http", html)
  markdown = (output / "report.md").read_text()
  assert "against kd" in markdown
  assert "| `" not in markdown
  # Twelve rows: nothing can be claimed of them.
  assert "no difference is shown" in done.out


def test_a_grid_that_is_finished_is_not_run_again(compared, files, teacher):
  output, _ = compared
  (output / "results.jsonl").write_text('{"method": "kd", "se')  # cut by a kill
  before = snapshot(output / "runs" / "kd")
  done = run(*flags(files, teacher, output))
  assert done.code == 0, done.err
  assert snapshot(output / "runs" / "kd") == before
  assert "s, about" not in done.err  # No run took any time.
  assert len(read_jsonl(output / "results.jsonl")) == 2


def test_the_second_of_two_comparisons_in_one_directory_refuses(
  compared, files, teacher, monkeypatch
):
  output, _ = compared
  monkeypatch.setattr(grid, "_PATIENCE", 0.0)
  with grid.locked(str(output)):
    done = run(*flags(files, teacher, output))
  assert done.code == 2
  assert "another augdistill compare is at work" in done.err


def test_another_configuration_in_the_directory_is_refused_before_any_run(
  compared, files, teacher
):
  output, _ = compared
  before = snapshot(output)
  done = run(*flags(files, teacher, output), "--learning_rate=0.5")
  assert done.code == 2
  assert "another configuration" in done.err
  assert snapshot(output) == before


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"methods": "kd,kd+nothing"}, "nothing"),
    ({"methods": "kd,,ft"}, "--methods must have something"),
    ({"methods": "kd,kd"}, "each once"),
    ({"seeds": "0,x"}, "--seeds must be whole numbers"),
    ({"seeds": "-1"}, "--seeds must be whole numbers"),
  ],
)
def test_a_wrong_grid_is_refused_before_any_run(
  files, teacher, tmp_path, changed, message
):
  done = run(*flags(files, teacher, tmp_path / "grid", **changed))
  assert done.code == 2
  assert message in done.err
  assert not (tmp_path / "grid" / "runs").exists()


def test_mistakes_are_found_before_the_teacher_is_trained(files, tmp_path):
  argv = flags(files, "none", tmp_path / "grid")
  argv = [f for f in argv if f != "--force" and "--teacher=" not in f]
  done = run(*argv, "--teacher_model=micro", "--train_examples=2")
  assert done.code == 2
  assert "mend what is red" in done.err
  assert "no training row of" in done.out
  assert not (tmp_path / "grid" / "teacher").exists()


@pytest.mark.parametrize(
  ("flag", "message"),
  [("--method=kd", "--methods"), ("--seed=1", "--seeds")],
)
def test_flags_of_one_run_are_refused(files, teacher, tmp_path, flag, message):
  done = run(*flags(files, teacher, tmp_path / "grid"), flag)
  assert done.code == 2
  assert message in done.err


def test_combinations_are_compared_under_what_they_stand_for():
  [method] = comparing.read_methods("best")
  assert method.startswith("kd+")
  with pytest.raises(UsageError, match="twice"):
    comparing.read_methods(f"best,{method}")


def test_lists_are_read():
  assert comparing.read_methods("kd, kd+fmix(lam=0.5,alpha=1) ,ft") == [
    *("kd", "kd+fmix(lam=0.5,alpha=1)", "ft"),
  ]
  assert comparing.read_seeds("2,0") == [2, 0]
  assert comparing.read_sizes("100, all") == [100, None]
  with pytest.raises(UsageError, match="whole numbers"):
    comparing.read_sizes("1e3")


def test_a_run_has_a_page(student, tmp_path):
  output = tmp_path / "page.html"
  done = run("report", f"--run={student}", f"--output={output}")
  assert done.code == 0, done.err
  assert str(output) in done.out
  assert "Worst errors" in output.read_text()
  assert not (student / "report.html").exists()


def test_a_method_that_cannot_be_timed_is_named(
  files, teacher, tmp_path, monkeypatch
):
  red = {"topic": "memory", "level": "red", "says": "does not fit"}
  reds = [red | {"numbers": {}}]
  monkeypatch.setattr(grid, "examined", lambda argv, log: reds)
  done = run(*flags(files, teacher, tmp_path / "grid"), "--match=seconds")
  assert done.code == 2
  assert "a step of kd cannot be timed: does not fit" in done.err
  assert not (tmp_path / "grid" / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
  ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)]
)
def test_a_grid_that_is_stopped_goes_on(files, teacher, tmp_path, number, code):
  argv = flags(files, teacher, tmp_path / "grid", "kd,ft", "0")
  process = start(*argv)
  path = tmp_path / "grid" / "runs" / "kd" / "all_rows_seed0"
  until = time.monotonic() + 240
  while not (path / "config.gin").exists() and time.monotonic() < until:
    time.sleep(0.05)
  os.kill(process.pid, number)
  process.wait(60)
  assert process.returncode == code
  done = run(*argv)
  assert done.code == 0, done.err
  assert (tmp_path / "grid" / "report.html").exists()


@pytest.mark.slow
def test_equal_seconds_give_cheap_methods_more_steps(files, teacher, tmp_path):
  output = tmp_path / "grid"
  argv = flags(files, teacher, output, "ft,kd+augpro_mix*2", "0")
  done = run(*argv, "--match=seconds", "--train_examples=30")
  assert done.code == 0, done.err
  steps = json.loads((output / "steps.json").read_text())
  assert steps["kd+augpro_mix*2"] == 4
  assert steps["ft"] > 4
  cells = read_jsonl(output / "results.jsonl")
  for cell in cells:
    assert cell["results"]["num_steps"] == steps[cell["method"]]
    assert cell["rows"] == 30


@pytest.mark.slow
def test_students_of_a_grid_begin_with_layers_of_their_teacher(
  files, teacher, tmp_path
):
  output = tmp_path / "grid"
  sized = [f for f in flags(files, teacher, output) if "--model" not in f]
  done = run(
    *(*sized, f"--init={teacher}", "--init_layers=bottom"),
    "--gin.model_like.num_layers=1",
  )
  assert done.code == 0, done.err
  cells = read_jsonl(output / "results.jsonl")
  assert [cell["error"] for cell in cells] == [None, None]
  for seed in (0, 1):
    folder = output / "runs" / "kd" / f"all_rows_seed{seed}"
    assert f"INIT = '{teacher}'" in (folder / "config.gin").read_text()
