"""Labels texts with a trained run; prints one JSON object per text.

  augdistill predict --run student --input new.tsv --output labelled.jsonl
  augdistill predict --run student --glue_test rte --output RTE.tsv
  echo "my card has not arrived" | augdistill predict --run student --input -
  augdistill predict --run student --http 8000

`-` reads one text per line; the two texts of a pair are separated by a tab.
Lines are answered as they arrive. --http answers POST /predict with the JSON
{"texts": [...]}, texts or pairs of texts, and GET /health, until it is stopped;
whoever reaches the port may ask, so --host is this machine alone unless told.
--glue_test labels the hidden test rows of a task of GLUE and writes them as its
leaderboard takes them.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator

# Lines of one read of standard input, and rows that are sorted by length.
_WINDOW = 2048
_READ_BYTES = 2**20
_MAX_WAITING = 1024


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
  source.add_argument(
    "--http",
    metavar="PORT",
    type=_port,
    help="serve on this port, 0 for any; pip install 'augdistill[serve]'",
  )
  parser.add_argument(
    "--host", metavar="ADDRESS", help="of --http (default: 127.0.0.1)"
  )
  parser.add_argument(
    "--max_waiting",
    metavar="N",
    type=int,
    help="of --http: answer 503 to whom would make more texts wait (default: "
    f"{_MAX_WAITING})",
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
  _check(args)
  if args.http is not None:
    from augdistill.cli.listening import serve

    host, limit = args.host or "127.0.0.1", args.max_waiting or _MAX_WAITING
    serve(args.run, host, args.http, limit)
    return
  from augdistill import atomic
  from augdistill.cli.trained import Trained

  trained = Trained.load(args.run)
  lines = _submission if args.glue_test else _answers
  if args.output:
    with atomic.replacing(args.output) as file:
      file.writelines(lines(trained, args))
    return
  for line in lines(trained, args):
    sys.stdout.write(line)
    sys.stdout.flush()


def _check(args: argparse.Namespace) -> None:
  """Raises UsageError where flags do not go together."""
  from augdistill.errors import UsageError

  if args.output and os.path.isdir(args.output):
    raise UsageError(
      f"--output must be a file, got the directory {args.output}"
    )
  only_http = ("host", "max_waiting")
  without_http = ("output", "text_column", "tfds_data_dir")
  for name in only_http if args.http is None else without_http:
    if getattr(args, name) is not None:
      goes = "only goes" if args.http is None else "does not go"
      raise UsageError(f"--{name} {goes} with --http")
  if args.max_waiting is not None and args.max_waiting < 1:
    raise UsageError(
      f"--max_waiting must be at least 1, got {args.max_waiting}"
    )


def _port(text: str) -> int:
  if not (text.isascii() and text.isdigit() and int(text) < 2**16):
    raise argparse.ArgumentTypeError(
      f"must be a port from 0 to 65535, got {text!r}"
    )
  return int(text)


def _submission(trained, args: argparse.Namespace) -> Iterator[str]:
  """The lines of a file for GLUE's leaderboard."""
  from augdistill.cli.labelling import labeller
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
  said = [row["prediction"] for row in labeller(trained)(texts)]
  yield from glue.submission_lines(name, [*zip(numbers, said, strict=True)])


def _answers(trained, args: argparse.Namespace) -> Iterator[str]:
  """One JSON line per text, in order; texts are read as they are needed."""
  from augdistill.cli.labelling import labeller

  count, label = 0, labeller(trained)
  for texts in _chunks(args, trained.pair):
    for row in label(texts):
      for key in ("label", "teacher_probabilities"):
        row.pop(key, None)
      row["example_id"] += count
      yield json.dumps(row, ensure_ascii=False) + "\n"
    count += len(texts)


def _chunks(
  args: argparse.Namespace, pair: bool | None, size: int = _WINDOW
) -> Iterator[list[tuple[str, ...]]]:
  """Texts, up to `size` at a time; of standard input, those that are there."""
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
  number = 0
  for lines in _arriving_lines(sys.stdin.buffer):
    for first in range(0, len(lines), size):
      chunk = []
      for raw in lines[first : first + size]:
        number += 1
        chunk.append(_parse_line(raw, number, bool(pair)))
      yield chunk


def _arriving_lines(stream: io.BufferedIOBase) -> Iterator[list[bytes]]:
  """The lines of a stream; those that have arrived together are together.

  So a line that is typed, or that a program writes and then waits, is answered
  at once, and a long file by many lines at a time.
  """
  parts = []  # of a line whose end has not arrived
  while data := stream.read1(_READ_BYTES):
    *lines, rest = data.split(b"\n")
    if lines:
      lines[0] = b"".join([*parts, lines[0]])
      parts = []
      yield lines
    parts.append(rest)
  if rest := b"".join(parts):
    yield [rest]


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
