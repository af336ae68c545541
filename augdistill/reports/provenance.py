"""Where a run comes from: enough to make it again, or to see why one cannot."""

import datetime as dt
import importlib.metadata
import pathlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import jax

import augdistill

PACKAGES = (
  "augdistill",
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "numpy",
  "gin-config",
  "seqio",
  "tensorflow",
  "tensorflow-datasets",
  "sentencepiece",
)


def provenance(
  seed: int,
  data_fingerprints: Mapping[str, str],
  label_names: Sequence[str],
  argv: Sequence[str],
) -> dict[str, Any]:
  """What `provenance.json` holds.

  Args:
    seed: the run's.
    data_fingerprints: split -> content hash.
    label_names: the name of each output, in order.
    argv: the command, word by word.

  Returns:
    A dict for JSON. A package that is not installed has the version null.
  """
  devices = jax.devices()
  return {
    "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    "argv": list(argv),
    "seed": seed,
    "data_fingerprints": dict(data_fingerprints),
    "label_names": list(label_names),
    "versions": versions(),
    "git_revision": git_revision(pathlib.Path(augdistill.__file__).parent),
    "python": platform.python_version(),
    "platform": platform.platform(),
    "host": platform.node(),
    "num_processes": jax.process_count(),
    "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in devices],
  }


def versions() -> dict[str, str | None]:
  """Package -> version; None for one that is not installed."""
  return {name: _version(name) for name in PACKAGES}


def git_revision(package: pathlib.Path) -> str | None:
  """The commit of a package that lies in its repository's root.

  Args:
    package: the package's directory.

  Returns:
    The commit's hash, "-dirty" behind it where files differ; None where the
    package is installed elsewhere, or git is not.
  """
  root = package.parent
  if not (root / ".git").exists():
    return None
  command = ["git", "-C", str(root), "describe"]
  command += ["--always", "--dirty", "--abbrev=40", "--exclude=*"]
  try:
    done = subprocess.run(
      command, capture_output=True, text=True, timeout=10, check=True
    )
  except (OSError, subprocess.SubprocessError):
    return None
  return done.stdout.strip()


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None
