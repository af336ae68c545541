"""The flags that commands share: sugar over gin's UPPER_CASE macros."""

import argparse
import math
import os
from collections.abc import Sequence

from augdistill.cli import together
from augdistill.errors import UsageError

# Flag -> the macro that it sets.
MACROS = {
  "task": "TASK",
  "train": "TRAIN_FILE",
  "validation": "VALIDATION_FILE",
  "test": "TEST_FILE",
  "unlabeled": "UNLABELED_FILE",
  "text_column": "TEXT_COLUMN",
  "label_column": "LABEL_COLUMN",
  "task_kind": "TASK_KIND",
  "vocab": "VOCAB_FILE",
  "max_length": "MAX_LENGTH",
  "tfds_data_dir": "TFDS_DATA_DIR",
  "train_examples": "TRAIN_EXAMPLES",
  "train_fraction": "TRAIN_FRACTION",
  "labeled_fraction": "LABELED_FRACTION",
  "teacher": "TEACHER",
  "model": "MODEL",
  "method": "METHOD",
  "teacher_dropout": "TEACHER_DROPOUT",
  "teacher_cache": "TEACHER_CACHE",
  "teacher_cache_draws": "TEACHER_CACHE_DRAWS",
  "init": "INIT",
  "rewrites": "REWRITES_FILE",
  "generator": "GENERATOR",
  "init_layers": "INIT_LAYERS",
  "num_steps": "NUM_STEPS",
  "batch_size": "BATCH_SIZE",
  "mesh": "MESH",
  "learning_rate": "LEARNING_RATE",
  "seed": "SEED",
}
_DIRECTORIES = ("teacher", "teacher_cache", "generator", "init")


def add_data(parser: argparse.ArgumentParser) -> None:
  """Which data, and how to read them."""
  group = parser.add_argument_group(
    "data", "a seqio Task by name, or files: .tsv, .csv or .jsonl"
  )
  group.add_argument(
    "--task",
    help="any seqio Task; helpdesk is embedded, cola, sst2, mrpc, "
    "stsb, qqp, mnli, qnli and rte come from TFDS",
  )
  group.add_argument("--train", metavar="FILE", help="labelled texts")
  group.add_argument(
    "--validation",
    metavar="FILE",
    help="labelled texts that choose the checkpoint (default: a tenth of "
    "--train is held out)",
  )
  group.add_argument(
    "--test", metavar="FILE", help="labelled texts that are only reported"
  )
  group.add_argument(
    "--text_column",
    metavar="NAME[,NAME]",
    help="column of the text, or of two texts (default: sentence, or "
    "sentence1,sentence2)",
  )
  group.add_argument("--label_column", metavar="NAME", help="default: label")
  group.add_argument(
    "--task_kind",
    choices=("classes", "regression", "multi_label"),
    help="what a label is (default: seen from the labels)",
  )
  group.add_argument(
    "--vocab",
    metavar="FILE",
    help="a SentencePiece model, a tokenizer.json or BERT's vocab.txt "
    "(default: a SentencePiece model trained on the training texts)",
  )
  group.add_argument(
    "--max_length",
    type=int,
    metavar="N",
    help="tokens kept of a text (default: 128)",
  )
  group.add_argument(
    "--tfds_data_dir", metavar="DIR", help="where TFDS keeps its data"
  )


def add_rows(parser: argparse.ArgumentParser) -> None:
  """Which of the training rows are learnt from; at most one of them."""
  group = parser.add_argument_group(
    "rows", "to learn from fewer rows, or from fewer labels"
  )
  group.add_argument(
    "--train_examples",
    type=int,
    metavar="N",
    help="learn from N rows of the training data, balanced over classes",
  )
  group.add_argument(
    "--train_fraction",
    type=finite,
    metavar="X",
    help="learn from this share of the rows of each class",
  )
  group.add_argument(
    "--labeled_fraction",
    type=finite,
    metavar="X",
    help="this share of the rows of each class keeps its labels: a teacher "
    "learns from these, its student from the others, without labels",
  )


def add_init(parser: argparse.ArgumentParser) -> None:
  """What the model begins with."""
  parser.add_argument(
    "--init",
    metavar="DIR",
    help="begin with pretrained weights, and read with their vocabulary: a "
    "finished run of augdistill; a T5 or one of the BERT family of "
    "transformers, in a directory or at hf://ORGANISATION/NAME; or a "
    "checkpoint of T5X, in a directory or at gs://, with --vocab. A head is "
    "kept that knows the same classes. Without --model, the model has their "
    "shape",
  )


def add_rewrites(parser: argparse.ArgumentParser) -> None:
  """Other texts of the training rows."""
  group = parser.add_argument_group(
    "rewrites", "other texts of the training rows, for the view rewrites"
  )
  group.add_argument(
    "--rewrites",
    metavar="FILE",
    help="a .jsonl, .tsv or .csv file with the columns sentence and rewrite "
    "(pairs: sentence1, sentence2, rewrite1, rewrite2), or of augdistill "
    "rewrite",
  )
  group.add_argument(
    "--generator",
    metavar="DIR",
    help="or make them with a finished run of augdistill pretrain; "
    "--gin.RewriteOptions.NAME=VALUE sets how",
  )


def add_training(
  parser: argparse.ArgumentParser,
  model: str,
  num_steps: int,
  learning_rate: float,
) -> None:
  """How long and how to train.

  Args:
    parser: of the command.
    model: the defaults of the command's gin file, for its help.
    num_steps: likewise.
    learning_rate: likewise.
  """
  group = parser.add_argument_group("training")
  group.add_argument(
    "--model",
    metavar="NAME",
    help=f"micro, mini, small, base, large or xl (default: {model})",
  )
  group.add_argument(
    "--num_steps", type=int, metavar="N", help=f"default: {num_steps}"
  )
  group.add_argument(
    "--batch_size", type=int, metavar="N", help="rows of a step (default: 64)"
  )
  group.add_argument(
    "--learning_rate",
    type=finite,
    metavar="X",
    help=f"the peak of its schedule (default: {learning_rate})",
  )
  group.add_argument("--seed", type=int, metavar="N", help="default: 0")
  group.add_argument(
    "--mesh",
    metavar="SHAPE",
    help="devices that cut the rows x devices that cut the parameters: 4x2, "
    "x2 for all there are, or a TPU slice such as v4-32 (default: x1)",
  )
  parser.add_argument(
    "--output_dir",
    metavar="DIR",
    required=True,
    help="where the run goes, here or at gs://BUCKET/DIRECTORY; the same one "
    "resumes it",
  )
  parser.add_argument(
    "--wandb",
    metavar="PROJECT",
    help="show the run in this project of Weights & Biases, too",
  )
  together.add_arguments(parser)


def finite(text: str) -> float:
  """A flag's number, which is neither infinite nor none."""
  try:
    number = float(text)
  except ValueError:
    number = math.nan
  if not math.isfinite(number):
    raise argparse.ArgumentTypeError(f"must be a finite number, got {text!r}")
  return number


def add_gin(parser: argparse.ArgumentParser) -> None:
  """T5X's way to set anything."""
  group = parser.add_argument_group(
    "gin",
    "as in T5X: --gin.NAME=VALUE sets a macro or a parameter, for example\n"
    "--gin.make_optimizer.warmup_fraction=0.1; it wins over flags, and flags\n"
    "win over files",
  )
  group.add_argument(
    "--gin_file",
    action="append",
    default=[],
    metavar="FILE",
    help="a gin file, for example methods/augpro.gin; repeatable",
  )
  group.add_argument(
    "--gin_search_paths",
    metavar="DIR[,DIR]",
    default="",
    help="where gin files are looked for, before the installed configs",
  )


def macro_bindings(args: argparse.Namespace) -> list[str]:
  """The gin bindings that the given flags stand for."""
  from augdistill.augment.methods import written_out

  bindings = []
  for flag, macro in MACROS.items():
    value = getattr(args, flag, None)
    if value is not None:
      # A run keeps what a name stood for when it began.
      value = written_out(value) if flag == "method" else value
      value = as_directory(value) if flag in _DIRECTORIES else value
      bindings.append(f"{macro} = {value!r}")
  if getattr(args, "model", None):  # A file may have given another shape.
    bindings.append("RunConfig.model = @enct5_config")
  elif getattr(args, "init", None):
    bindings.append("RunConfig.model = @model_like")
    _check_read(args.gin_bindings)
  return bindings


def _check_read(gin_bindings: Sequence[str]) -> None:
  """Raises UsageError where a binding is of a shape that --init gives."""
  for binding in gin_bindings:
    if binding.startswith("enct5_config."):
      name = binding.partition("=")[0].removeprefix("enct5_config.").strip()
      raise UsageError(
        f"enct5_config.{name} has no effect, since --init gives the shape; "
        f"say model_like.{name}, or give --model NAME"
      )


def as_directory(path: str) -> str:
  """A path without a slash too many, which is no other configuration."""
  return path.rstrip("/") if "://" in path else os.path.normpath(path)
