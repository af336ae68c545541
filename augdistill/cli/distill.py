r"""Trains a small student with a teacher, and with augmentation.

  augdistill distill --train train.tsv --test test.tsv --teacher teacher \
      --method kd+augpro_mix+augpro_fgsm --output_dir student

A method is a base, ft (labels alone) or kd (labels and teacher), plus views:
mixup, fgsm, augpro_mix, augpro_fgsm, token_mix; each with parameters and
copies, for example kd(temperature=2)+augpro_mix*2+augpro_fgsm(delta=3).
"""

import argparse
import os

from augdistill.cli import flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags of `augdistill distill`."""
  flags.add_data(parser)
  parser.add_argument(
    "--unlabeled", metavar="FILE", help="texts that only the teacher labels"
  )
  parser.add_argument(
    "--train_examples",
    type=int,
    metavar="N",
    help="learn from N rows of the training data, balanced over classes",
  )
  group = parser.add_argument_group("distillation")
  group.add_argument(
    "--teacher", metavar="DIR", help="a finished run of augdistill finetune"
  )
  group.add_argument(
    "--teacher_model",
    metavar="NAME",
    help="without --teacher: first fine-tune a teacher of this size, on all "
    "of the training data, into OUTPUT_DIR/teacher",
  )
  group.add_argument(
    "--teacher_num_steps",
    type=int,
    metavar="N",
    help="steps of that teacher",
  )
  group.add_argument("--method", metavar="M", help="see above")
  group.add_argument(
    "--no_teacher_dropout",
    dest="teacher_dropout",
    action="store_false",
    default=None,
    help="the teacher answers without dropout (default: with, as in AugPro)",
  )
  flags.add_training(parser)
  flags.add_gin(parser)


def run(args: argparse.Namespace) -> None:
  """Runs `augdistill distill`."""
  from augdistill.cli import config, experiment, screens
  from augdistill.errors import UsageError
  from augdistill.reports.run_directory import RunDirectory

  if args.teacher and args.teacher_model:
    raise UsageError(
      "give --teacher DIR, a finished teacher, or --teacher_model NAME, to "
      "fine-tune one first, but not both"
    )
  teacher = args.teacher
  if args.teacher_model:
    teacher = os.path.join(args.output_dir, "teacher")
  extra = [] if teacher is None else [f"TEACHER = {teacher!r}"]
  run_config, text = config.resolve("runs/distill.gin", args, extra)
  output = RunDirectory(args.output_dir)
  output.check(text)
  if args.teacher_model:
    _finetune_teacher(args, teacher)
  results = experiment.run_experiment(run_config, text, output, args.argv)
  screens.show_results(args.output_dir, results)


def _finetune_teacher(args: argparse.Namespace, output_dir: str) -> None:
  """The teacher's own run: the data flags, and nothing of the student's."""
  from augdistill.cli import config, experiment
  from augdistill.reports.run_directory import RunDirectory

  own = dict.fromkeys(flags.MACROS) | {
    name: getattr(args, name)
    for name in (
      *("task", "train", "validation", "test", "text_column", "label_column"),
      *("task_kind", "vocab", "max_length", "tfds_data_dir", "seed"),
    )
  }
  own |= {"model": args.teacher_model, "num_steps": args.teacher_num_steps}
  own = argparse.Namespace(
    **own,
    gin_file=[],
    gin_search_paths=args.gin_search_paths,
    gin_bindings=[],
  )
  run_config, text = config.resolve("runs/finetune.gin", own)
  print(f"fine-tuning the teacher, {args.teacher_model}, into {output_dir}")
  experiment.run_experiment(
    run_config, text, RunDirectory(output_dir), args.argv
  )
