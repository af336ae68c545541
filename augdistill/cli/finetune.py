"""Trains a model on labelled texts: a teacher, or a baseline.

  augdistill finetune --train train.tsv --test test.tsv --output_dir teacher

A file's columns are sentence (or sentence1 and sentence2) and label.
"""

import argparse

from augdistill.cli import flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags of `augdistill finetune`."""
  flags.add_data(parser)
  flags.add_rows(parser)
  parser.add_argument(
    "--method",
    metavar="M",
    help="ft, or with views that need no teacher, for example ft+token_mix "
    "(default: ft)",
  )
  flags.add_init(parser)
  flags.add_rewrites(parser)
  flags.add_training(parser, "mini", 2000, 1e-3)
  flags.add_gin(parser)


def run(args: argparse.Namespace) -> None:
  """Runs `augdistill finetune`."""
  from augdistill.cli import config, experiment, screens
  from augdistill.reports.run_directory import RunDirectory

  run_config, text = config.resolve("runs/finetune.gin", args)
  output = RunDirectory(args.output_dir, args.wandb)
  results = experiment.run_experiment(run_config, text, output, args.call)
  screens.show_results(args.output_dir, results)
