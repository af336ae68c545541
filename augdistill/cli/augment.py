r"""Shows what augmented texts look like, and counts what changed.

  augdistill augment --method kd+augpro_mix --data train.tsv \
      --teacher teacher --limit 10

For every view of the method that can be read: the text, its partner, the
augmented text, and what the teacher says of the text and of the augmented
one; and over the whole file the shares of tokens changed, from the row's own
text (a), from its partner (b) and from neither, and of rows whose class the
teacher sees changed. Views that change embeddings are read at the nearest
tokens; views that enter deeper have no text to show.
"""

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags of `augdistill augment`."""
  parser.add_argument("--method", required=True, metavar="M")
  parser.add_argument("--data", required=True, metavar="FILE")
  parser.add_argument(
    "--teacher",
    metavar="DIR",
    help="a finished run: its embeddings project, its probabilities are shown; "
    "it also stands for the student, unless there is --student",
  )
  parser.add_argument(
    "--student",
    metavar="DIR",
    help="a finished run of the student, for views that move its embeddings",
  )
  parser.add_argument(
    "--limit", type=int, default=10, metavar="N", help="texts shown"
  )
  parser.add_argument("--text_column", metavar="NAME[,NAME]")
  parser.add_argument("--label_column", metavar="NAME", default="label")
  parser.add_argument("--seed", type=int, default=0, metavar="N")
  parser.add_argument(
    "--json", action="store_true", help="one JSON object per line instead"
  )


def run(args: argparse.Namespace) -> None:
  """Runs `augdistill augment`."""
  from augdistill.cli import samples, screens
  from augdistill.errors import UsageError

  if args.limit < 0:
    raise UsageError(f"--limit must be >= 0, got {args.limit}")
  rows, summary = samples.augmented(args)
  if args.json:
    for row in rows:
      print(json.dumps(row, ensure_ascii=False))
    print(json.dumps({"summary": summary}))
    return
  screens.show_samples(rows, summary)
