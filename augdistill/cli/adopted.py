"""Models of the BERT family that another program trained, used as runs are."""

import dataclasses
import os
from collections.abc import Mapping

import jax

from augdistill.checkpoints.begin import Source, begin, fit
from augdistill.checkpoints.bert_names import check_tied
from augdistill.checkpoints.folder import is_in_bucket
from augdistill.checkpoints.source import is_remote, open_source
from augdistill.data.batches import round_down_length
from augdistill.data.labels import METRICS
from augdistill.data.vocabulary import Vocab, load_vocab
from augdistill.errors import UsageError
from augdistill.models.bert_config import BertConfig
from augdistill.models.masked_bert import masked_bert
from augdistill.models.networks import network
from augdistill.reports.run_directory import is_run
from augdistill.types import MaskedLM, Network, Params, Task

_LONGEST = 128  # tokens of a text, as a run's by default


def is_foreign(path: str) -> bool:
  """Whether a place is not a run's but a model's of another program."""
  if is_in_bucket(path):
    return not is_run(path)
  return is_remote(path) or os.path.exists(os.path.join(path, "config.json"))


@dataclasses.dataclass(frozen=True)
class Adopted:
  """A model, and what is needed to use it.

  Attributes:
    config: its shape.
    model: its network.
    params: its parameters.
    task: what its outputs mean; None for a masked language model.
    max_length: tokens kept of a text.
    vocab_path: its vocabulary's file.
  """

  config: BertConfig
  model: Network | MaskedLM
  params: Params
  task: Task | None
  max_length: int
  vocab_path: str


def adopt_classifier(path: str) -> Adopted:
  """Reads a fine-tuned classifier.

  Args:
    path: a directory that transformers saved, or hf://NAME.

  Raises:
    UsageError: if it is no classifier of the BERT family with its vocabulary.
  """
  source, vocab = _opened(path, "a classifier")
  if source.task is None:
    raise UsageError(
      f"{path} must hold a fine-tuned classifier, and has no head; to "
      f"fine-tune it, give --teacher_init {path}, or augdistill finetune --init"
    )
  config = _config(source, vocab, source.task.num_outputs)
  model = network(config)
  task = dataclasses.replace(source.task, metrics=METRICS[source.task.kind])
  return _adopted(source, config, model, task)


def adopt_masked(path: str) -> Adopted:
  """Reads a masked language model.

  Args:
    path: a directory that transformers saved, or hf://NAME.

  Raises:
    UsageError: if it is none of the BERT family with its vocabulary.
  """
  source, vocab = _opened(path, "a masked language model")
  if vocab.mask_id is None:
    raise UsageError(f"{source.vocab_path} must have a token [MASK] or <mask>")
  check_tied(source.arrays, path)
  config = _config(source, vocab, num_outputs=1)
  return _adopted(source, config, masked_bert(config, vocab.mask_id), None)


def _opened(path: str, what: str) -> tuple[Source, Vocab]:
  source = open_source(path)
  if source.architecture is not BertConfig or source.vocab_path is None:
    raise UsageError(
      f"{path} must hold a run, or {what} of the BERT family with its "
      "vocabulary, tokenizer.json or vocab.txt"
    )
  return source, load_vocab(source.vocab_path)


def _config(source: Source, vocab: Vocab, num_outputs: int) -> BertConfig:
  own: Mapping[str, int] = {
    "vocab_size": vocab.size,
    "num_outputs": num_outputs,
    "separator_id": vocab.frame.end_id,
  }
  return source.config(**own)


def _adopted(
  source: Source,
  config: BertConfig,
  model: Network | MaskedLM,
  task: Task | None,
) -> Adopted:
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  if new := fit(shapes, source).new:
    raise UsageError(
      f"{source.where} must hold the whole model, head and all, and has no "
      f"{', '.join(new)}"
    )
  return Adopted(
    config,
    model,
    jax.device_put(begin(shapes, source)),
    task,
    min(round_down_length(config.max_length), _LONGEST),
    source.vocab_path,
  )
