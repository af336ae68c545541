"""Writes a trained run for other programs, and checks what was written.

  augdistill export --run student --format hf --output student_hf
  augdistill export --run student --format stablehlo --output program
  augdistill export --run student --format t5x --output student_t5x
  augdistill export --run student --format hf --weights int8 --output small
  augdistill export --run of_t5x --data test.tsv --format hf --output small

hf: the files of a T5 of Hugging Face, and a loader in NumPy. stablehlo: a
program for CPUs, GPUs and TPUs that needs jax alone. t5x: a checkpoint that T5X
restores, for augdistill.t5x_plugin. Each comes with its vocabulary, and with a
README.md that says how to use it. Before the command says that it is done, it
reads what it wrote and compares it with the run on the run's own rows.
"""

import argparse

FORMATS = ("hf", "stablehlo", "t5x")
WEIGHTS = ("float32", "int8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags of `augdistill export`."""
  parser.add_argument(
    "--run",
    metavar="DIR",
    required=True,
    help="a run of finetune or distill; of one that has not finished, the best "
    "checkpoint so far; or a run of T5X, of which the newest",
  )
  parser.add_argument("--format", choices=FORMATS, required=True)
  parser.add_argument(
    "--output", metavar="DIR", required=True, help="a new or empty directory"
  )
  parser.add_argument(
    "--weights",
    choices=WEIGHTS,
    default="float32",
    help="int8: matrices in 8 bits, with a scale per channel (default: "
    "float32)",
  )
  parser.add_argument(
    "--data",
    metavar="FILE",
    help="labelled rows to compare with, instead of the run's own; a run of "
    "T5X needs them",
  )
  parser.add_argument(
    "--force",
    action="store_true",
    help="make an export anew: replace the one in --output",
  )


def run(args: argparse.Namespace) -> None:
  """Runs `augdistill export`."""
  from augdistill.cli import screens
  from augdistill.cli.exporting import export_run

  report = export_run(
    args.run, args.format, args.output, args.weights, args.force, args.data
  )
  screens.show_export(args.output, report)
