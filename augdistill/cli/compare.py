r"""Compares methods: a student per method, seed and number of training rows.

  augdistill compare --methods ft,kd,kd+mixup,kd+augpro_mix --seeds 0,1,2 \
      --train train.tsv --test test.tsv --teacher_model mini --output_dir grid

The other flags are those of `augdistill distill`. The teacher is trained once.
Each run is a process and a run directory of its own: one that fails is reported
in its place, and the same command goes on where it was stopped, or where
methods, seeds or sizes were added. OUTPUT_DIR gets report.html, report.md and
results.jsonl. A method is called better only where the interval of its
difference to kd, over test rows and seeds, says so.
"""

import argparse
import os
import pathlib

from augdistill.cli import distill
from augdistill.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags of `augdistill compare`."""
  distill.add_arguments(parser)
  parser.conflict_handler = "resolve"  # Some flags of one run become lists.
  group = parser.add_argument_group("grid")
  group.add_argument(
    "--methods",
    required=True,
    metavar="M[,M]",
    help="methods apart by commas, for example ft,kd,kd+augpro_mix",
  )
  group.add_argument(
    "--seeds",
    default="0,1,2",
    metavar="N[,N]",
    help="default: 0,1,2; one seed gives no verdict",
  )
  group.add_argument(
    "--train_examples",
    dest="sizes",
    default="all",
    metavar="N[,N]",
    help="numbers of training rows, or all (default: all)",
  )
  group.add_argument(
    "--match",
    choices=("steps", "seconds"),
    default="steps",
    help="whether all methods take --num_steps, or the seconds that the "
    "costliest of them takes for these (default: steps)",
  )
  for flag in ("--method", "--seed"):
    group.add_argument(flag, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
  """Runs `augdistill compare`."""
  from augdistill.cli import comparing, grid

  for flag in ("method", "seed"):
    if getattr(args, flag) is not None:
      raise UsageError(f"--{flag} is of one run: give --{flag}s")
  if distill.makes_teacher(args):
    if args.teacher:
      raise UsageError(
        "give --teacher DIR, or --teacher_model NAME or --teacher_init DIR, "
        "not both"
      )
    args.teacher = os.path.join(args.output_dir, "teacher")
  with grid.locked(args.output_dir):
    return comparing.run_grid(
      args,
      comparing.read_methods(args.methods),
      comparing.read_sizes(args.sizes),
      comparing.read_seeds(args.seeds),
      pathlib.Path(args.output_dir),
    )
