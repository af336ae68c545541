r"""Lists all that a method may be made of, with papers and equations.

  augdistill methods
  augdistill methods --name augpro

A method is a base plus views and terms, such as
kd(temperature=2)+augpro_mix*2+hidden_mse(layers=uniform, on=all). Views take
weight=, reweight= and ROLE_weight= besides the parameters shown, terms take
weight= and on=.
"""

import argparse
from collections.abc import Callable, Mapping


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags of `augdistill methods`."""
  parser.add_argument(
    "--name", metavar="TEXT", default="", help="only names that hold this text"
  )


def run(args: argparse.Namespace) -> None:
  """Runs `augdistill methods`."""
  from augdistill.errors import UsageError

  listed = [
    (title, {n: line for n, line in lines.items() if args.name in n})
    for title, lines in _catalogue().items()
  ]
  if not any(lines for _, lines in listed):
    raise UsageError(f"no name holds {args.name!r}; see augdistill methods")
  for title, lines in listed:
    if lines:
      print(title)
    for _, (call, summary) in sorted(lines.items()):
      print(f"  {call}\n      {summary}")


def _catalogue() -> dict[str, Mapping[str, tuple[str, str]]]:
  """Title -> name -> how it is written, and what it is."""
  from augdistill.augment.methods import BASES, COMBINATIONS, RECIPES
  from augdistill.losses.named import REWEIGHTINGS, TERMS
  from augdistill.training.bases import BASE_FACTORIES
  from augdistill.training.policies import CHOICES

  def of(things):
    return {
      name: (name + _keys(thing.make), thing.summary)
      for name, thing in things.items()
    }

  return {
    "combinations": {
      name: (name, f"stands for {method}")
      for name, method in COMBINATIONS.items()
    },
    "bases": {
      name: (name + _keys(BASE_FACTORIES[name]), summary)
      for name, summary in BASES.items()
    },
    "views": of(RECIPES),
    "terms": of(TERMS),
    "reweightings, as in VIEW(reweight=mmel)": of(REWEIGHTINGS),
    "choices, as in kd+alternate(fmix, mixup)": {
      name: (f"{name}(view, view, ...)", choice.summary)
      for name, choice in CHOICES.items()
    },
  }


def _keys(factory: Callable) -> str:
  """A factory's parameters with their defaults, as the grammar writes them."""
  from augdistill.augment.grammar import FILLED_IN, keys_of, written

  keys = [
    key
    if parameter.default is parameter.empty
    else f"{key}={written(parameter.default)}"
    for key, parameter in keys_of(factory).items()
    if key not in (*FILLED_IN, "kind")
  ]
  return f"({', '.join(keys)})" if keys else ""
