"""What a request of the server asks: the texts in a body, or what is wrong."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from augdistill.errors import suggest

_SHAPE = 'the body must be an object {"texts": [...]}'


class Refused(Exception):
  """A request that cannot be answered.

  Attributes:
    status: HTTP's number for it.
    headers: what else the answer says.
  """

  def __init__(
    self, status: int, says: str, headers: Mapping[str, str] | None = None
  ):
    super().__init__(says)
    self.status, self.headers = status, headers


@dataclasses.dataclass(frozen=True)
class Limits:
  """How much one request may ask.

  Attributes:
    body_bytes: bytes of a body.
    texts: texts, or pairs, of a request.
    characters: of a text. Not the model's limit, behind which a text is cut as
      `augdistill predict` cuts it: a text that is longer than this is a
      mistake, and would keep others waiting while it is made into tokens.
  """

  body_bytes: int = 4 * 2**20
  texts: int = 512
  characters: int = 100_000


def texts_in(
  body: bytes, pair: bool | None, limits: Limits
) -> list[tuple[str, ...]]:
  """The texts that a body asks about.

  Args:
    body: `{"texts": ["...", ...]}` or `{"texts": [["...", "..."], ...]}`.
    pair: whether the model reads pairs; None: either.
    limits: how many texts, and how long.

  Returns:
    Per row one text, or two of a pair.

  Raises:
    Refused: 400 for what is no JSON, 413 for too much, 422 for all else that
      is wrong, with the place of the first text that is.
  """
  try:
    asked = json.loads(body.decode("utf-8"))
  except (ValueError, RecursionError) as error:
    raise Refused(400, f"the body must be JSON in UTF-8: {error}") from None
  texts = _texts(asked)
  if len(texts) > limits.texts:
    raise Refused(
      413, f"a request must have at most {limits.texts} texts, got {len(texts)}"
    )
  return [_row(f"texts[{i}]", t, pair, limits) for i, t in enumerate(texts)]


def _texts(asked: Any) -> Sequence[Any]:
  if not isinstance(asked, dict):
    raise Refused(422, f"{_SHAPE}, got {_kind(asked)}")
  for name in asked:
    if name != "texts":
      raise Refused(
        422, f"{_SHAPE}, got the key {name[:40]!r}." + suggest(name, ["texts"])
      )
  if not isinstance(asked.get("texts"), list):
    got = _kind(asked["texts"]) if asked else "no texts"
    raise Refused(422, f"{_SHAPE} with a list, got {got}")
  return asked["texts"]


def _row(
  where: str, given: Any, pair: bool | None, limits: Limits
) -> tuple[str, ...]:
  if isinstance(given, str) and not pair:
    return (_text(where, given, limits),)
  if isinstance(given, list) and pair is not False:
    if len(given) == 2:
      return tuple(
        _text(f"{where}[{i}]", text, limits) for i, text in enumerate(given)
      )
    raise Refused(
      422, f"{where} must be a pair of texts, got a list of {len(given)}"
    )
  wanted = {
    False: "one text, as the model was trained on",
    True: "a pair of texts, as the model was trained on",
    None: "a text or a pair of texts",
  }
  raise Refused(422, f"{where} must be {wanted[pair]}, got {_kind(given)}")


def _text(where: str, given: Any, limits: Limits) -> str:
  if not isinstance(given, str):
    raise Refused(422, f"{where} must be a text, got {_kind(given)}")
  if len(given) > limits.characters:
    raise Refused(
      413,
      f"{where} must have at most {limits.characters:,} characters, got "
      f"{len(given):,}",
    )
  if not given.strip():
    raise Refused(422, f"{where} must not be empty")
  try:
    given.encode("utf-8")
  except UnicodeEncodeError as error:  # JSON can write half of a character.
    raise Refused(
      422,
      f"{where} must be Unicode, got a lone surrogate at character "
      f"{error.start}",
    ) from None
  return given


def _kind(value: Any) -> str:
  names = {dict: "an object", list: "a list", str: "a text", bool: "a bool"}
  return names.get(type(value), "null" if value is None else "a number")
