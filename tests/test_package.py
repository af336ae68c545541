"""What is installed: the package with its gin files and its data set."""

import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = ("setup.py", "pyproject.toml", "LICENSE", "README.md")
BUILD = """
import sys
import setuptools.build_meta
build = getattr(setuptools.build_meta, "build_" + sys.argv[1])
build(sys.argv[2])
"""
FIND = """
import importlib.util
import sys
sys.path[:0] = sys.argv[1:2]
import augdistill
assert augdistill.__file__.startswith(sys.argv[1]), augdistill.__file__
from gin import resource_reader
for name in sys.argv[2:]:
  assert resource_reader.system_path_file_exists(name), name
"""


def python(code, *args, cwd):
  command = [sys.executable, "-c", code, *map(str, args)]
  done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr[-2000:]


def build(kind, source, destination):
  """Builds a "wheel" or an "sdist" and gives its path."""
  destination.mkdir()
  python(BUILD, kind, destination, cwd=source)
  (built,) = destination.iterdir()
  return built


def names(wheel):
  return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """A copy of the checkout, since building leaves files behind."""
  copy = tmp_path_factory.mktemp("package") / "source"
  ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
  for folder in ("augdistill", "configs"):
    shutil.copytree(ROOT / folder, copy / folder, ignore=ignore)
  for name in SOURCES:
    shutil.copy(ROOT / name, copy)
  return copy


@pytest.fixture(scope="module")
def wheel(source):
  return build("wheel", source, source.parent / "wheel")


def test_the_wheel_holds_every_module_gin_file_and_data_file(source, wheel):
  wanted = set()
  for pattern in (
    *("**/*.py", "**/*.gin", "data/helpdesk/*", "reports/templates/*"),
    "checkpoints/standalone/*",
  ):
    for folder, place in (("augdistill", ""), ("configs", "configs")):
      for path in (source / folder).glob(pattern):
        inside = path.relative_to(source / folder).as_posix()
        wanted.add("/".join(filter(None, ("augdistill", place, inside))))
  missing = wanted - names(wheel)
  assert not missing
  assert any(name.endswith(".gin") for name in wanted)
  assert "augdistill/data/helpdesk/test.tsv" in wanted


def test_the_wheel_holds_nothing_but_the_package(wheel):
  tops = {name.split("/")[0] for name in names(wheel)}
  assert {top for top in tops if not top.endswith(".dist-info")} == {
    "augdistill"
  }


def test_the_source_archive_gives_the_same_wheel(source, wheel):
  archive = build("sdist", source, source.parent / "sdist")
  unpacked = source.parent / "unpacked"
  with tarfile.open(archive) as tar:
    # Python 3.11.3 and older have none.
    tar.extraction_filter = getattr(tarfile, "data_filter", None)
    tar.extractall(unpacked)
  (folder,) = unpacked.iterdir()
  again = build("wheel", folder, source.parent / "wheel_again")
  assert names(again) == names(wheel)


def test_gin_finds_the_files_of_an_installed_package_by_name(source, wheel):
  installed = source.parent / "installed"
  zipfile.ZipFile(wheel).extractall(installed)
  configs = (source / "configs").glob("**/*.gin")
  files = [f"augdistill/{p.relative_to(source).as_posix()}" for p in configs]
  assert files
  python(FIND, installed, *files, cwd=source.parent)
