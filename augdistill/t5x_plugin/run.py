"""What a run of T5X reads, and what it leaves for augdistill's commands."""

import tempfile
from typing import Any

import jax
from etils import epath
from t5x import gin_utils

from augdistill.data import features
from augdistill.data.load import DataConfig
from augdistill.evaluation import metrics
from augdistill.reports.student_gin import Served, served_text
from augdistill.t5x_plugin.model import EncT5Model


def text_task(config: DataConfig) -> str:
  """MIXTURE_OR_TASK_NAME of GLUE, files, or another Task's rows."""
  return features.register(config, metrics.compute)


def feature_lengths(task: str) -> dict[str, int]:
  """TASK_FEATURE_LENGTHS of a Task of `text_task`."""
  return features.lengths(task)


def summarize_run(
  model_dir: str, summary_writer: Any, step: int, *, model: EncT5Model
) -> None:
  """T5X's summary; and student.gin and vocab/, as `evaluate` reads them."""
  gin_utils.summarize_gin_config(model_dir, summary_writer, step)
  if jax.process_index() != 0:
    return
  data, vocab = model.task.data, epath.Path(model_dir) / "vocab"
  vocab.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory() as local:
    saved = epath.Path(data.vocab.save(local))
    (vocab / saved.name).write_bytes(saved.read_bytes())
  served = Served(model.config, data.task, model.task.max_length)
  (vocab.parent / "student.gin").write_text(served_text(served))
