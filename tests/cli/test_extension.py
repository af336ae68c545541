"""The page on extending, as a stranger would follow it."""

import pathlib
import re
import subprocess
import sys

import augdistill
from tests.cli.tiny import TINY, command, results

PAGE = pathlib.Path(augdistill.__file__).with_name("EXTENDING.md")


def write_the_page(folder):
  """Writes the modules and gin files that the page has."""
  blocks = re.findall(
    r"```(?:python)?\n# (\w+\.(?:py|gin))\n(.*?)```",
    PAGE.read_text(),
    re.DOTALL,
  )
  for name, text in blocks:
    (folder / name).write_text(text)
  return [name for name, _ in blocks]


def test_a_view_a_term_and_a_model_of_the_page_are_trained(
  tmp_path, data, teacher
):
  assert write_the_page(tmp_path) == [
    *("my_views.py", "my_terms.py", "my_model.py"),
    *("mine.gin", "mine_t5x.gin"),
  ]
  method = "kd+drop_last+centred_mse(on=all)"
  tiny = [flag for flag in TINY if not flag.startswith("--model")]
  _, *words = command(
    *("distill", "--gin_file", "mine.gin", "--method", method),
    *(*data, *tiny, f"--teacher={teacher}", "--output_dir=run"),
  )
  # As the installed command, which does not look where it is run.
  python = [sys.executable, "-P"]
  done = subprocess.run(
    [*python, *words],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert results(tmp_path / "run")["method"] == method
  metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
  assert "drop_last/kl" in metrics
  assert "drop_last/centred_mse" in metrics
  student = (tmp_path / "run" / "student.gin").read_text()
  assert "import my_model" in student
  assert "Sharp.factor = 2.0" in student
  test_file = next(f.split("=")[1] for f in data if f.startswith("--test"))
  _, *words = command("evaluate", "--run=run", f"--data={test_file}")
  done = subprocess.run(
    [*python, *words],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.returncode == 0, done.stderr
