r"""Looks for mistakes before a run: teacher, data, vocabulary, memory, time.

  augdistill doctor --train train.tsv --test test.tsv --teacher teacher \
      --method kd+augpro_mix --output_dir student

The flags are those of `augdistill distill`; nothing is trained or written. Each
line is green, yellow (doubtful) or red (a mistake), and says what to do. Exit
code 2 where one is red.
"""

import argparse
import contextlib
import dataclasses
import json
import sys

from augdistill.cli import distill


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags of `augdistill doctor`."""
  distill.add_arguments(parser)
  parser.add_argument(
    "--json", action="store_true", help="print the findings as JSON"
  )


def run(args: argparse.Namespace) -> int:
  """Runs `augdistill doctor`."""
  from augdistill.cli import screens
  from augdistill.reports import diagnosis

  # What a run says on its way, of its --init for one, is no finding.
  with contextlib.redirect_stdout(sys.stderr):
    findings = examine(args)
  if args.json:
    print(json.dumps(diagnosis.as_json(findings), indent=2, ensure_ascii=False))
  else:
    screens.show_findings(findings)
  return 2 if diagnosis.worst(findings) == diagnosis.Level.RED else 0


def examine(args: argparse.Namespace) -> list:
  """All findings about the run that the flags stand for."""
  from augdistill.checkpoints.folder import is_in_bucket
  from augdistill.cli import checkup, parts
  from augdistill.errors import AugdistillError
  from augdistill.reports.diagnosis import Finding, Level
  from augdistill.reports.run_directory import RunDirectory

  try:
    config, _ = distill.configure(args)
    untrained = distill.makes_teacher(args) and (
      RunDirectory(args.teacher).results() is None
    )
    if untrained:
      distill.check_teacher_to_be(args, config)
      read = parts.as_read_by(None, config.data, args.teacher_init)
      config = dataclasses.replace(config, data=read, method="ft", teacher=None)
    experiment = parts.prepare(config)
  except AugdistillError as error:
    return [Finding(Level.RED, "setup", str(error))]
  fits = "; ".join(["data, models and method fit", *experiment.data.notes])
  findings = [Finding(Level.GREEN, "setup", fits)]
  if untrained:
    findings.append(
      Finding(
        Level.YELLOW,
        "teacher",
        f"{args.teacher} is still to be trained, so it cannot be judged",
        "fine-tune it, and look again before it teaches",
      )
    )
  elif found := checkup.judge_teacher(experiment):
    findings.append(found)
  findings += checkup.judge_data(experiment)
  if not untrained:
    findings += checkup.judge_step(experiment)
  if not is_in_bucket(args.output_dir):
    findings.append(checkup.judge_disk(experiment, args.output_dir))
  return findings
