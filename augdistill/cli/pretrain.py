r"""Trains a masked language model on texts, from scratch.

  augdistill pretrain --train train.tsv --unlabeled more.tsv \
      --output_dir pretrained

It learns to say which tokens of a text were hidden; labels are not learnt.
The result rewrites texts (augdistill rewrite) and is where finetune and
distill can begin (--init).
"""

import argparse

from augdistill.cli import flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags of `augdistill pretrain`."""
  flags.add_data(parser)
  parser.add_argument(
    "--unlabeled", metavar="FILE", help="texts without labels, more or alone"
  )
  flags.add_training(parser, "mini", 2000, 1e-3)
  flags.add_gin(parser)


def run(args: argparse.Namespace) -> None:
  """Runs `augdistill pretrain`."""
  import functools

  from augdistill.cli import experiment, pretraining, screens
  from augdistill.reports.run_directory import RunDirectory

  config, text = pretraining.resolve(args)
  results = experiment.run_job(
    functools.partial(pretraining.prepare, config),
    text,
    RunDirectory(args.output_dir, args.wandb),
    args.call,
  )
  screens.show_results(
    args.output_dir,
    results,
    "rewrite --generator {run} --data FILE --output rewrites.jsonl",
  )
