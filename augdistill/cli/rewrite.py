r"""Rewrites texts with a pretrained masked language model.

  augdistill rewrite --data train.tsv --generator pretrained \
      --output rewrites.jsonl

A share of each text's tokens is hidden and filled in again. The output, one
JSON object per text, is what finetune and distill take as --rewrites.
"""

import argparse

from augdistill.cli import flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags of `augdistill rewrite`."""
  data = parser.add_mutually_exclusive_group(required=True)
  data.add_argument(
    "--data",
    metavar="FILE",
    help=".tsv, .csv or .jsonl; labels are not read",
  )
  data.add_argument("--task", help="or the training texts of a task by name")
  parser.add_argument(
    "--generator",
    metavar="DIR",
    required=True,
    help="a finished run of augdistill pretrain, or a masked language model "
    "of the BERT family: a directory of transformers, or hf://NAME",
  )
  parser.add_argument("--output", metavar="FILE", required=True)
  parser.add_argument(
    "--copies", type=int, metavar="N", help="of each text (default: 4)"
  )
  parser.add_argument(
    "--rate",
    type=flags.finite,
    metavar="X",
    help="share of tokens that is hidden (default: 0.4)",
  )
  parser.add_argument(
    "--search",
    choices=("greedy", "beam"),
    help="greedy: copies differ in the token that is filled in first, and in "
    "what follows; beam: the likeliest texts (default: greedy)",
  )
  parser.add_argument(
    "--pairs",
    choices=("separate", "together"),
    help="rewrite the two texts of a pair each alone or as one (default: "
    "separate)",
  )
  parser.add_argument("--seed", type=int, metavar="N", help="default: 0")
  parser.add_argument("--text_column", metavar="NAME[,NAME]")
  parser.add_argument(
    "--tfds_data_dir", metavar="DIR", help="where TFDS keeps its data"
  )


def run(args: argparse.Namespace) -> None:
  """Runs `augdistill rewrite`."""
  import os

  from augdistill import atomic
  from augdistill.cli.pretrained import Pretrained
  from augdistill.cli.rewrite_options import RewriteOptions
  from augdistill.cli.rewriting import rewrite_texts
  from augdistill.data.files import read_table
  from augdistill.data.load import task_texts
  from augdistill.data.rewrites import rewrite_lines
  from augdistill.errors import UsageError

  if os.path.isdir(args.output) or not args.output.endswith(".jsonl"):
    raise UsageError(
      f"--output must be a file whose name ends in .jsonl, got {args.output}"
    )
  names = ("copies", "rate", "search", "pairs", "seed")
  given = {n: v for n in names if (v := getattr(args, n)) is not None}
  options = RewriteOptions(**given)
  generator = Pretrained.load(args.generator)
  if args.task:
    texts = task_texts(args.task, args.tfds_data_dir)
  else:
    columns = tuple(args.text_column.split(",")) if args.text_column else None
    table = read_table(args.data, text_columns=columns, labelled=False)
    texts = table.texts
  with atomic.replacing(args.output) as file:  # First, since the rest is long.
    done = rewrite_texts(generator, texts, options)
    file.writelines(rewrite_lines(done.texts.items()))
  print(f"{args.output}: {done.summary()}")
