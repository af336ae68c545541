"""Files, caches and finished runs that the tests of the command line share."""

import functools
import os
import types

import jax
import pytest

from augdistill.cli import parts, placing, pretraining, rewriting
from augdistill.training import mesh
from tests.cli.tiny import BOTH, TINY, TINY_PRETRAIN, examples, ok, write_tsv


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory):
  """Keeps data and compiled programs of all these tests, away from home.

  The same program is compiled once, whichever run or process needs it, those
  of the other worker too; and for two devices, which takes less than for eight.
  """
  root = tmp_path_factory.mktemp("caches")
  base = tmp_path_factory.getbasetemp()
  shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
  options = {
    "jax_compilation_cache_dir": str(shared / "jax"),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
  }
  before = {name: jax.config.values[name] for name in options}
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XDG_CACHE_HOME", str(root))
    two = functools.partial(mesh.make_mesh, devices=jax.devices()[:2])
    smaller = types.SimpleNamespace(**vars(mesh) | {"make_mesh": two})
    for module in (parts, placing, pretraining, rewriting):
      patch.setattr(module, "mesh", smaller)
    for name, value in options.items():
      jax.config.update(name, value)
      patch.setenv(name.upper(), str(value))
    yield root
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
  """A folder with train.tsv and test.tsv."""
  folder = tmp_path_factory.mktemp("files")
  write_tsv(folder / "train.tsv", examples(60))
  write_tsv(folder / "test.tsv", examples(12, first=60))
  return folder


@pytest.fixture(scope="session")
def data(files):
  """The flags of that data."""
  return f"--train={files / 'train.tsv'}", f"--test={files / 'test.tsv'}"


@pytest.fixture(scope="session")
def teacher(files, data):
  """The directory of a finished teacher, made by `finetune`."""
  ok("finetune", *data, *TINY, f"--output_dir={files / 'teacher'}")
  return files / "teacher"


@pytest.fixture(scope="session")
def student(files, data, teacher):
  """The directory of a finished student, made by `distill` with two views."""
  flags = f"--teacher={teacher}", f"--method={BOTH}"
  ok("distill", *data, *TINY, *flags, f"--output_dir={files / 'student'}")
  return files / "student"


@pytest.fixture(scope="session")
def pretrained(files, data):
  """The directory of a finished masked language model, made by `pretrain`."""
  path = files / "pretrained"
  ok("pretrain", *data, *TINY_PRETRAIN, f"--output_dir={path}")
  return path
