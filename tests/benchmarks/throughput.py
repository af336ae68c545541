"""Texts per second of evaluation and prediction, against what bounds them."""

import pathlib
import tempfile
from collections.abc import Callable

import jax
import numpy as np

from augdistill import prng
from augdistill.cli.labelling import labeller
from augdistill.cli.trained import Trained
from augdistill.data.batches import eval_batches, padded_length
from augdistill.data.dataset import Examples, take
from augdistill.data.load import Data, DataConfig, load_data
from augdistill.evaluation.predict import logits_of, predict, predict_split
from augdistill.models.networks import network
from augdistill.models.sizes import enct5_config
from augdistill.reports.student_gin import Served
from tests.benchmarks import real_data
from tests.benchmarks.turns import Figure, Missing, figure, taking_turns

BATCH_SIZE = 256  # an evaluation's
MAX_LENGTH = 128
MODELS = ("micro", "mini")
REAL = ("banking77", "rte")


def measure(quick: bool) -> list[Figure]:
  """Both models on the embedded data set, and on real ones where they are."""
  sets = {
    "helpdesk": load_data(DataConfig(task="helpdesk", max_length=MAX_LENGTH))
  }
  for name in () if quick else REAL:
    try:
      sets[name] = real_data.load(name, MAX_LENGTH)
    except Missing as missing:
      print(f"throughput: {name} needs {missing}")
  rows = BATCH_SIZE if quick else 1024
  figures = []
  for size in MODELS[:1] if quick else MODELS:
    for name, data in sets.items():
      figures += figures_of(size, name, data, rows)
  return figures


def figures_of(size: str, name: str, data: Data, rows: int) -> list[Figure]:
  """A model's passes over some rows.

  Args:
    size: of the model.
    name: of the data.
    data: whose training rows are read.
    rows: how many.
  """
  config = enct5_config(size, data.vocab.size, data.task.num_outputs)
  model = network(config)
  params = jax.device_put(jax.jit(model.init)(prng.run_key(0)))
  examples = real_data.some_rows(data.train, rows)
  longest = padded_length(examples.lengths)

  alone = f"{size}, {name}, passes alone, sorted by length"
  whole = f"{size}, {name}, evaluation"
  padded = f"{whole}, padded to the longest"
  labels = f"{size}, {name}, labels from texts"
  with tempfile.TemporaryDirectory() as directory:
    vocab_path = data.vocab.save(pathlib.Path(directory))
    served = Served(config, data.task, MAX_LENGTH)
    trained = Trained(served, model, params, vocab_path, data.task.pair)
    label, texts = labeller(trained), [*examples.texts]
    seconds = taking_turns(
      {
        alone: _passes(model, params, examples),
        whole: lambda: predict_split(model, params, examples, BATCH_SIZE),
        padded: lambda: predict(
          model, params, eval_batches(examples, BATCH_SIZE, length=longest)
        ),
        labels: lambda: [*label(texts)],
      }
    )
  pairs = (whole, alone), (padded, whole), (labels, whole)
  return [
    figure(seconds, its, of, note=f"{_speed(seconds[its], len(examples))}")
    for its, of in pairs
  ]


def _passes(model, params, examples: Examples) -> Callable[[], list[jax.Array]]:
  """What runs the model on batches that are on the device already."""
  order = np.argsort(examples.lengths, kind="stable")
  batches = jax.device_put([*eval_batches(take(examples, order), BATCH_SIZE)])
  return lambda: [logits_of(model, params, batch) for batch in batches]


def _speed(seconds: list[float], rows: int) -> str:
  return f"{rows / np.median(seconds):,.0f} texts/s, {rows:,} of them"
