"""Tables: what is read, and what is refused with file, line and value."""

import csv
import io
import json

import hypothesis
import pytest
from hypothesis import strategies as st

from augdistill.data.files import parse_label, read_table
from augdistill.errors import UsageError


def _refused(path, *said, **options):
  """The file is refused in one line that says all of `said`."""
  with pytest.raises(UsageError) as caught:
    read_table(path, **options)
  message = str(caught.value)
  assert "\n" not in message
  for part in said:
    assert part in message, message


def test_a_tsv_of_single_texts_is_read_with_its_lines(write):
  path = write("a.tsv", 'sentence\tlabel\nit\'s "so"\tx\nb, c\ty z\n')
  table = read_table(path)
  assert table.texts == [('it\'s "so"',), ("b, c",)]
  assert table.labels == ["x", "y z"]
  assert table.lines == [2, 3]
  assert not table.pair
  assert table.where(1) == f"{path}, line 3"


def test_pairs_are_two_columns_in_any_order_beside_others(write):
  path = write("a.tsv", "label\tid\tsentence2\tsentence1\nx\t1\tb\ta\n")
  table = read_table(path)
  assert table.texts == [("a", "b")]
  assert table.pair


def test_columns_can_have_other_names(write):
  path = write("a.csv", "q,answer,gold\nwhy,so,x\n")
  table = read_table(path, text_columns=("answer", "q"), label_column="gold")
  assert table.texts == [("so", "why")]
  assert table.labels == ["x"]


def test_quoted_newlines_do_not_confuse_the_lines_of_a_csv(write):
  path = write("a.csv", 'sentence,label\n"one\ntwo, ""2""",x\nthree,\n')
  assert read_table(path, labelled=False).lines == [2, 4]
  assert read_table(path, labelled=False).texts[0] == ('one\ntwo, "2"',)
  _refused(path, f"{path}, line 4", "'label'")


def test_windows_line_ends_and_a_byte_order_mark_are_dropped(write):
  for name, tab in (("a.tsv", b"\t"), ("a.csv", b",")):
    text = b"\xef\xbb\xbfsentence\tlabel\r\na\tx\r\n".replace(b"\t", tab)
    table = read_table(write(name, text))
    assert (table.texts, table.labels) == ([("a",)], ["x"])
    text = b"label\tsentence\r\nx\ta\r\nx\tb\r\n".replace(b"\t", tab)
    assert read_table(write(name, text)).texts == [("a",), ("b",)]


def test_only_a_newline_ends_a_row(write):
  text = "a\u2028b\x85c\x0bd"
  table = read_table(write("a.tsv", f"sentence\tlabel\n{text}\tx\n"))
  assert table.texts == [(text,)]
  record = json.dumps({"sentence": text, "label": "x"}, ensure_ascii=False)
  assert read_table(write("a.jsonl", record)).texts == [(text,)]


def test_jsonl_labels_are_names_numbers_or_lists(write):
  rows = [
    {"sentence": "a", "label": label}
    for label in ("x", 3, 2.5, True, ["b", "a"], [])
  ]
  path = write("a.jsonl", "\n".join(map(json.dumps, rows)))
  expected = ["x", "3", "2.5", "true", ("b", "a"), ()]
  assert read_table(path).labels == expected


def test_a_json_list_in_a_tsv_is_a_list_unless_labels_are_classes(write):
  path = write("a.tsv", 'sentence\tlabel\na\t["x", "y"]\nb\t[z\n')
  assert read_table(path).labels == [("x", "y"), "[z"]
  assert read_table(path, kind="classes").labels == ['["x", "y"]', "[z"]


def test_unlabelled_tables_need_no_label_and_read_none(write):
  path = write("a.tsv", "sentence\na\nb\n")
  assert read_table(path, labelled=False).labels is None
  path = write("b.tsv", "sentence\tlabel\na\t\nb\tnan\n")
  assert read_table(path, labelled=False).labels is None


def test_the_fingerprint_is_of_the_content_alone(write):
  one = read_table(write("a.tsv", "sentence\tlabel\na\tx\n"))
  same = read_table(write("b.csv", "label,sentence\nx,a\n"))
  other = read_table(write("c.tsv", "sentence\tlabel\na\ty\n"))
  assert one.fingerprint == same.fingerprint != other.fingerprint


def test_a_missing_file_is_named_with_the_near_one(write):
  path = write("train.tsv", "sentence\tlabel\na\tx\n")
  missing = path.replace("train", "trian")
  _refused(missing, missing, "Did you mean 'train.tsv'?")
  _refused("/no/such/folder/a.tsv", "/no/such/folder/a.tsv")


def test_a_directory_or_an_unknown_extension_is_refused(tmp_path, write):
  folder = tmp_path / "a.tsv"
  folder.mkdir()
  _refused(str(folder), str(folder), "directory")
  _refused(write("a.xlsx", "x"), "a.xlsx", ".tsv, .csv, .jsonl")


def test_a_missing_column_is_named_with_those_that_there_are(write):
  path = write("a.tsv", "Sentence\tlabels\na\tx\n")
  _refused(path, path, "'sentence'", "Sentence, labels", "--text_column")
  text = {"text_columns": ("sentense",)}
  _refused(path, "'sentense'", "Did you mean 'Sentence'?", **text)
  text = {"text_columns": ("Sentence",)}
  _refused(path, "'label'", "--label_column", "Did you mean 'labels'?", **text)


def test_three_columns_of_text_are_refused_though_they_be_there(write):
  path = write("a.tsv", "a\tb\tc\nx\ty\tz\n")
  columns = ("a", "b", "c")
  said = "--text_column must name one or two columns, got a,b,c"
  _refused(path, said, text_columns=columns, labelled=False)


def test_two_columns_of_one_name_are_refused(write):
  _refused(write("a.tsv", "sentence\tlabel\tlabel\na\tx\ty\n"), "'label' twice")


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_refused(write, content):
  for name in ("a.tsv", "a.csv", "a.jsonl"):
    path = write(name, content)
    _refused(path, f"{path} is empty")


def test_a_header_alone_is_refused(write):
  _refused(write("a.tsv", "sentence\tlabel\n"), "no rows")
  _refused(write("a.csv", "sentence,label\n"), "no rows")


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text_is_refused(write, text):
  path = write("a.tsv", f"sentence1\tsentence2\tlabel\na\tb\tx\nc\t{text}\tx\n")
  _refused(path, f"{path}, line 3", "'sentence2'", "empty")
  row = json.dumps({"sentence": text, "label": "x"})
  path = write("a.jsonl", row)
  _refused(path, f"{path}, line 1", "'sentence'", "empty")


@pytest.mark.parametrize(
  ("row", "count"), [("only one", 1), ("a\tx\ty", 3), ("", 1)]
)
def test_too_few_or_too_many_fields_are_refused(write, row, count):
  path = write("a.tsv", f"sentence\tlabel\na\tx\n{row}\nb\tx\n")
  _refused(path, f"{path}, line 3", "2 tab-separated", f"got {count}")
  comma = row.replace("\t", ",")
  path = write("a.csv", f"sentence,label\na,x\n{comma}\nb,x\n")
  _refused(path, f"{path}, line 3", "2 comma-separated")


def test_a_quote_that_ends_never_or_too_early_is_refused(write):
  path = write("a.csv", 'sentence,label\na,x\n"b,x\nc,x\n')
  _refused(path, f"{path}, line 3", "unexpected end of data")
  path = write("a.csv", 'sentence,label\na,x\n"b"c,x\n')
  _refused(path, f"{path}, line 3", "expected after '\"'")


def test_a_byte_that_is_not_utf8_is_refused_with_its_place(write):
  path = write("a.tsv", b"sentence\tlabel\nok\tx\ncaf\xe9\tx\n")
  _refused(path, f"{path}, line 3, byte 4", "0xe9", "UTF-8")


def test_a_nul_character_is_refused(write):
  path = write("a.tsv", b"sentence\tlabel\nok\tx\na\0b\tx\n")
  _refused(path, f"{path}, line 3", "NUL")


@pytest.mark.parametrize("label", ["nan", "NaN", "-inf", "Infinity", "1e999"])
def test_a_label_that_is_no_finite_number_is_refused(write, label):
  path = write("a.tsv", f"sentence\tlabel\na\t1.5\nb\t{label}\n")
  _refused(path, f"{path}, line 3", "'label'", repr(label))
  path = write(
    "a.jsonl",
    f'{{"sentence": "a", "label": {label}}}'.replace("nan", "NaN").replace(
      "-inf", "-Infinity"
    ),
  )
  _refused(path, f"{path}, line 1", "'label'")


def test_an_empty_label_is_refused_unless_labels_are_sets(write):
  path = write("a.tsv", "sentence\tlabel\na\tx\nb\t \n")
  _refused(path, f"{path}, line 3", "'label'", "empty", "multi_label")
  assert read_table(path, kind="multi_label").labels == ["x", ()]


@pytest.mark.parametrize(
  ("line", "said"),
  [
    ('{"sentence": "a"', "JSON object"),
    ('["a", "x"]', "JSON object"),
    ("", "JSON object"),
    ('{"sentence": 3, "label": "x"}', "'sentence': must be text, got 3"),
    ('{"label": "x"}', "'sentence': must be text, got None"),
    ('{"sentence": "a"}', "'label': a label must be a name"),
    ('{"sentence": "a", "label": null}', "'label': a label must be a name"),
    ('{"sentence": "a", "label": [["x"]]}', "must be one name, not a list"),
    ('{"sentence": "a", "label": ["x", ""]}', "must be a list of names"),
    ('{"sentence": "a", "label": {"x": 1}}', "'label': a label must be a name"),
  ],
)
def test_a_bad_json_line_is_refused(write, line, said):
  good = '{"sentence": "a", "label": "x"}'
  path = write("a.jsonl", f"{good}\n{line}\n{good}\n")
  _refused(path, f"{path}, line 2", said)


def test_a_list_is_no_class():
  with pytest.raises(ValueError, match="one name"):
    parse_label(["x"], "classes")


_FIELD = st.text(
  st.characters(codec="utf-8", exclude_characters="\0"), min_size=1
).filter(str.strip)


@hypothesis.given(st.lists(st.tuples(_FIELD, _FIELD), min_size=1))
@hypothesis.settings(
  max_examples=50,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_whatever_csv_and_json_write_is_read_back(write, pairs):
  file = io.StringIO(newline="")
  writer = csv.writer(file)
  writer.writerows([("sentence1", "sentence2"), *pairs])
  table = read_table(write("a.csv", file.getvalue()), labelled=False)
  assert table.texts == pairs
  rows = (json.dumps({"sentence1": a, "sentence2": b}) for a, b in pairs)
  table = read_table(write("a.jsonl", "\n".join(rows)), labelled=False)
  assert table.texts == pairs
