"""gin: files and bindings become values, and what is wrong becomes one line.

gin only evaluates factories here; nothing that it wrapped runs under jit.
"""

import collections.abc
import contextlib
import copy
import enum
import functools
import importlib.util  # gin finds packaged files only if this is imported
import inspect
import logging
import os
import pathlib
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gin

from augdistill.errors import UsageError, suggest

PACKAGE = "augdistill.configs"
_FACTORIES: dict[str, Callable] = {}


def configurable(factory: Callable, name: str | None = None) -> Callable:
  """Registers a factory, whose arguments are checked against its annotations.

  Args:
    factory: a function or a class with annotated parameters.
    name: what gin calls it; by default its own name.

  Returns:
    The function that gin calls.
  """
  name = name or factory.__name__
  maker = factory.__init__ if inspect.isclass(factory) else factory
  make = functools.partial(_make, factory, name, typing.get_type_hints(maker))
  make.__name__, make.__doc__ = name, factory.__doc__
  make.__signature__ = inspect.signature(factory)
  _FACTORIES[name] = factory
  return gin.external_configurable(make, name=name, module="augdistill")


def _make(
  factory: Callable, called: str, hints: dict[str, Any], /, **given: Any
) -> Any:
  """Calls a factory with values as its annotations ask."""
  return factory(
    **{k: _as_asked(f"{called}.{k}", hints[k], v) for k, v in given.items()}
  )


def _as_asked(name: str, hint: Any, value: Any) -> Any:
  options = (hint,)
  if typing.get_origin(hint) in (types.UnionType, typing.Union):
    options = typing.get_args(hint)
  fitting = next((option for option in options if fits(value, option)), None)
  if fitting is None:
    wanted = " or ".join(getattr(o, "__name__", str(o)) for o in options)
    raise UsageError(f"{name} must be {wanted}, got {value!r}")
  if fitting is float or isinstance(fitting, enum.EnumType):
    return fitting(value)
  return tuple(value) if isinstance(value, list) else value


def fits(value: Any, hint: Any) -> bool:
  """Whether a value from gin is what an annotation, no union, asks for."""
  kind = typing.get_origin(hint) or hint
  if kind is collections.abc.Callable:
    return callable(value)
  if kind is tuple:
    return isinstance(value, tuple | list)
  if kind in (int, float):
    return isinstance(value, int | kind) and not isinstance(value, bool)
  # An enumeration of texts is written as a text.
  return isinstance(value, str if issubclass(kind, str) else kind)


@contextlib.contextmanager
def parsed(
  files: Sequence[str], bindings: Sequence[str] = (), search: Sequence[str] = ()
) -> Iterator[None]:
  """gin with exactly these files and bindings; afterwards as it was before.

  So what is set for one model never reaches another one, also where a model's
  file is read while a run's is evaluated. Modules that a file imports are
  found beside it, too, and in the current directory.

  Args:
    files: gin files, by path, below `search`, or below the packaged configs.
    bindings: "NAME = VALUE"; later ones win, and over files.
    search: directories.

  Yields:
    None; meanwhile gin calls what `configurable` returned as it is bound.

  Raises:
    UsageError: for anything that gin does not accept, there or in the block.
  """
  before = [(state, copy.copy(state)) for state in _gins_state()]
  gin.clear_config()
  gin.config._LOCATION_PREFIXES[:] = ["", *search, _package()]
  known = set()
  try:
    with _quiet():
      for file in files:
        with _explained(""):
          _import_beside(file)
          gin.parse_config_file(file)
        known |= _read_macros()
      for binding in bindings:
        with _explained(f" in {binding!r}"):
          gin.parse_config(binding)
    _check_macros(known, bindings)
    with _explained(""):
      yield
  finally:
    gin.clear_config()
    for state, held in before:
      _put_back(state, held)


def _gins_state() -> tuple[Any, ...]:
  """What gin holds of what it has parsed and called."""
  gins = gin.config
  return (
    *(gins._CONFIG, gins._SINGLETONS, gins._IMPORTS, gins._OPERATIVE_CONFIG),
    gins._LOCATION_PREFIXES,
  )


def _put_back(state: Any, held: Any) -> None:
  state.clear()
  (state.extend if isinstance(state, list) else state.update)(held)


def packaged_files() -> list[str]:
  """The gin files that are installed, as `--gin_file` takes them.

  Those in t5x/ are for T5X's own binaries.
  """
  files = (
    path.relative_to(_package()).as_posix()
    for path in pathlib.Path(_package()).rglob("*.gin")
  )
  return sorted(name for name in files if not name.startswith("t5x/"))


def _package() -> str:
  return os.path.dirname(importlib.util.find_spec(PACKAGE).origin)


def _import_beside(file: str) -> None:
  """Imports what a file imports, if it lies beside it or where one is.

  An installed command, unlike `python -m`, looks in neither place; and they
  stay out of the path, where gin would take their folders for packages.
  """
  if not os.path.isfile(file):
    return
  with open(file, encoding="utf-8", errors="replace") as lines:
    names = re.findall(r"^import\s+([\w.]+)", lines.read(), re.MULTILINE)
  before = [*sys.path]
  sys.path += [os.path.dirname(os.path.abspath(file)), os.getcwd()]
  try:
    for name in names:
      with contextlib.suppress(ModuleNotFoundError):  # gin says so, with line
        importlib.import_module(name)
  finally:
    sys.path[:] = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """gin reports every path that it tries as an error."""
  before = logging.root.manager.disable
  logging.disable(logging.ERROR)
  try:
    yield
  finally:
    logging.disable(before)


def _check_macros(known: set[str], bindings: Sequence[str]) -> None:
  """gin takes any macro; one that nothing reads is a typo, or overridden."""
  text, read = gin.config_str(), _read_macros()
  written = set(re.findall(r"^(\w+) = ", text, re.MULTILINE))
  if unknown := sorted(written - read - known):
    names = sorted(read | known)
    raise UsageError(
      f"no macro is called {unknown[0]}; there are {', '.join(names)}."
      + suggest(unknown[0], names)
    )
  for binding in bindings:
    name = binding.partition("=")[0].strip()
    if name in written - read:
      raise UsageError(
        f"{binding!r} has no effect, since a gin file or a binding sets the "
        f"parameter that reads {name}; leave one of the two out"
      )


def _read_macros() -> set[str]:
  """The macros that some parameter reads as gin is now."""
  return set(re.findall(r"%(\w+)", gin.config_str()))


@contextlib.contextmanager
def _explained(where: str) -> Iterator[None]:
  """Turns gin's errors, of nearly every kind there is, into one line."""
  try:
    yield
  except Exception as error:
    if not _is_of_gin(error):
      raise
    raise UsageError(_message(error, where)) from error


def _is_of_gin(error: Exception) -> bool:
  """Whether gin or a factory that it called raised it, or a bug did."""
  traceback = error.__traceback__.tb_next
  while traceback is not None:
    if os.path.dirname(gin.__file__) in traceback.tb_frame.f_code.co_filename:
      return True
    traceback = traceback.tb_next
  return isinstance(error, UsageError)


def _message(error: Exception, where: str) -> str:
  text, _, called = str(error).partition("\n  In call to configurable ")
  if isinstance(error, UsageError):
    return text
  text = " ".join(text.split())
  if called.startswith("'macro'"):
    return f"gin: a macro is read that nothing sets: {called}"
  if "Failed to parse token" in text or "malformed node" in text:
    return (
      f"gin: a value must be Python's, texts in quotes{where}: {text}. Quote "
      "for the shell, too: --gin.MODEL=\"'micro'\""
    )
  hint = ""
  if name := re.search(r"Unable to open file: (\S+)\.", text):
    hint = suggest(name[1], packaged_files())
  elif name := re.search(r"No configurable matching '([^']+)'", text):
    hint = f"; there are {', '.join(_FACTORIES)}." + suggest(
      name[1].split("/")[-1], _FACTORIES
    )
  elif found := re.search(
    r"'(\S+)' doesn't have a parameter named '(\S+)'", text
  ):
    known = inspect.signature(_FACTORIES[found[1]]).parameters
    hint = f"; it has {', '.join(known)}." + suggest(found[2], known)
  elif called:
    hint = f" (in {called.split()[0]})"
  return f"gin: {text[:500]}{hint or where}"
