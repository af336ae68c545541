"""How a method is written, and what is said when it is written wrongly."""

import hypothesis
import hypothesis.strategies as st
import pytest

from augdistill.augment.grammar import Call, call_factory, parse, split_methods
from augdistill.augment.methods import RECIPES
from augdistill.errors import UsageError

PREFIX = "a method must read like 'kd(temperature=2)+augpro_mix*2': "


@pytest.mark.parametrize(
  ("text", "calls"),
  [
    ("kd", [Call("kd")]),
    ("kd()", [Call("kd")]),
    ("ft+mixup", [Call("ft"), Call("mixup")]),
    (
      "kd(temperature=2)+augpro_mix+augpro_fgsm(delta=3)*2",
      [
        Call("kd", kwargs={"temperature": 2}),
        Call("augpro_mix"),
        Call("augpro_fgsm", kwargs={"delta": 3}, copies=2),
      ],
    ),
    (
      "  kd ( temperature = 2 , label_weight=.5 )  + mixup * 3 ",
      [
        Call("kd", kwargs={"temperature": 2, "label_weight": 0.5}),
        Call("mixup", copies=3),
      ],
    ),
    (
      "kd+fgsm(delta=1e-3, direction=random, relative=False)",
      [
        Call("kd"),
        Call(
          "fgsm",
          kwargs={"delta": 1e-3, "direction": "random", "relative": False},
        ),
      ],
    ),
    (
      "kd+mixup(alpha=none, weight=ramp(0, -1.5, 100))",
      [
        Call("kd"),
        Call(
          "mixup",
          kwargs={"alpha": None, "weight": Call("ramp", (0, -1.5, 100))},
        ),
      ],
    ),
    (
      "a(b(c(1), d=2))",
      [Call("a", (Call("b", (Call("c", (1,)),), {"d": 2}),))],
    ),
    ("f(1e+2, 3, 4., TRUE)", [Call("f", (100.0, 3, 4.0, True))]),
  ],
)
def test_a_method_is_read(text, calls):
  read = parse(text)
  assert list(read) == calls
  for got, expected in zip(read, calls, strict=True):
    for key, value in expected.kwargs.items():
      assert type(got.kwargs[key]) is type(value)


NAMES = st.from_regex(r"[a-z_][a-z_0-9]{0,6}", fullmatch=True).filter(
  lambda name: name not in ("true", "false", "none")
)
VALUES = st.recursive(
  st.one_of(
    st.integers(-1000, 1000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    NAMES,
  ),
  lambda inner: st.builds(
    Call,
    NAMES,
    st.lists(inner, min_size=1, max_size=2).map(tuple),
    st.dictionaries(NAMES, inner, max_size=2),
  ),
  max_leaves=4,
)
TERMS = st.builds(
  Call,
  NAMES,
  st.lists(VALUES, max_size=2).map(tuple),
  st.dictionaries(NAMES, VALUES, max_size=3),
  st.integers(1, 9),
)


@hypothesis.given(terms=st.lists(TERMS, min_size=1, max_size=3))
@hypothesis.settings(max_examples=60, deadline=None)
def test_what_is_written_is_what_is_read(terms):
  text = "+".join(map(str, terms))
  assert list(parse(text)) == terms
  spaced = text
  for mark in "()+*=,":
    spaced = spaced.replace(mark, f" {mark} ")
  if "e +" not in spaced:  # The sign of an exponent is part of its number.
    assert list(parse(spaced)) == terms


@pytest.mark.parametrize(
  ("text", "what", "column"),
  [
    ("", "a name expected", 1),
    ("   ", "a name expected", 4),
    ("+kd", "a name expected", 1),
    ("kd+", "a name expected", 4),
    ("kd++mixup", "a name expected", 4),
    ("kd+2", "a name expected", 4),
    ("kd mixup", "'+' or the end expected", 4),
    ("kd)", "'+' or the end expected", 3),
    ("kd*2*2", "'+' or the end expected", 5),
    ("kd+mixup*", "a positive whole number of copies expected", 10),
    ("kd+mixup*0", "a positive whole number of copies expected", 10),
    ("kd+mixup*1.5", "a positive whole number of copies expected", 10),
    ("kd+mixup*-1", "a positive whole number of copies expected", 10),
    ("kd+mixup*two", "a positive whole number of copies expected", 10),
    ("kd(", "a value expected", 4),
    ("kd(,)", "a value expected", 4),
    ("kd(temperature=2", "',' or ')' expected", 17),
    ("kd(temperature=2 3)", "',' or ')' expected", 18),
    ("kd(temperature=2,)", "a key expected", 18),
    ("kd(temperature=)", "a value expected", 16),
    ("kd(temperature=+2)", "a value expected", 16),
    ("kd(2=3)", "a key expected", 4),
    ("kd(t=1, t=2)", "'t' is there already, another key expected", 9),
    ("kd(t=1, 2)", "a key expected", 9),
    ("kd(t=1e999)", "a finite number expected", 6),
    ("kd + m?xup", "an unexpected character", 7),
    ("kd(t=2)  -mixup", "an unexpected character", 10),
    ("kd+möp", "an unexpected character", 5),
  ],
)
def test_an_error_names_the_column(text, what, column):
  with pytest.raises(UsageError) as error:
    parse(text)
  assert str(error.value) == f"{PREFIX}{what} at column {column} of {text!r}"


@pytest.mark.parametrize(
  ("text", "methods"),
  [
    ("kd", ["kd"]),
    ("ft, kd ,kd+mixup", ["ft", "kd", "kd+mixup"]),
    ("kd(a=1,b=f(2,3)),ft", ["kd(a=1,b=f(2,3))", "ft"]),
    ("kd,", ["kd", ""]),
  ],
)
def test_a_list_of_methods_splits_at_commas_outside_parentheses(text, methods):
  assert split_methods(text) == methods


def test_a_whole_number_serves_where_a_number_is_asked_for():
  seen = {}

  def factory(a: float = 0.0, b: float | None = None, c: int = 0):
    seen.update(a=a, b=b, c=c)

  (call,) = parse("f(a=1, b=2, c=3)")
  call_factory(call, factory, "view")
  assert seen == {"a": 1, "b": 2, "c": 3}
  assert [type(value) for value in seen.values()] == [float, float, int]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (
      "fgsm(detla=3)",
      "view 'fgsm' has no parameter 'detla'; it has delta, direction, "
      "relative, weight. Did you mean 'delta'?",
    ),
    (
      "mixup(zzz=3)",
      "view 'mixup' has no parameter 'zzz'; it has lam, alpha, weight.",
    ),
    ("mixup(0.3)", "view 'mixup' takes key=value arguments, got 0.3"),
    ("mixup(none)", "view 'mixup' takes key=value arguments, got none"),
    (
      "mixup(f(1, a=b))",
      "view 'mixup' takes key=value arguments, got f(1, a=b)",
    ),
    ("mixup(lam=2)", "view 'mixup': lambda must be in [0, 1], got 2.0"),
    ("mixup(lam=half)", "view 'mixup': lam must be a number, got 'half'"),
    ("mixup(lam=nan)", "view 'mixup': lam must be a number, got 'nan'"),
    ("mixup(lam=true)", "view 'mixup': lam must be a number, got 'true'"),
    (
      "mixup(alpha=beta(1))",
      "view 'mixup': alpha must be a number or none, got 'beta(1)'",
    ),
    (
      "fgsm(relative=1)",
      "view 'fgsm': relative must be true or false, got '1'",
    ),
    ("fgsm(direction=2)", "view 'fgsm': direction must be a word, got '2'"),
    (
      "fgsm(direction=up)",
      "view 'fgsm': direction must be one of ascent, descent, random, got 'up'",
    ),
    (
      "augpro_fgsm(delta=-1)",
      "view 'augpro_fgsm': delta must be a number >= 0, got -1.0",
    ),
    (
      "augpro_mix(alpha=0)",
      "view 'augpro_mix': alpha must be positive and finite, got 0.0",
    ),
    (
      "token_mix(lam=-1)",
      "view 'token_mix': lambda must be in [0, 1], got -1.0",
    ),
  ],
)
def test_an_argument_that_does_not_fit_is_named(text, message):
  (call,) = parse(text)
  with pytest.raises(UsageError) as error:
    call_factory(call, RECIPES[call.name].make, "view", reserved=("weight",))
  assert str(error.value) == message


def test_a_factory_without_parameters_says_so():
  with pytest.raises(UsageError, match=r"has no parameter 'a'; it has none\."):
    call_factory(parse("f(a=1)")[0], lambda: None, "view")
  with pytest.raises(UsageError, match=r"view 'f' needs a=..."):
    call_factory(parse("f")[0], lambda a: None, "view")
