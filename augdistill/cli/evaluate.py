"""Scores a trained run on a file of labelled texts.

  augdistill evaluate --run student --data test.tsv

Prints one JSON object, with the metrics of the run's task.
"""

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The flags of `augdistill evaluate`."""
  parser.add_argument("--run", metavar="DIR", required=True)
  parser.add_argument("--data", metavar="FILE", required=True)
  parser.add_argument("--text_column", metavar="NAME[,NAME]")
  parser.add_argument("--label_column", metavar="NAME", default="label")


def run(args: argparse.Namespace) -> None:
  """Runs `augdistill evaluate`: prints one JSON object."""
  import jax

  from augdistill.cli.trained import Trained
  from augdistill.data.load import DataConfig, load_data
  from augdistill.evaluation import metrics
  from augdistill.evaluation.predict import predict_split

  trained = Trained.load(args.run)
  task = trained.served.task
  data = load_data(
    DataConfig(
      test=args.data,
      text_column=args.text_column,
      label_column=args.label_column,
      label_names=task.label_names,
      task_kind=str(task.kind),
      vocab=trained.vocab_path,
      max_length=trained.served.max_length,
      pair=trained.pair,
    )
  )
  params = jax.device_put(trained.params)
  logits = predict_split(trained.network, params, data.test, 256)
  values = metrics.compute(task, logits, data.test.label, data.test.has_label)
  print(json.dumps({"examples": len(data.test), "metrics": values}))
