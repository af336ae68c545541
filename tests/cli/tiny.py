"""A tiny task, and the command line in process and as a process."""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

import jax
import numpy as np

from augdistill.checkpoints.store import Store
from augdistill.cli.main import main

# Small shapes, few of them; the same everywhere, so that they compile once.
TINY = (
  "--model=micro",
  "--num_steps=4",
  "--batch_size=8",
  "--max_length=16",
  "--gin.RunConfig.eval_batch_size=16",
  "--gin.RunConfig.eval_period=2",
  "--gin.RunConfig.log_period=1",
  "--gin.RunConfig.num_samples=0",
)
# The same for `pretrain`.
TINY_PRETRAIN = tuple(
  flag.replace("RunConfig", "PretrainConfig")
  for flag in TINY
  if "num_samples" not in flag
)
BOTH = "kd+augpro_mix+augpro_fgsm"
LABELS = ("app", "card", "cash")
_TOPICS = (
  ("app", "login", "phone", "screen"),
  ("card", "visa", "pin", "plastic"),
  ("cash", "money", "atm", "notes"),
)
_FILLER = (
  *("my", "the", "please", "help", "with", "is"),
  *("not", "working", "today", "since", "a", "new"),
)


class Done(NamedTuple):
  """What a command left behind."""

  code: int
  out: str
  err: str


def run(*argv, stdin=b""):
  """Runs `augdistill ARGV` in this process."""
  out, err = io.StringIO(), io.StringIO()
  before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin))
  try:
    with (
      contextlib.redirect_stdout(out),
      contextlib.redirect_stderr(err),
      jax.numpy_dtype_promotion("standard"),  # optax's adamw needs it
    ):
      code = main([str(word) for word in argv])
  finally:
    sys.stdin = before
  return Done(code, out.getvalue(), err.getvalue())


def ok(*argv, stdin=b""):
  """`run`, which must succeed."""
  done = run(*argv, stdin=stdin)
  assert done.code == 0, done.err
  return done


def command(*argv):
  """`augdistill ARGV` as the words of a process of its own."""
  code = "import sys; from augdistill.cli.main import main; sys.exit(main())"
  return [sys.executable, "-c", code, *map(str, argv)]


def on_devices(count):
  """The environment of a process that has so many devices."""
  # Of two flags of one name the last counts.
  flag = f"--xla_force_host_platform_device_count={count}"
  return os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flag}"}


def start(*argv, **kwargs):
  """Starts `augdistill ARGV` as a process, on one device."""
  env = on_devices(1) | {"TERM": "xterm"}
  kwargs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | kwargs
  return subprocess.Popen(command(*argv), env=env, text=True, **kwargs)


def examples(count, first=0):
  """(text, label) pairs; each label comes equally often."""
  for i in range(first, first + count):
    words = [_FILLER[(5 * i + 3 * j) % 12] for j in range(2 + i % 4)]
    words.insert(i % 3, _TOPICS[i % 3][(i // 3) % 4])
    yield " ".join(words), LABELS[i % 3]


def write_tsv(path, rows, header=("sentence", "label")):
  """Writes a table; returns its path."""
  lines = ["\t".join(map(str, row)) for row in [header, *rows]]
  path.write_text("\n".join(lines) + "\n", encoding="utf-8")
  return path


def read_jsonl(path):
  """The objects of a .jsonl file."""
  return [json.loads(line) for line in pathlib.Path(path).open()]


def results(directory):
  """A finished run's results.json."""
  return json.loads((pathlib.Path(directory) / "results.json").read_text())


def untimed(directory):
  """The same without what two equal runs differ in."""
  timed = ("train_seconds", "seconds_per_1000_steps", "examples_per_second")
  return {k: v for k, v in results(directory).items() if k not in timed}


def params(directory, step=None):
  """The parameters of a run's newest checkpoint, or of one step."""
  with Store(pathlib.Path(directory) / "checkpoints") as store:
    return store.restore_params(step)


def same_bits(one, other):
  """Whether two trees of arrays are equal bit for bit."""
  leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return jax.tree.structure(one) == jax.tree.structure(other) and all(
    np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in leaves
  )


def snapshot(directory):
  """Every file below a directory, with its contents' hash."""
  return {
    str(path.relative_to(directory)): hashlib.sha256(
      path.read_bytes()
    ).hexdigest()
    for path in sorted(pathlib.Path(directory).rglob("*"))
    if path.is_file()
  }
