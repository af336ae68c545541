"""Makes the page of a run: scores, curves, confusions and worst errors.

  augdistill report --run student

writes student/report.html, which opens offline.
"""

import argparse


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
  from augdistill.reports.run_directory import RunDirectory
  from augdistill.reports.run_page import run_page

  page = run_page(args.run)
  if args.output is None:
    print(RunDirectory(args.run).write_page(page))
    return
  with atomic.replacing(args.output) as file:
    file.write(page)
  print(args.output)
