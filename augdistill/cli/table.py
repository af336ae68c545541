"""Compares finished runs in a table.

  augdistill table runs/kd runs/augpro

Runs that differ in nothing but their seeds are one row: the mean, and behind it
the standard deviation. Other rows of a method say in what they differ.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags of `augdistill table`."""
  parser.add_argument("run", metavar="DIR", nargs="+", help="finished runs")


def run(args: argparse.Namespace) -> None:
  """Runs `augdistill table`."""
  from rich.console import Console

  from augdistill.reports.table import table

  Console().print(table(args.run))
