"""A directory is whole or not there."""

import os

import pytest

from augdistill import atomic
from augdistill.atomic import replacing_directory


def written(path):
  return {p.name: p.read_text() for p in path.iterdir()}


@pytest.mark.parametrize("before", [None, {}, {"old": "1"}])
def test_a_directory_takes_the_place_of_what_was_there(tmp_path, before):
  path = tmp_path / "folder" / "export"
  if before is not None:
    path.mkdir(parents=True)
    for name, text in before.items():
      (path / name).write_text(text)
  with replacing_directory(path) as directory:
    assert directory.parent == path.parent
    (directory / "new").write_text("2")
    assert (written(path) if path.exists() else None) == before
  assert written(path) == {"new": "2"}
  assert os.listdir(path.parent) == ["export"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_what_was_there(tmp_path, error):
  path = tmp_path / "export"
  for before in (False, True):
    if before:
      path.mkdir()
      (path / "old").write_text("1")
    with pytest.raises(error), replacing_directory(path) as directory:
      (directory / "new").write_text("2")
      raise error
    assert os.listdir(tmp_path) == ["export"] * before
  assert written(path) == {"old": "1"}


def test_what_was_there_comes_back_if_the_new_one_cannot_take_its_place(
  monkeypatch, tmp_path
):
  path = tmp_path / "export"
  path.mkdir()
  (path / "old").write_text("1")
  rename = os.replace

  def refuse(source, target):
    if str(source).endswith(".tmp"):
      raise PermissionError
    rename(source, target)

  monkeypatch.setattr(atomic.os, "replace", refuse)
  with pytest.raises(PermissionError), replacing_directory(path):
    pass
  assert os.listdir(tmp_path) == ["export"]
  assert written(path) == {"old": "1"}


def test_a_link_to_a_directory_stays_one(tmp_path):
  (tmp_path / "there").mkdir()
  (tmp_path / "link").symlink_to("there")
  with replacing_directory(tmp_path / "link") as directory:
    (directory / "new").write_text("2")
  assert (tmp_path / "link").is_symlink()
  assert written(tmp_path / "there") == {"new": "2"}
