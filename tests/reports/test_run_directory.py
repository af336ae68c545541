"""A directory belongs to one configuration, and its files are whole."""

import json
import os
import subprocess
import sys

import pytest

from augdistill import errors
from augdistill.reports.run_directory import RunDirectory

CONFIG = """# written by a run
import augdistill

seed = 0
run.num_steps = 100
run.method = 'kd'
"""
ARGV = ["augdistill", "distill", "--method", "kd(temperature=2)", "it's"]


def test_a_new_directory_is_claimed(tmp_path):
  run = RunDirectory(tmp_path / "a" / "b")
  assert run.check(CONFIG) is False
  assert not run.path.exists()
  assert run.claim(CONFIG, ARGV) is False
  assert run.config_gin.read_text() == CONFIG
  assert run.argv == ARGV
  assert run.results() is None


def test_the_command_can_be_run_by_a_shell(tmp_path):
  run = RunDirectory(tmp_path)
  argv = [sys.executable, "-c", "import sys; print(sys.argv[1:])", *ARGV]
  run.claim(CONFIG, argv)
  done = subprocess.run(
    ["sh", tmp_path / "command.sh"], capture_output=True, text=True, check=True
  )
  assert done.stdout == f"{ARGV}\n"


def test_the_same_configuration_goes_on(tmp_path):
  RunDirectory(tmp_path).claim(CONFIG, ARGV)
  again = RunDirectory(tmp_path)
  assert again.claim("# of another day\n\n" + CONFIG, ["other"]) is True
  assert again.argv == ["other"]
  assert again.config_gin.read_text() == CONFIG
  assert "distill" in (tmp_path / "command.sh").read_text()


def test_another_configuration_is_an_error_that_names_the_difference(tmp_path):
  RunDirectory(tmp_path).claim(CONFIG, ARGV)
  other = RunDirectory(tmp_path)
  text = CONFIG.replace("100", "200")
  for look in (other.check, lambda config: other.claim(config, ARGV)):
    with pytest.raises(errors.UsageError) as error:
      look(text)
    message = str(error.value)
    assert "run.num_steps = 100" in message
    assert "run.num_steps = 200" in message
    assert "run.method" not in message
    assert "--output_dir" in message
    assert "\n" not in message
  assert other.config_gin.read_text() == CONFIG


def test_a_setting_too_many_or_too_few_is_a_difference(tmp_path):
  RunDirectory(tmp_path).claim(CONFIG, ARGV)
  with pytest.raises(errors.UsageError, match=r"has \(none\).*extra = 1"):
    RunDirectory(tmp_path).check(CONFIG + "extra = 1\n")
  with pytest.raises(errors.UsageError, match=r"has seed = 0.*\(none\)"):
    RunDirectory(tmp_path).check(CONFIG.replace("seed = 0\n", ""))


def test_a_directory_that_cannot_be_made_is_a_usage_error(tmp_path):
  (tmp_path / "file").write_text("")
  run = RunDirectory(tmp_path / "file" / "run")
  with pytest.raises(errors.UsageError, match=r"cannot write to .*Not a dir"):
    run.claim(CONFIG, ARGV)


def test_a_claim_that_is_killed_halfway_is_no_claim(tmp_path, monkeypatch):
  run = RunDirectory(tmp_path)
  replace = os.replace

  def kill_at_config(source, target):
    if str(target).endswith("config.gin"):
      raise KeyboardInterrupt
    replace(source, target)

  monkeypatch.setattr(os, "replace", kill_at_config)
  with pytest.raises(KeyboardInterrupt):
    run.claim(CONFIG, ARGV)
  monkeypatch.undo()
  assert run.check("other = 1") is False
  assert [p.name for p in tmp_path.iterdir()] == ["command.sh"]


def test_files_are_written_where_they_belong(tmp_path):
  run = RunDirectory(tmp_path)
  run.write_student("student")
  run.write_provenance({"label_names": ["naïve"]})
  assert (tmp_path / "student.gin").read_text() == "student"
  text = (tmp_path / "provenance.json").read_text()
  assert "naïve" in text
  assert json.loads(text) == {"label_names": ["naïve"]}
  assert run.predictions("test") == tmp_path / "predictions" / "test.jsonl"


def test_json_holds_no_nan(tmp_path):
  with pytest.raises(ValueError, match="not JSON compliant"):
    RunDirectory(tmp_path).write_results({"agreement": float("nan")})
  assert not (tmp_path / "results.json").exists()


def test_seconds_are_remembered_up_to_the_step_that_a_start_goes_on_from(
  tmp_path,
):
  run = RunDirectory(tmp_path)
  assert run.train_seconds() == 0.0
  with run.metrics_writer(0) as writer:
    for step in (10, 20, 30):
      writer.write(step, {"loss": 1.0, "train_seconds": step / 10})
    writer.write(30, {"validation/accuracy": 0.5})
  assert run.train_seconds() == 3.0
  assert run.train_seconds(before=20) == 2.0
  assert run.train_seconds(before=5) == 0.0
