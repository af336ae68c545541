"""The real data sets, for whoever has them."""

import functools
import os
import pathlib

import numpy as np

from augdistill.data.dataset import Examples, take
from augdistill.data.load import Data, DataConfig, load_data
from tests.benchmarks.turns import Missing

FOLDER = "AUGDISTILL_SHARED"


@functools.cache
def load(name: str, max_length: int = 128) -> Data:
  """A data set of $AUGDISTILL_SHARED/data, with a vocabulary of its own.

  Args:
    name: of its folder, which holds train.tsv.
    max_length: the most tokens of a row.

  Raises:
    Missing: if it is not there.
  """
  train = pathlib.Path(os.environ.get(FOLDER, "")) / "data" / name / "train.tsv"
  if FOLDER not in os.environ or not train.exists():
    raise Missing(f"{FOLDER}=DIR, where DIR/data/{name}/train.tsv is")
  return load_data(DataConfig(train=str(train), max_length=max_length))


def some_rows(examples: Examples, count: int) -> Examples:
  """So many rows at random, or all of fewer."""
  order = np.random.default_rng(0).permutation(len(examples))
  return take(examples, np.sort(order[:count]))
