"""augdistill inside T5X: its train, eval and infer binaries, our models.

The gin files of `augdistill/configs/t5x` bind what is here. Nothing here
computes: the loss is `training.step`'s, the networks are `models`'.
"""

from augdistill.errors import UsageError

try:
  import t5x  # noqa: F401
except ModuleNotFoundError as error:
  raise UsageError(
    "augdistill.t5x_plugin needs T5X, which no registry has: clone google-"
    "research/t5x, google/airio and google-research/jestimator from GitHub, put"
    " the three folders on PYTHONPATH, and `pip install 'augdistill[t5x]'`; "
    f"here, {error}"
  ) from error

from augdistill.t5x_plugin.model import EncT5Model
from augdistill.t5x_plugin.run import feature_lengths, summarize_run, text_task
from augdistill.t5x_plugin.trainer import DistillTrainer

__all__ = ["DistillTrainer", "EncT5Model", "feature_lengths"]
__all__ += ["summarize_run", "text_task"]
