r"""Trains a small student with a teacher, and with augmentation.

  augdistill distill --train train.tsv --test test.tsv --teacher teacher \
      --method kd+augpro_mix+augpro_fgsm --output_dir student

A method is a base, ft (labels alone) or kd (labels and teacher), plus views:
each with parameters and copies, for example
kd(temperature=2)+augpro_mix*2+augpro_fgsm(delta=3). `augdistill methods` lists
all there are, and what `best` stands for.
"""

import argparse
import dataclasses
import os
import time

from augdistill.cli import flags

# Of the data's fields, those that a teacher of its own does not share.
_STUDENTS_ALONE = ("seed", "train_examples", "train_fraction", "unlabeled")


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags of `augdistill distill`."""
  flags.add_data(parser)
  parser.add_argument(
    "--unlabeled", metavar="FILE", help="texts that only the teacher labels"
  )
  flags.add_rows(parser)
  group = parser.add_argument_group("distillation")
  group.add_argument(
    "--teacher",
    metavar="DIR",
    help="a finished run of augdistill finetune, or a fine-tuned classifier "
    "of the BERT family: a directory of transformers, or hf://NAME",
  )
  group.add_argument(
    "--teacher_model",
    metavar="NAME",
    help="without --teacher: first fine-tune a teacher of this size, on all "
    "of the training data, into OUTPUT_DIR/teacher",
  )
  group.add_argument(
    "--teacher_init",
    metavar="DIR",
    help="likewise, a teacher that begins with pretrained weights, as of "
    "--init; without --teacher_model, of their shape",
  )
  group.add_argument(
    "--teacher_num_steps",
    type=int,
    metavar="N",
    help="steps of that teacher (default: 2000)",
  )
  group.add_argument("--method", metavar="M", help="see above (default: kd)")
  group.add_argument(
    "--no_teacher_dropout",
    dest="teacher_dropout",
    action="store_false",
    default=None,
    help="the teacher answers without dropout (default: with, as in AugPro)",
  )
  group.add_argument(
    "--teacher_cache",
    metavar="DIR",
    help="ask the teacher once for each training text, and keep its answers "
    "here, for all runs; views that change what it reads ask it as before",
  )
  group.add_argument(
    "--teacher_cache_draws",
    type=int,
    metavar="M",
    help="keep M answers with dropout to each text, of which every step takes "
    "one; or else --teacher_cache needs --no_teacher_dropout",
  )
  group.add_argument(
    "--init_layers",
    metavar="LAYERS",
    help="begin with the teacher's weights and some of its layers: bottom, "
    "skip, top, or their numbers, such as 0,2; the student needs the teacher's "
    "--model and, with --gin.enct5_config.num_layers, fewer layers. With "
    "--init, which may be the teacher, those of its layers "
    "(--gin.model_like.num_layers)",
  )
  flags.add_init(parser)
  flags.add_rewrites(parser)
  flags.add_training(parser, "micro", 1200, 3e-3)
  parser.add_argument(
    "--profile",
    action="store_true",
    help="first trace some steps into OUTPUT_DIR/profile, and print what each "
    "part of a step costs",
  )
  parser.add_argument(
    "--force",
    action="store_true",
    help="learn even from a teacher that is near chance on validation rows",
  )
  flags.add_gin(parser)


def run(args: argparse.Namespace) -> None:
  """Runs `augdistill distill`."""
  from augdistill.cli import checkup, experiment, profiling, screens
  from augdistill.reports.run_directory import RunDirectory

  run_config, text = configure(args)
  output = RunDirectory(args.output_dir, args.wandb)
  finished, call = experiment.check_directory(output, text), args.call
  if makes_teacher(args) and finished is None:
    _finetune_teacher(args, run_config)
    call = call._replace(began=time.perf_counter())

  def before(made):
    if not args.force:
      checkup.refuse_useless_teacher(made)
    if args.profile:
      profiling.profile(made, output.path)

  results = experiment.run_experiment(run_config, text, output, call, before)
  screens.show_results(args.output_dir, results)


def configure(args: argparse.Namespace) -> tuple:
  """The configuration of the student's run, and its text.

  Raises:
    UsageError: if flags exclude each other, or anything in the configuration
      is wrong.
  """
  from augdistill.cli import config
  from augdistill.errors import UsageError

  if args.teacher and makes_teacher(args):
    raise UsageError(
      "give --teacher DIR, a finished teacher, or --teacher_model NAME or "
      "--teacher_init DIR, to fine-tune one first, but not both"
    )
  if args.teacher_num_steps is not None and not makes_teacher(args):
    raise UsageError(
      "--teacher_num_steps is for --teacher_model NAME or --teacher_init DIR"
    )
  if makes_teacher(args):
    args.teacher = os.path.join(args.output_dir, "teacher")
  if args.teacher:
    args.teacher = flags.as_directory(args.teacher)
  return config.resolve("runs/distill.gin", args)


def makes_teacher(args: argparse.Namespace) -> bool:
  """Whether a teacher is to be fine-tuned first."""
  return bool(args.teacher_model or args.teacher_init)


def _finetune_teacher(args: argparse.Namespace, student) -> None:
  """The teacher's own run: the student's data, and nothing else of its."""
  from augdistill.cli import experiment
  from augdistill.reports.run_directory import RunDirectory

  run_config, text = check_teacher_to_be(args, student)
  what = args.teacher_model or args.teacher_init
  print(f"fine-tuning the teacher, {what}, into {args.teacher}")
  experiment.run_experiment(
    run_config, text, RunDirectory(args.teacher), args.call
  )


def check_teacher_to_be(args: argparse.Namespace, student) -> tuple:
  """The configuration of the teacher's run, and its text.

  What is wrong with the student's run shows here, before hours are spent.

  Raises:
    UsageError: if the student's run does not fit such a teacher.
  """
  from augdistill.cli import config, parts

  parts.check(student)
  read = student.data
  for init in (student.init, args.teacher_init):
    read = parts.as_read_by(None, read, init)
  student = dataclasses.replace(student, data=read)
  run_config, text = config.resolve(
    "runs/finetune.gin", _teachers_flags(args), _shared(student)
  )
  parts.check_before_teacher(student, run_config.model)
  return run_config, text


def _teachers_flags(args: argparse.Namespace) -> argparse.Namespace:
  """The teacher's flags, as if nothing else was given."""
  flags_given = {
    "model": args.teacher_model,
    "init": args.teacher_init,
    "num_steps": args.teacher_num_steps,
  }
  gin_given = {"gin_file": [], "gin_search_paths": "", "gin_bindings": []}
  return argparse.Namespace(
    **dict.fromkeys(flags.MACROS) | flags_given | gin_given
  )


def _shared(student) -> list[str]:
  """Bindings of the student's data, without the rows that are its alone."""
  bindings = [f"SEED = {student.seed!r}"]
  for field in dataclasses.fields(student.data):
    value = getattr(student.data, field.name)
    alone = field.name in _STUDENTS_ALONE
    if value != field.default and not alone:
      name = flags.MACROS.get(field.name, f"DataConfig.{field.name}")
      bindings.append(f"{name} = {value!r}")
  return bindings
