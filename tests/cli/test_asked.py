"""What a body asks, or what is wrong with it."""

import json

import pytest

from augdistill.cli.asked import Limits, Refused, texts_in

LIMITS = Limits(texts=3, characters=10)
DEEP = '{"texts": ' + "[" * 100_000
WRONG = {
  "nothing": ("", None, 400, "must be JSON in UTF-8"),
  "half of an object": ('{"texts": ["a"', None, 400, "must be JSON in UTF-8"),
  "other bytes": (b'{"texts": ["\xff"]}', None, 400, "must be JSON in UTF-8"),
  "too deep": (DEEP, None, 400, "must be JSON in UTF-8"),
  "a list": (["a"], None, 422, 'an object {"texts": [...]}, got a list'),
  "another key": ({"text": ["a"]}, None, 422, "Did you mean 'texts'?"),
  "one key more": ({"texts": [], "top": 1}, None, 422, "got the key 'top'"),
  "no key": ({}, None, 422, "got no texts"),
  "a text": ({"texts": "a"}, None, 422, "with a list, got a text"),
  "null": ({"texts": None}, None, 422, "got null"),
  "a number": ({"texts": ["a", 1]}, False, 422, "texts[1] must be one text"),
  "a bool": ({"texts": [True]}, None, 422, "pair of texts, got a bool"),
  "a pair": ({"texts": [["a", "b"]]}, False, 422, "texts[0] must be one text"),
  "no pair": ({"texts": [["a", "b"], "c"]}, True, 422, "texts[1] must be a p"),
  "three": ({"texts": [["a"] * 3]}, True, 422, "texts[0] must be a pair of"),
  "half": ({"texts": [["a", 1]]}, True, 422, "texts[0][1] must be a text"),
  "empty": ({"texts": ["a", " \n"]}, False, 422, "texts[1] must not be empty"),
  "surrogate": ({"texts": ["a\ud800"]}, False, 422, "lone surrogate at charac"),
  "many": ({"texts": ["a"] * 4}, False, 413, "at most 3 texts, got 4"),
  "long": ({"texts": ["a" * 11]}, False, 413, "texts[0] must have at most 10"),
}


def ask(body, pair=False):
  if not isinstance(body, str | bytes):
    body = json.dumps(body)
  body = body.encode() if isinstance(body, str) else body
  return texts_in(body, pair, LIMITS)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_sentence_with_its_place(name):
  body, pair, status, says = WRONG[name]
  with pytest.raises(Refused) as refused:
    ask(body, pair)
  assert refused.value.status == status
  assert says in str(refused.value)
  assert "\n" not in str(refused.value)


def test_texts_and_pairs_are_read_as_they_are():
  assert ask({"texts": []}) == []
  assert ask({"texts": ["a\tb", " ü"]}) == [("a\tb",), (" ü",)]
  assert ask({"texts": [["a", "b"]]}, pair=True) == [("a", "b")]
  both = ask({"texts": ["a", ["b", "c"]]}, pair=None)
  assert both == [("a",), ("b", "c")]
  assert ask({"texts": ["x" * 10] * 3}) == [("x" * 10,)] * 3
