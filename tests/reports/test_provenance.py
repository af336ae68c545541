"""Provenance is JSON, says what ran, and does not invent a revision."""

import json
import subprocess

import jax

from augdistill.reports.provenance import git_revision, provenance


def test_provenance_tells_versions_devices_data_and_command():
  value = provenance(
    seed=3,
    data_fingerprints={"train": "abc"},
    label_names=("no", "yes"),
    argv=("augdistill", "distill"),
  )
  assert json.loads(json.dumps(value)) == value
  assert value["seed"] == 3
  assert value["data_fingerprints"] == {"train": "abc"}
  assert value["label_names"] == ["no", "yes"]
  assert value["argv"] == ["augdistill", "distill"]
  assert value["versions"]["jax"] == jax.__version__
  assert len(value["devices"]) == jax.device_count()
  assert value["time"].endswith("+00:00")


def git(directory, *words):
  identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
  command = ["git", "-C", str(directory), *identity, *words]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  return done.stdout.strip()


def test_the_revision_is_the_commit_and_whether_files_differ(tmp_path):
  package = tmp_path / "package"
  package.mkdir()
  assert git_revision(package) is None  # installed, not a clone
  git(tmp_path, "init", "-q")
  (package / "a.py").write_text("1")
  git(tmp_path, "add", ".")
  git(tmp_path, "commit", "-qm", "first")
  git(tmp_path, "tag", "v1")
  commit = git(tmp_path, "rev-parse", "HEAD")
  assert git_revision(package) == commit
  (package / "a.py").write_text("2")
  assert git_revision(package) == f"{commit}-dirty"
  assert git_revision(package / "site-packages") is None


def test_a_broken_repository_is_no_failure(tmp_path):
  (tmp_path / ".git").write_text("nonsense")
  assert git_revision(tmp_path / "package") is None
