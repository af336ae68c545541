"""EncT5, or any network of ours, as a model of T5X."""

from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax.numpy as jnp
from clu.metrics import Average
from flax import traverse_util
from flax.linen.partitioning import AxisMetadata
from jax.sharding import PartitionSpec
from jaxtyping import Array
from t5x import models

from augdistill.data.features import TextConverter, as_batch, registered
from augdistill.evaluation.predict import logits_of
from augdistill.losses.objective import summand
from augdistill.models.networks import ModelConfig, network
from augdistill.training.methods import build_method
from augdistill.types import Metrics, Models, Params, clean_view

Features = Mapping[str, Array]


class EncT5Model(models.BaseModel):
  """Fine-tunes on labels, and serves: what T5X's binaries ask of a model.

  Its parameters are the standalone trainer's, by the same names.

  Args:
    task: the name of its Task, of `text_task`: its vocabulary and labels.
    model: factory of the network's shape, given `vocab_size` and
      `num_outputs`, such as `augdistill.models.sizes.enct5_config`.
    optimizer_def: T5X's; None of a model that does not learn.
  """

  FEATURE_CONVERTER_CLS = TextConverter

  def __init__(
    self,
    task: str,
    model: Callable[..., ModelConfig],
    optimizer_def: Any = None,
  ):
    super().__init__(optimizer_def)
    self.task = registered(task)
    self.input_vocabulary, self.output_vocabulary = self.task.vocabularies
    self.data = self.task.data
    self.config = model(
      vocab_size=self.data.vocab.size, num_outputs=self.data.task.num_outputs
    )
    self.network = network(self.config)
    self._fine_tuning = build_method("ft", self.data.task.kind).clean

  def get_initial_variables(
    self,
    rng: Array,
    input_shapes: Mapping[str, Any],
    input_types: Mapping[str, Any] | None = None,
  ) -> flax.core.FrozenDict:
    """`params`, and `params_axes` with T5X's logical axis names."""
    del input_shapes, input_types  # No parameter depends on them.
    names = traverse_util.flatten_dict(self.network.logical_axes())
    axes = {
      (*path[:-1], f"{path[-1]}_axes"): AxisMetadata(PartitionSpec(*its))
      for path, its in names.items()
    }
    axes, params = traverse_util.unflatten_dict(axes), self.network.init(rng)
    return flax.core.freeze({"params": params, "params_axes": axes})

  def loss_fn(
    self, params: Params, batch: Features, dropout_rng: Array | None
  ) -> tuple[Array, dict[str, Average]]:
    """The loss of the labels, summed over rows; without a key, no dropout."""
    view = clean_view(as_batch(batch))
    outputs = self.network.forward(params, view.student, key=dropout_rng)
    models = Models(self.network, params, None, None, self.data.vocab.lexicon)
    loss, metrics = summand(
      *(self._fine_tuning, outputs, None, view, None, models, jnp.int32(0))
    )
    return loss, averages({"loss": (loss, jnp.sum(view.weight)), **metrics})

  def predict_batch_with_aux(
    self, params: Params, batch: Features, rng: Array | None = None
  ) -> tuple[Array, dict[str, Array]]:
    """Logits f32[B, C], which the Task's `targets` make words of; twice."""
    del rng
    logits = self.score_batch(params, batch)
    return logits, {"logits": logits}

  def score_batch(
    self, params: Params, batch: Features, return_intermediates: bool = False
  ) -> Array:
    """Logits f32[B, C], which the Task's metrics read."""
    del return_intermediates
    return logits_of(self.network, params, as_batch(batch))


def averages(metrics: Metrics) -> dict[str, Average]:
  """Metrics as T5X takes them."""
  return {
    name: Average(total=total, count=weight)
    for name, (total, weight) in metrics.items()
  }
