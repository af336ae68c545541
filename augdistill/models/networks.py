"""The network of a configuration, of whichever architecture."""

import functools

from augdistill.models.bert import bert
from augdistill.models.bert_config import BertConfig
from augdistill.models.enct5 import EncT5Config, enct5
from augdistill.types import Network

ModelConfig = EncT5Config | BertConfig
ARCHITECTURES = {EncT5Config: enct5, BertConfig: bert}


@functools.cache
def network(config: ModelConfig) -> Network:
  """The network of this shape as pure functions.

  There is one per shape, so that its programs are traced and compiled once:
  student and teacher of one size share them.

  Args:
    config: its shape, which says what it is.

  Returns:
    A Network.
  """
  return ARCHITECTURES[type(config)](config)
