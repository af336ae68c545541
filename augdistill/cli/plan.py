r"""Tells what a run of distill will take, before anything is paid for.

  augdistill plan --gin_file papers/augpro/table1_augpro_mix.gin \
      --teacher_model large --kind v3 --devices 8 --price_per_hour 8

Parameters, operations by part, memory, time and price of a run. It traces the
step at its full size, on arrays that nobody has: no data, no teacher and no
accelerator are needed. Vocabulary and outputs are those of the data where they
are given, else of the teacher's directory, else as the flags say.

Operations are counted; seconds are these over the published peaks of the
devices, at a share of them that is assumed (--utilisation), and leave out what
devices tell each other, evaluations and waiting for data. Memory is that of the
step as compiled: by the TPU's own compiler where libtpu is installed, else an
estimate by the CPU's, which wants more, and no less for bfloat16 than for
float32. That takes minutes for the largest models; --no_compile leaves it out.
"""

import argparse

from augdistill.cli import flags
from augdistill.training.chips import CHIPS


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags of `augdistill plan`."""
  group = parser.add_argument_group("devices")
  group.add_argument(
    "--kind",
    required=True,
    metavar="KIND",
    help=f"{', '.join(CHIPS)}: a device is what JAX calls one, a core of v3 "
    "and a chip of the others",
  )
  group.add_argument(
    "--devices", type=int, default=1, metavar="N", help="default: 1"
  )
  group.add_argument(
    "--utilisation",
    type=flags.finite,
    default=0.4,
    metavar="X",
    help="the share of the published peaks that the step reaches (default: "
    "0.4, an assumption: PaLM was trained at 0.46 and GPT-3 at 0.21, "
    "arXiv:2204.02311, table 3)",
  )
  group.add_argument(
    "--price_per_hour",
    type=flags.finite,
    metavar="X",
    help="of all devices together",
  )
  group.add_argument(
    "--no_compile",
    action="store_true",
    help="do not compile the step: all but activations and gradients is told",
  )
  group = parser.add_argument_group("run", "as of augdistill distill")
  group.add_argument("--method", metavar="M", help="default: kd")
  group.add_argument("--model", metavar="NAME", help="default: micro")
  group.add_argument(
    "--teacher", metavar="DIR", help="a finished run, or a classifier"
  )
  group.add_argument(
    "--teacher_model",
    metavar="NAME",
    help="or the size of a teacher that is not there yet, in the student's "
    "type and with its dropout",
  )
  group.add_argument(
    "--no_teacher_dropout",
    dest="teacher_dropout",
    action="store_false",
    default=None,
    help="the teacher answers without dropout",
  )
  group.add_argument("--num_steps", type=int, metavar="N", help="default: 1200")
  group.add_argument(
    "--batch_size", type=int, metavar="N", help="rows of a step (default: 64)"
  )
  group.add_argument(
    "--length",
    type=int,
    metavar="N",
    help="tokens of a row (default: --max_length)",
  )
  group.add_argument(
    "--vocab_size", type=int, metavar="N", help="default: T5's, 32128"
  )
  group.add_argument("--num_outputs", type=int, metavar="N", help="default: 2")
  parser.add_argument(
    "--output", metavar="FILE", help="write the plan as JSON, too"
  )
  flags.add_data(parser)
  flags.add_gin(parser)


def run(args: argparse.Namespace) -> None:
  """Runs `augdistill plan`."""
  import json
  import os

  # Compilers complain of what takes long, or of a machine that has no TPU.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  import jax

  # A plan is for devices that are elsewhere, or busy.
  jax.config.update("jax_platforms", "cpu")

  from augdistill.atomic import replacing
  from augdistill.cli import config, planning, screens
  from augdistill.errors import UsageError

  if args.teacher and args.teacher_model:
    raise UsageError("give --teacher DIR or --teacher_model NAME, but not both")
  asked = planning.Asked(
    kind=args.kind,
    devices=args.devices,
    utilisation=args.utilisation,
    length=args.length,
    vocab_size=args.vocab_size,
    num_outputs=args.num_outputs,
    teacher_model=args.teacher_model,
    price_per_hour=args.price_per_hour,
    compiles=not args.no_compile,
  )
  planning.check(asked)
  run_config, _ = config.resolve("runs/distill.gin", args)
  plan = planning.plan(run_config, asked)
  if args.output:
    with replacing(args.output) as file:
      file.write(json.dumps(plan, indent=2) + "\n")
  screens.show_plan(plan)
