"""What every export holds, whatever its format: vocabulary, task and README.

  the vocabulary's files  task.json  texts.py     texts -> tokens, answers
  README.md                                       how to use it

The Python files in an export are those of `checkpoints/standalone`, word by
word, and need nothing of this package.
"""

import importlib.resources
import json
import os
import pathlib
import runpy
import string
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from augdistill.data.vocabulary import Vocab
from augdistill.types import Task, TaskKind

# (tokens i32[B, L], mask bool[B, L]) -> f32[B, C], what was written computes.
Logits = Callable[[np.ndarray, np.ndarray], np.ndarray]

TASK = "task.json"
# What transformers calls a kind of task.
PROBLEM_TYPES = {
  TaskKind.CLASSES: "single_label_classification",
  TaskKind.REGRESSION: "regression",
  TaskKind.MULTI_LABEL: "multi_label_classification",
}


def write_texts(
  directory: pathlib.Path, vocab: Vocab, task: Task, max_length: int
) -> None:
  """Writes the vocabulary, task.json and texts.py.

  Args:
    directory: where to.
    vocab: what tokens mean; its files are those of `Vocab.plain_files`.
    task: what the outputs mean.
    max_length: tokens kept of a text.
  """
  files, frame = vocab.plain_files(), vocab.frame
  for name, content in files.items():
    (directory / name).write_bytes(content)
  write_json(
    directory / TASK,
    {
      "name": task.name,
      "kind": str(task.kind),
      "label_names": list(task.label_names),
      "pair": task.pair,
      "max_length": max_length,
      "vocab": list(files)[-1],
      "before": list(frame.before),
      "between": list(frame.between),
      "end": frame.end_id,
    },
  )
  write_standalone(directory, "texts.py")


def labels_of(task: Task) -> dict[str, Any]:
  """What a config.json of transformers says of a task."""
  names = task.label_names or ("value",)
  return {
    "problem_type": PROBLEM_TYPES[task.kind],
    "id2label": {str(i): name for i, name in enumerate(names)},
    "label2id": {name: i for i, name in enumerate(names)},
  }


def end_id(directory: str | os.PathLike) -> int:
  """The token behind every text of an export."""
  text = pathlib.Path(directory, TASK).read_text(encoding="utf-8")
  return json.loads(text)["end"]


def write_standalone(directory: pathlib.Path, name: str) -> None:
  """Copies a file of `checkpoints/standalone`."""
  (directory / name).write_text(_standalone(name), encoding="utf-8")


def write_readme(
  directory: pathlib.Path, template: str, values: Mapping[str, Any]
) -> None:
  """Writes README.md.

  Args:
    directory: where to.
    template: its name in `checkpoints/standalone`.
    values: of the names in the template.
  """
  text = string.Template(_standalone(template)).substitute(values)
  (directory / "README.md").write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
  """Writes an object, its keys in order."""
  text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
  path.write_text(f"{text}\n", encoding="utf-8")


def read_texts(directory: str | os.PathLike) -> Any:
  """The `Texts` of an export, by the code that lies in it."""
  return standalone_class(directory, "texts.py", "Texts")(directory)


def standalone_class(
  directory: str | os.PathLike, name: str, what: str
) -> Callable[..., Any]:
  """A class of a Python file in an export; leaves no compiled file there."""
  return runpy.run_path(os.path.join(directory, name))[what]


def _standalone(name: str) -> str:
  folder = importlib.resources.files("augdistill.checkpoints.standalone")
  return (folder / name).read_text(encoding="utf-8")
