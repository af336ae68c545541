"""An export from a run to its files: written, read again, compared, measured.

Which network can be written, and by what, is a table: architectures are added
to `ARCHITECTURES`, formats to both of its columns.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from augdistill import atomic
from augdistill.checkpoints import exported, flat
from augdistill.checkpoints.exported_bert import read_bert, write_bert
from augdistill.checkpoints.exported_enct5 import read_enct5, write_enct5
from augdistill.checkpoints.exported_program import read_program, write_program
from augdistill.checkpoints.int8 import SCALE, dequantise, quantise
from augdistill.checkpoints.t5x_checkpoint import write_t5x
from augdistill.cli import export_checks as checks
from augdistill.cli.exported_run import (
  ExportedRun,
  open_run,
  rows_of,
  teacher_of,
)
from augdistill.cli.trained import Trained, count
from augdistill.data.dataset import Examples
from augdistill.data.vocabulary import Vocab
from augdistill.errors import UsageError, listing
from augdistill.models.bert_config import BertConfig
from augdistill.models.enct5 import EncT5Config
from augdistill.models.networks import network
from augdistill.reports.provenance import versions
from augdistill.reports.student_gin import Served, served_text
from augdistill.types import Inputs, TaskKind

REPORT = "export.json"
Weights = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Format:
  """How a network is written and read again.

  Attributes:
    write: (directory, what is served, vocabulary, weights) writes it, with a
      texts.py that reads texts as the network does.
    read: directory -> the logits that the files there give.
    readme: the template of its README.md, in `checkpoints/standalone`.
  """

  write: Callable[[pathlib.Path, Served, Vocab, Weights], None]
  read: Callable[[pathlib.Path], exported.Logits]
  readme: str


def _write_hf(write):
  """What writes a model and its texts, where `write` writes the model."""

  def write_all(directory, served, vocab, weights):
    exported.write_texts(directory, vocab, served.task, served.max_length)
    write(
      directory, served.model, served.task, vocab, served.max_length, weights
    )

  return write_all


def _write_stablehlo(directory, served, vocab, weights):
  exported.write_texts(directory, vocab, served.task, served.max_length)
  model = served.model
  write_program(directory, network(model), weights, model.max_length)


def _write_t5x(directory, served, vocab, weights):
  if any(name.endswith(SCALE) for name in weights):
    raise UsageError(
      "--format t5x must be of --weights float32, which T5X trains and reads"
    )
  exported.write_texts(directory, vocab, served.task, served.max_length)
  write_t5x(directory / "checkpoint_0", weights)
  # What makes it a run of T5X to `Trained`.
  text = served_text(served)
  (directory / "student.gin").write_text(text, encoding="utf-8")
  vocab.save(directory / "vocab")


def _read_t5x(directory):
  its = Trained.load(str(directory))

  @jax.jit
  def logits(params, tokens, mask):
    inputs = Inputs(mask=mask[None], tokens=tokens[None])
    return its.network.forward(params, inputs, key=None).logits[0]

  return lambda tokens, mask: np.asarray(logits(its.params, tokens, mask))


_PROGRAM = Format(_write_stablehlo, read_program, "stablehlo.md")
# The class of a network's shape -> format -> how it is written.
ARCHITECTURES: dict[type, dict[str, Format]] = {
  EncT5Config: {
    "hf": Format(_write_hf(write_enct5), read_enct5, "hf.md"),
    "stablehlo": _PROGRAM,
    "t5x": Format(_write_t5x, _read_t5x, "t5x.md"),
  },
  BertConfig: {
    "hf": Format(_write_hf(write_bert), read_bert, "bert.md"),
    "stablehlo": _PROGRAM,
  },
}


def export_run(
  path: str,
  format_name: str,
  output: str,
  weights: str,
  force: bool,
  data: str | None = None,
) -> dict[str, Any]:
  """Exports a run.

  Args:
    path: the run's directory.
    format_name: one of `export.FORMATS`.
    output: where it goes; either all of it is there in the end, or nothing.
    weights: "float32" or "int8".
    force: whether an export that is there is replaced.
    data: a file of rows to compare with, instead of the run's own.

  Returns:
    What export.json holds.

  Raises:
    UsageError: if there is no such run, or the output cannot be used.
    RunError: if a checkpoint cannot be read, or what was written is not what
      the run says.
  """
  check_output(output, path, force)
  run = open_run(path)
  served = run.trained.served
  written_by = _format(served, format_name)
  # In float32 whatever the activations of training were, and on all devices,
  # or what is written could not be compared with the run so closely.
  served = dataclasses.replace(
    served, model=dataclasses.replace(served.model, dtype="float32")
  )
  with jax.default_matmul_precision("highest"):
    split, rows = rows_of(run, data)
    made = _Made(run, served, format_name, weights, split, rows)
    try:
      with atomic.replacing_directory(output) as directory:
        return _write(directory, made, written_by)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
      raise UsageError(
        f"cannot write to {output}: {error.strerror}. Choose another --output"
      ) from error


def check_output(output: str, run: str, force: bool) -> None:
  """Raises UsageError where an export may not go."""
  atomic.check_local(output)
  place, of_run, checkpoints = (
    pathlib.Path(os.path.realpath(p))
    for p in (output, run, os.path.join(run, "checkpoints"))
  )
  if place.is_relative_to(checkpoints):
    raise UsageError(
      f"--output must not lie in the run's own checkpoints, got {output}; "
      f"choose another one, such as {os.path.join(run, 'export')}"
    )
  if place.exists() and not place.is_dir():
    raise UsageError(f"--output must be a directory, got the file {output}")
  there = sorted(p.name for p in place.iterdir()) if place.exists() else []
  if not there:
    return
  if REPORT not in there or of_run.is_relative_to(place):
    raise UsageError(
      f"--output must be new or empty, but {output} holds "
      f"{listing(there, 3)}; choose another one"
    )
  if not force:
    raise UsageError(
      f"{output} holds an export already; give --force to make it anew, or "
      "choose another --output"
    )


def _format(served: Served, name: str) -> Format:
  kind = type(served.model)
  if name not in ARCHITECTURES.get(kind, {}):
    raise UsageError(
      f"--format {name} must be of a model that it can write, got one of "
      f"{kind.__name__}; it writes "
      f"{listing(k.__name__ for k, f in ARCHITECTURES.items() if name in f)}"
    )
  return ARCHITECTURES[kind][name]


@dataclasses.dataclass(frozen=True)
class _Made:
  """What an export is made of.

  Attributes:
    run: where it comes from.
    served: what is written, in float32.
    format_name: one of `export.FORMATS`.
    weights: "float32" or "int8".
    split: of the rows.
    rows: the run's own.
  """

  run: ExportedRun
  served: Served
  format_name: str
  weights: str
  split: str
  rows: Examples


def _write(
  directory: pathlib.Path, made: _Made, written_by: Format
) -> dict[str, Any]:
  """Writes all files of an export, and is the first to use them."""
  run, served = made.run, made.served
  stored = plain = {
    name: np.asarray(leaf, np.float32)
    for name, leaf in flat.named_leaves(jax.device_get(run.trained.params))
  }
  if made.weights == "int8":
    stored = quantise(plain)
  written_by.write(directory, served, run.trained.vocab, stored)
  # Of the model alone, as it is read below: README and report come later.
  sizes = {p.name: _size(p) for p in sorted(directory.iterdir())}
  model = network(served.model)
  params = jax.device_put(flat.nested(dequantise(stored)))
  said = checks.logits(model, params, made.rows)
  logits = written_by.read(directory)
  compared = checks.compare(directory, logits, made.rows, said)
  before = checks.logits(model, run.trained.params, made.rows)
  teacher, missing = teacher_of(run)
  networks = {"student": (model, params)}
  if teacher:
    networks["teacher"] = teacher.network, jax.device_put(teacher.params)
  report = {
    "format": made.format_name,
    "weights": made.weights,
    "run": run.directory.where,
    "step": run.step,
    "finished": run.finished,
    "method": run.method,
    "architecture": type(served.model).__name__,
    "num_params": {
      "student": count(params),
      "teacher": count(teacher.params) if teacher else None,
    },
    "bytes": sizes,
    "compared": {"split": made.split, **compared},
    "scores": {
      "split": made.split,
      **checks.scores(served.task, made.rows, before, said),
    },
    "latency": checks.latencies(networks, logits, made.rows),
    "no_teacher": missing or None,
    "versions": versions(),
  }
  exported.write_json(directory / REPORT, report)
  _write_readme(directory, written_by.readme, made, report)
  return report


def _size(path: pathlib.Path) -> int:
  files = path.rglob("*") if path.is_dir() else [path]
  return sum(file.stat().st_size for file in files if file.is_file())


_SAYS = {
  TaskKind.CLASSES: "one of {} classes",
  TaskKind.MULTI_LABEL: "which of {} names apply",
  TaskKind.REGRESSION: "a number",
}
_TRANSFORMERS = {
  "float32": "`transformers.T5EncoderModel.from_pretrained` loads the encoder, "
  "and augdistill begins with\nit by `--init`. `T5Tokenizer` takes a special "
  "token that is written out in a text,\nsuch as `</s>`, for the token itself; "
  "`texts.py` reads it as text, as training did.\n",
  "int8": "Matrices are in int8, each row with a scale, `NAME.scale`; `enct5.py"
  "` multiplies\nthem as it reads. transformers does not, and does not find a "
  "file of this name.\n",
}


def _write_readme(
  directory: pathlib.Path,
  template: str,
  made: _Made,
  report: Mapping[str, Any],
) -> None:
  task, compared = made.served.task, report["compared"]
  # Also transformers' own file for it, where there is one.
  files = [*made.run.trained.vocab.plain_files(), "tokenizer_config.json"]
  files = [name for name in files if name in report["bytes"]]
  in_json = "tokenizer.json" in files
  text = '"the first text", "the second"'
  says = _SAYS[task.kind].format(len(task.label_names))
  exported.write_readme(
    directory,
    template,
    {
      "title": task.name,
      "num_params": f"{report['num_params']['student']:,}",
      "step": made.run.step,
      "method": made.run.method,
      "reads": "pairs of texts" if task.pair else "texts",
      "max_length": made.served.max_length,
      "says": says,
      "vocab_files": ", ".join(f"`{name}`" for name in files),
      "reader": "tokenizers" if in_json else "sentencepiece",
      "architecture": type(made.served.model).__name__.removesuffix("Config"),
      # As the arguments of a tokenizer.
      "call": text if task.pair else '"my card has not arrived"',
      "example": f"({text})" if task.pair else '"my card has not arrived"',
      "weights_file": next(
        n for n in report["bytes"] if n.startswith(("model", "checkpoint"))
      ),
      "shape": "\n".join(
        f"enct5.EncT5Config.{field.name} = "
        f"{getattr(made.served.model, field.name)!r}"
        for field in dataclasses.fields(made.served.model)
        if field.name not in ("vocab_size", "num_outputs")
      ),
      "transformers": _TRANSFORMERS[made.weights],
      "rows": f"{compared['rows']} {compared['split']}",
      "difference": f"{compared['largest_difference']:.1g}",
      "jax": report["versions"]["jax"],
    },
  )
