"""Labels texts with a trained run; prints one JSON object per text.

  augdistill predict --run student --input new.tsv --output labelled.jsonl
  augdistill predict --run student --glue_test rte --output RTE.tsv
  echo "my card has not arrived" | augdistill predict --run student --input -

`-` reads one text per line; the two texts of a pair are separated by a tab.
--glue_test labels the hidden test rows of a task of GLUE and writes them as its
leaderboard takes them.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags of `augdistill predict`."""
  parser.add_argument("--run", metavar="DIR", required=True)
  source = parser.add_mutually_exclusive_group(required=True)
  source.add_argument(
    "--input",
    metavar="FILE",
    help=".tsv, .csv or .jsonl; labels are not read; or - for standard input",
  )
  source.add_argument(
    "--glue_test", metavar="TASK", help="cola, sst2, mrpc, ..., from TFDS"
  )
  parser.add_argument(
    "--output", metavar="FILE", help="default: standard output"
  )
  parser.add_argument("--text_column", metavar="NAME[,NAME]")
  parser.add_argument(
    "--tfds_data_dir", metavar="DIR", help="where TFDS keeps its data"
  )


def run(args: argparse.Namespace) -> None:
  """Runs `augdistill predict`."""
  from augdistill import atomic
  from augdistill.cli.trained import Trained
  from augdistill.errors import UsageError

  if args.output and os.path.isdir(args.output):
    raise UsageError(
      f"--output must be a file, got the directory {args.output}"
    )
  trained = Trained.load(args.run)
  lines = _submission if args.glue_test else _answers
  if args.output:
    with atomic.replacing(args.output) as file:
      file.writelines(lines(trained, args))
    return
  for line in lines(trained, args):
    sys.stdout.write(line)
    sys.stdout.flush()


def _submission(trained, args: argparse.Namespace) -> Iterator[str]:
  """The lines of a file for GLUE's leaderboard."""
  from augdistill.data import glue
  from augdistill.data.rows import read_glue_test
  from augdistill.errors import UsageError, suggest

  name, task = args.glue_test, trained.served.task
  if name not in glue.GLUE:
    raise UsageError(
      f"--glue_test must be one of {', '.join(glue.GLUE)}, got {name!r}."
      + suggest(name, glue.GLUE)
    )
  wanted = glue.glue_task(name)
  same_pair = trained.pair in (None, wanted.pair)
  if not same_pair or set(task.label_names) != set(wanted.label_names):
    raise UsageError(
      f"{args.run} must be trained on {name}, with the labels "
      f"{', '.join(wanted.label_names) or '(none)'}, got "
      f"{', '.join(task.label_names) or '(none)'}"
    )
  texts, numbers = read_glue_test(name, args.tfds_data_dir)
  said = [row["prediction"] for row in _labelled(trained, texts)]
  yield from glue.submission_lines(name, [*zip(numbers, said, strict=True)])


def _answers(trained, args: argparse.Namespace) -> Iterator[str]:
  """One JSON line per text, in order; texts are read as they are needed."""
  count = 0
  for texts in _chunks(args, trained.pair):
    for row in _labelled(trained, texts):
      for key in ("label", "teacher_probabilities"):
        row.pop(key, None)
      row["example_id"] += count
      yield json.dumps(row, ensure_ascii=False) + "\n"
    count += len(texts)


def _labelled(trained, texts: list[tuple[str, ...]]) -> Iterator[dict]:
  """What the run says of each text."""
  from augdistill.data.batches import eval_batches
  from augdistill.data.texts import encode_rows
  from augdistill.evaluation.predict import predict
  from augdistill.evaluation.predictions import prediction_rows

  served, vocab = trained.served, trained.vocab
  rows = encode_rows(texts, vocab, served.max_length, served.task.num_outputs)
  # One row of a terminal's line is not worth a batch of 256.
  size = 256 if len(texts) > 16 else 16
  logits = predict(trained.network, trained.params, eval_batches(rows, size))
  yield from prediction_rows(served.task, rows, logits)


def _chunks(
  args: argparse.Namespace, pair: bool | None, size: int = 256
) -> Iterator[list[tuple[str, ...]]]:
  """Texts, up to `size` at a time; a person's typed line alone."""
  from augdistill.data.files import read_table
  from augdistill.errors import UsageError

  if args.input != "-":
    columns = tuple(args.text_column.split(",")) if args.text_column else None
    if columns and pair is not None and len(columns) != 1 + pair:
      raise UsageError(
        f"--text_column must name {1 + pair} column(s), as the run was trained "
        f"on, got {args.text_column}"
      )
    table = read_table(args.input, text_columns=columns, labelled=False)
    if pair is not None and table.pair != pair:
      raise UsageError(
        f"{args.input} must hold {'pairs' if pair else 'single texts'}, as "
        "the run was trained on"
      )
    for first in range(0, len(table.texts), size):
      yield table.texts[first : first + size]
    return
  size = 1 if sys.stdin.isatty() else size
  chunk = []
  for number, raw in enumerate(sys.stdin.buffer, 1):
    chunk.append(_parse_line(raw, number, bool(pair)))
    if len(chunk) == size:
      yield chunk
      chunk = []
  if chunk:
    yield chunk


def _parse_line(raw: bytes, number: int, pair: bool) -> tuple[str, ...]:
  from augdistill.errors import UsageError

  where = f"standard input, line {number}"
  try:
    line = raw.decode("utf-8").rstrip("\r\n" + os.linesep)
  except UnicodeDecodeError as error:
    raise UsageError(
      f"{where}: text must be UTF-8, got byte {raw[error.start]:#04x} at "
      f"{error.start + 1}"
    ) from None
  texts = tuple(line.split("\t")) if pair else (line,)
  if pair and len(texts) != 2:
    raise UsageError(
      f"{where}: a pair must be two texts separated by one tab, got "
      f"{len(texts) - 1} tabs"
    )
  if not all(text.strip() for text in texts):
    raise UsageError(f"{where}: a text must not be empty")
  return texts
