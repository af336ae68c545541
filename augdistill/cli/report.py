"""Makes the page of a run: scores, curves, confusions and worst errors.

  augdistill report --run student

writes student/report.html, which opens offline.
"""

import argparse
import pathlib


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags of `augdistill report`."""
  parser.add_argument(
    "--run", metavar="DIR", required=True, help="a finished run"
  )
  parser.add_argument(
    "--output", metavar="FILE", help="default: report.html in the run"
  )


def run(args: argparse.Namespace) -> None:
  """Runs `augdistill report`."""
  from augdistill import atomic
  from augdistill.reports.run_page import run_page

  output = pathlib.Path(args.output or pathlib.Path(args.run, "report.html"))
  page = run_page(args.run)
  with atomic.replacing(output) as file:
    file.write(page)
  print(output)
