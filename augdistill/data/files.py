"""Tables of texts and labels from files, checked row by row.

Three formats, chosen by the file's extension, all UTF-8:

  .tsv    a header line, then one row per line; no quoting
  .csv    a header line, then rows; quoted fields may hold commas and newlines
  .jsonl  one JSON object per line

Text columns are `sentence`, or `sentence1` and `sentence2` for pairs, unless
others are named; the label column is `label`. What is wrong is reported with
its file, line, column and value, and nothing wrong is passed on.
"""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import math
import os
from typing import Any

from augdistill.errors import UsageError, listing, suggest
from augdistill.types import TaskKind

# One name, or the set of names of a multi-label row.
RawLabel = str | tuple[str, ...]
# The columns in order, and (line, column -> value) of each row.
Rows = tuple[list[str], list[tuple[int, dict[str, Any]]]]


@dataclasses.dataclass(frozen=True)
class Table:
  """The rows of a file.

  Attributes:
    path: where they come from, for messages.
    texts: per row one text, or two for pairs.
    labels: per row the label as written, or None for an unlabelled table.
    lines: per row the number of its first line, from 1.
  """

  path: str
  texts: list[tuple[str, ...]]
  labels: list[RawLabel] | None
  lines: list[int]

  @property
  def pair(self) -> bool:
    """Whether a row is two texts."""
    return len(self.texts[0]) == 2

  @property
  def fingerprint(self) -> str:
    """sha256 of the texts and labels."""
    content = json.dumps([self.texts, self.labels])
    return hashlib.sha256(content.encode()).hexdigest()

  def where(self, row: int) -> str:
    """How messages name a row."""
    return f"{self.path}, line {self.lines[row]}"


def read_table(
  path: str,
  *,
  text_columns: tuple[str, ...] | None = None,
  label_column: str = "label",
  labelled: bool = True,
  kind: TaskKind | str | None = None,
) -> Table:
  """Reads a .tsv, .csv or .jsonl file.

  Args:
    path: the file.
    text_columns: the names of one or two columns; by default `sentence`, or
      `sentence1` and `sentence2`.
    label_column: the name of the column of labels.
    labelled: False leaves labels unread, so that the column may be missing.
    kind: the task's kind if it was given. A label may be empty (none of the
      names) only where it is multi-label; and is never read as a list of
      names where it is classes.

  Returns:
    The table, with at least one row.

  Raises:
    UsageError: for anything that is wrong with the file.
  """
  path = os.fspath(path)
  if text_columns and len(text_columns) > 2:
    raise UsageError(
      "--text_column must name one or two columns, got "
      f"{','.join(text_columns)}."
    )
  header, rows = read_rows(path)
  columns = text_columns or _default_text_columns(path, header)
  _check_columns(path, header, columns, "--text_column NAME or NAME1,NAME2")
  if labelled:
    _check_columns(path, header, (label_column,), "--label_column NAME")
  texts, labels, lines = [], [], []
  for line, row in rows:
    where = f"{path}, line {line}"
    texts.append(tuple(text_in(where, c, row) for c in columns))
    if labelled:
      labels.append(_label(where, label_column, row, kind))
    lines.append(line)
  return Table(path, texts, labels if labelled else None, lines)


def read_rows(path: str) -> Rows:
  """The columns of a file in order, and (line, column -> value) of each row.

  Raises:
    UsageError: if it cannot be read, or has no rows.
  """
  read = _READERS.get(os.path.splitext(path)[1].lower())
  if read is None:
    raise UsageError(
      f"{path}: a data file's name must end in {', '.join(_READERS)}."
    )
  header, rows = read(path, _read_text(path))
  if not rows:
    raise UsageError(f"{path} has a header but no rows.")
  return header, rows


def parse_label(written: Any, kind: TaskKind | str | None = None) -> RawLabel:
  """One label as written in a file, or in a seqio Task, brought to one form.

  Args:
    written: text, a number, a truth value, or a list of these.
    kind: with classes, text that looks like a JSON list stays a name.

  Returns:
    A name (a number stays as it is written), or a tuple of names for a list.

  Raises:
    ValueError: saying what a label must be, without saying where.
  """
  if isinstance(written, str):
    written = written.strip()
    if written.startswith("[") and kind != TaskKind.CLASSES:
      with contextlib.suppress(ValueError):  # a name that has a bracket
        written = json.loads(written)
  if isinstance(written, list):
    if kind == TaskKind.CLASSES:
      raise ValueError("must be one name, not a list")
    names = tuple(parse_label(w, TaskKind.CLASSES) for w in written)
    if not all(isinstance(n, str) and n for n in names):
      raise ValueError("must be a list of names")
    return names
  if isinstance(written, bool | int | float):
    written = json.dumps(written)
  if not isinstance(written, str):
    raise ValueError("must be a name, a number or a list of names")
  if not math.isfinite(_float_or_zero(written)):
    raise ValueError("must not be a missing or infinite value; drop the row")
  return written


def _float_or_zero(text: str) -> float:
  try:
    return float(text)
  except ValueError:
    return 0.0


def _read_text(path: str) -> str:
  if os.path.isdir(path):
    raise UsageError(f"{path} must be a file, but it is a directory.")
  try:
    with open(path, "rb") as file:
      data = file.read()
  except FileNotFoundError:
    folder = os.path.dirname(path) or "."
    others = os.listdir(folder) if os.path.isdir(folder) else []
    near = suggest(os.path.basename(path), others)
    raise UsageError(f"{path} does not exist.{near}") from None
  except OSError as error:
    raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
  data = data.removeprefix(b"\xef\xbb\xbf")
  try:
    text = data.decode("utf-8")
  except UnicodeDecodeError as error:
    line = data.count(b"\n", 0, error.start) + 1
    column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
    raise UsageError(
      f"{path}, line {line}, byte {column}: must be UTF-8, got byte "
      f"0x{data[error.start]:02x}; convert the file, for example with "
      "iconv -f latin1 -t utf-8."
    ) from None
  if "\0" in text:
    line = text.count("\n", 0, text.index("\0")) + 1
    raise UsageError(
      f"{path}, line {line}: must be text, got a NUL character; remove it."
    )
  if not text.strip():
    raise UsageError(f"{path} is empty.")
  return text.rstrip("\r\n")


def _read_tsv(path: str, text: str) -> Rows:
  lines = [line.removesuffix("\r").split("\t") for line in text.split("\n")]
  return _with_header(path, list(enumerate(lines, start=1)), "tab")


def _read_csv(path: str, text: str) -> Rows:
  reader = csv.reader(io.StringIO(text, newline=""), strict=True)
  rows, line = [], 1
  try:
    for fields in reader:
      rows.append((line, fields))
      line = reader.line_num + 1
  except csv.Error as error:
    raise UsageError(
      f"{path}, line {line}: must be comma-separated values, but {error}."
    ) from None
  return _with_header(path, rows, "comma")


def _with_header(
  path: str, rows: list[tuple[int, list[str]]], separator: str
) -> Rows:
  """Rows of fields become rows by column; the first one names the columns."""
  header = [name.strip() for name in rows[0][1]]
  for name in header:
    if header.count(name) > 1:
      raise UsageError(
        f"{path}, line {rows[0][0]}: column names must differ, got "
        f"'{name}' twice."
      )
  for line, fields in rows[1:]:
    if len(fields) != len(header):
      raise UsageError(
        f"{path}, line {line}: must have {len(header)} {separator}-separated "
        f"fields ({listing(header)}), got {len(fields)}: "
        f"{_shown(fields[0] if fields else '')}."
      )
  return header, [(n, dict(zip(header, f, strict=True))) for n, f in rows[1:]]


def _read_jsonl(path: str, text: str) -> Rows:
  rows = []
  for line, record in enumerate(text.split("\n"), start=1):
    try:
      row = json.loads(record)
    except ValueError as error:
      raise UsageError(
        f"{path}, line {line}: must be a JSON object, but {error}: "
        f"{_shown(record)}."
      ) from None
    if not isinstance(row, dict):
      raise UsageError(
        f"{path}, line {line}: must be a JSON object, got {_shown(record)}."
      )
    rows.append((line, row))
  return list(rows[0][1]), rows


_READERS = {".tsv": _read_tsv, ".csv": _read_csv, ".jsonl": _read_jsonl}


def _default_text_columns(path: str, header: list[str]) -> tuple[str, ...]:
  for columns in (("sentence",), ("sentence1", "sentence2")):
    if all(c in header for c in columns):
      return columns
  raise UsageError(
    f"{path} must have a column 'sentence', or 'sentence1' and 'sentence2', "
    f"got {listing(header)}; name yours with --text_column NAME or "
    "NAME1,NAME2."
  )


def _check_columns(
  path: str, header: list[str], names: tuple[str, ...], flag: str
) -> None:
  for name in names:
    if name not in header:
      raise UsageError(
        f"{path} must have a column '{name}', got {listing(header)}; name "
        f"the right one with {flag}.{suggest(name, header)}"
      )


def text_in(where: str, column: str, row: dict[str, Any]) -> str:
  """The text in a column; an error of it begins with `where`."""
  text = row.get(column)
  if not isinstance(text, str):
    raise UsageError(
      f"{where}, column '{column}': must be text, got {_shown(text)}."
    )
  if not text.strip():
    raise UsageError(
      f"{where}, column '{column}': must not be empty; drop the row."
    )
  return text


def _label(
  where: str, column: str, row: dict[str, Any], kind: TaskKind | str | None
) -> RawLabel:
  try:
    label = parse_label(row.get(column), kind)
  except ValueError as error:
    raise UsageError(
      f"{where}, column '{column}': a label {error}; got "
      f"{_shown(row.get(column))}."
    ) from None
  if label == "" and kind == TaskKind.MULTI_LABEL:
    return ()
  if label == "":
    raise UsageError(
      f"{where}, column '{column}': a label must not be empty; drop the row, "
      "or give --task_kind multi_label if it has none of the labels."
    )
  return label


def _shown(value: Any, limit: int = 60) -> str:
  """A value for a message: as it is written, cut if it is long."""
  text = repr(value)
  return text if len(text) <= limit else f"{text[:limit]}..."
