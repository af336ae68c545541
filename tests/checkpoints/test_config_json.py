"""Fields of config.json are of the kinds that they must be of, or told."""

import pytest

from augdistill.checkpoints.config_json import field, read_json
from augdistill.errors import UsageError


def test_the_first_name_that_is_there_counts():
  config = {"n_heads": 3, "heads": None}
  assert field(config, "DIR", int, 1, "heads", "n_heads") == 3
  assert field(config, "DIR", int, 1, "heads") == 1
  assert repr(field({"eps": 1}, "DIR", float, 0.5, "eps")) == "1.0"


@pytest.mark.parametrize(
  "kind, value, wanted",
  [
    (int, "3", "a whole number, got '3'"),
    (int, 1.5, "a whole number, got 1.5"),
    (int, True, "a whole number, got True"),
    (float, 10**400, r"a number, got 10+\.\.\.0+$"),
    (float, [], r"a number, got \[\]"),
    (str, 3, "a text, got 3"),
    (dict, ["a"], r"an object, got \['a'\]"),
    (int, "9" * 10_000, r"got '9+\.\.\.9+'$"),
  ],
)
def test_a_field_of_another_kind_is_told(kind, value, wanted):
  said = f"DIR must have a config.json whose x is .*{wanted}"
  with pytest.raises(UsageError, match=said):
    field({"x": value}, "DIR", kind, None, "x")


@pytest.mark.parametrize(
  "content", [b"", b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"3", b"null"]
)
def test_what_is_no_object_is_told(tmp_path, content):
  file = tmp_path / "config.json"
  file.write_bytes(content)
  with pytest.raises(UsageError, match=r"config\.json must be a JSON, but: "):
    read_json(str(file), "a JSON")
