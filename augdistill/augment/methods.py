"""The grammar of methods, and the recipes that its names stand for.

    method = term ("+" term)*
    term   = name ["(" [key "=" value ("," key "=" value)*] ")"] ["*" copies]
    value  = number | true | false | none | word | name "(" value, ... ")"

The first term is the base, `ft` (labels alone) or `kd` (labels and teacher);
the others are views: `kd(temperature=2)+augpro_mix+augpro_fgsm(delta=3)*2`.
A recipe says how its view is made and with which terms it enters the loss,
by role: "label" for the comparison with the label, "teacher" for that with
the teacher.

References:
  Wang et al. 2023, AugPro, arXiv:2210.11768: equations 4, 6 and 7, L_MixUp
  and L_FGSM of section 4.2, and table 5 (fine-tuning keeps labels).
"""

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from augdistill.augment.adversarial import perturb_by_sign
from augdistill.augment.mixing import mix_embeddings
from augdistill.augment.projection import project_to_tokens
from augdistill.augment.token_mixing import mix_tokens
from augdistill.errors import UsageError, suggest
from augdistill.types import ViewMaker


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What a name in a method stands for.

  Attributes:
    make: factory of the view's maker; its parameters are the term's keys.
    with_teacher: roles of its terms under `kd`: of "label", "teacher".
    summary: one line: what it does, paper and equation.
  """

  make: Callable[..., ViewMaker]
  with_teacher: tuple[str, ...]
  summary: str


def augpro_mix(lam: float = 0.5, alpha: float | None = None) -> ViewMaker:
  """AugPro-Mix: `mix_embeddings`, projected. Arguments as there."""
  return project_to_tokens(mix_embeddings(lam, alpha))


def augpro_fgsm(
  delta: float = 3.0, direction: str = "ascent", relative: bool = True
) -> ViewMaker:
  """AugPro-FGSM: `perturb_by_sign`, projected. Arguments as there."""
  return project_to_tokens(perturb_by_sign(delta, direction, relative))


RECIPES: dict[str, Recipe] = {
  "mixup": Recipe(
    mix_embeddings,
    ("label", "teacher"),
    "MixUp of word embeddings and labels (AugPro, eq. 1 and L_MixUp)",
  ),
  "fgsm": Recipe(
    perturb_by_sign,
    ("teacher",),
    "one signed gradient step on embeddings (AugPro, eq. 2 and L_FGSM)",
  ),
  "augpro_mix": Recipe(
    augpro_mix,
    ("teacher",),
    "MixUp projected to the nearest tokens (AugPro, eq. 5 and 6)",
  ),
  "augpro_fgsm": Recipe(
    augpro_fgsm,
    ("teacher",),
    "FGSM projected to the nearest tokens (AugPro, eq. 5 and 7)",
  ),
  "token_mix": Recipe(
    mix_tokens,
    ("teacher",),
    "a random parent per position: the control of augpro_mix",
  ),
}
BASES = {
  "ft": "fine-tuning: labels alone",
  "kd": "distillation: labels and the teacher (AugPro, eq. 4)",
}


@dataclasses.dataclass(frozen=True)
class Call:
  """A name with arguments, as written: `name(key=value, ...)` or positional."""

  name: str
  args: tuple[Any, ...] = ()
  kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  copies: int = 1


_TOKEN = re.compile(
  r"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
  r"|(?P<word>[A-Za-z_][A-Za-z_0-9.]*)|(?P<mark>[-()+*=,]))"
)


def split_methods(text: str) -> list[str]:
  """Splits a list of methods at commas outside parentheses."""
  parts, depth, start = [], 0, 0
  for i, character in enumerate(text):
    depth += (character == "(") - (character == ")")
    if character == "," and depth == 0:
      parts.append(text[start:i])
      start = i + 1
  return [part.strip() for part in [*parts, text[start:]]]


def parse(text: str) -> tuple[Call, ...]:
  """Reads a method.

  Args:
    text: as the module's grammar says.

  Returns:
    Its terms in order.

  Raises:
    UsageError: where the text leaves the grammar, with the column.
  """
  return _Reader(text).method()


class _Reader:
  """Recursive descent over the tokens of one method."""

  def __init__(self, text: str):
    self.text, self.tokens, self.at = text, [], 0
    position = 0
    while text[position:].strip():
      match = _TOKEN.match(text, position)
      # "+2" is a number only where a value is expected; else "+" is a mark.
      if match and match["number"] and match["number"][0] == "+":
        match = re.compile(r"\s*(?P<number>(?!))?(?P<word>(?!))?(?P<mark>\+)").match(
          text, position
        )
      if not match:
        self.fail("an unexpected character", position)
      self.tokens.append((match.lastgroup, match[match.lastgroup], match.start()))
      position = match.end()

  def fail(self, what: str, column: int | None = None):
    if column is None:
      column = (
        self.tokens[self.at][2] if self.at < len(self.tokens) else len(self.text)
      )
    raise UsageError(
      f"a method must read like 'kd(temperature=2)+augpro_mix*2': {what} at "
      f"column {column + 1} of {self.text!r}"
    )

  def peek(self, value: str) -> bool:
    return self.at < len(self.tokens) and self.tokens[self.at][1] == value

  def take(self, kind: str, what: str) -> str:
    if self.at >= len(self.tokens) or self.tokens[self.at][0] != kind:
      self.fail(f"{what} expected")
    self.at += 1
    return self.tokens[self.at - 1][1]

  def skip(self, value: str) -> bool:
    found = self.peek(value)
    self.at += found
    return found

  def method(self) -> tuple[Call, ...]:
    terms = [self.term()]
    while self.skip("+"):
      terms.append(self.term())
    if self.at < len(self.tokens):
      self.fail("'+' or the end expected")
    return tuple(terms)

  def term(self) -> Call:
    call = self.call(self.take("word", "a name"))
    if not self.skip("*"):
      return call
    copies = self.take("number", "the number of copies")
    if not copies.isdigit() or int(copies) < 1:
      self.at -= 1
      self.fail("a positive whole number of copies expected")
    return dataclasses.replace(call, copies=int(copies))

  def call(self, name: str) -> Call:
    args, kwargs = [], {}
    if self.skip("("):
      while not self.skip(")"):
        if args or kwargs:
          if not self.skip(","):
            self.fail("',' or ')' expected")
        key_follows = (
          self.at + 1 < len(self.tokens) and self.tokens[self.at + 1][1] == "="
        )
        if key_follows:
          key = self.take("word", "a key")
          if key in kwargs:
            self.at -= 1
            self.fail(f"{key} given twice")
          self.skip("=")
          kwargs[key] = self.value()
        else:
          args.append(self.value())
    return Call(name, tuple(args), kwargs)

  def value(self) -> Any:
    if self.at < len(self.tokens) and self.tokens[self.at][0] == "number":
      text = self.take("number", "a number")
      return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
    word = self.take("word", "a value")
    if self.peek("("):
      return self.call(word)
    return {"true": True, "false": False, "none": None}.get(word.lower(), word)


def call_factory(
  call: Call, factory: Callable, what: str, reserved: tuple[str, ...] = ()
) -> Any:
  """Calls a factory with a term's arguments; errors name the term.

  Args:
    call: the term.
    factory: what its name stands for.
    what: how errors call it, e.g. "view".
    reserved: keys that are not the factory's.

  Returns:
    What the factory returns.

  Raises:
    UsageError: for an argument that it does not have or does not accept.
  """
  known = tuple(inspect.signature(factory).parameters)
  kwargs = {k: v for k, v in call.kwargs.items() if k not in reserved}
  for key in kwargs:
    if key not in known:
      raise UsageError(
        f"{what} {call.name!r} has no parameter {key!r}; it has "
        f"{', '.join(known + reserved) or 'none'}."
        + suggest(key, known + reserved)
      )
  if call.args:
    raise UsageError(
      f"{what} {call.name!r} takes key=value arguments, got {call.args[0]!r}"
    )
  try:
    return factory(**kwargs)
  except (TypeError, ValueError) as error:
    raise UsageError(f"{what} {call.name!r}: {error}") from error
