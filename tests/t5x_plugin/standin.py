"""What the plug-in uses of T5X, with T5X's signatures and pytrees, and no more.

test_t5x.py compares the signatures with those of the real one, where it is.
"""

import dataclasses
import sys
import types
from typing import Any

import clu.metrics
import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import partitioning

import augdistill


class BaseModel:
  def __init__(self, optimizer_def):
    self.optimizer_def = optimizer_def

  def loss_fn(self, params, batch, dropout_rng):
    raise NotImplementedError

  def eval_fn(self, params, batch):
    return self.loss_fn(params=params, batch=batch, dropout_rng=None)

  def predict_batch(self, params, batch, rng=None):
    return self.predict_batch_with_aux(params=params, batch=batch, rng=rng)[0]

  def predict_batch_with_aux(self, params, batch, rng=None):
    raise NotImplementedError

  def score_batch(self, params, batch, return_intermediates=False):
    raise NotImplementedError

  def get_initial_variables(self, rng, input_shapes, input_types=None):
    raise NotImplementedError


class Trainer:
  """Runs `_partitioned_train_step`, compiled as T5X compiles it."""

  def __init__(
    self,
    model,
    train_state,
    partitioner,
    eval_names,
    summary_dir,
    train_state_axes,
    rng,
    learning_rate_fn,
    num_microbatches,
    weight_metrics_computer=None,
  ):
    del eval_names, summary_dir
    self._model, self.train_state = model, train_state
    self._partitioner, self._base_rng = partitioner, rng
    self._train_state_axes = train_state_axes
    self._learning_rate_fn = learning_rate_fn
    self._num_microbatches = num_microbatches
    self._weight_metrics_computer = weight_metrics_computer
    self._compiled_train_step = None

  def compile_train(self, batch):
    self._compiled_train_step = self._partitioner.compile(
      self._partitioned_train_step, self.train_state, batch
    )

  def train(self, batch_iter, num_steps, start_step=None):
    del start_step
    step = self._compiled_train_step or self._partitioned_train_step
    for _ in range(num_steps):
      self.train_state, metrics = step(self.train_state, next(batch_iter))
    return metrics


def apply_grads(
  train_state,
  grad_accum,
  metrics,
  learning_rate,
  weight_metrics_computer,
  other_state_variables=None,
):
  """Plain gradient descent."""
  del other_state_variables
  metrics["learning_rate"] = clu.metrics.Average.from_model_output(
    jnp.asarray([learning_rate])
  )
  state = train_state.apply_gradient(grad_accum, learning_rate=learning_rate)
  if weight_metrics_computer is not None:
    metrics |= weight_metrics_computer.compute_metrics(
      grad_accum, train_state, state
    )
  return state, metrics


@flax.struct.dataclass
class TrainState:
  step: Any
  params: Any

  def apply_gradient(self, grads, learning_rate):
    def descend(param, grad):
      return param - learning_rate * grad

    return TrainState(self.step + 1, jax.tree.map(descend, self.params, grads))


class Partitioner:
  """One device; remembers what it was asked for."""

  data_partition_spec = jax.sharding.PartitionSpec("data")

  def __init__(self):
    self.calls = []

  def partition(
    self,
    fn,
    in_axis_resources,
    out_axis_resources,
    static_argnums=(),
    donate_argnums=(),
  ):
    self.calls.append((in_axis_resources, out_axis_resources, donate_argnums))
    return jax.jit(
      fn, static_argnums=static_argnums, donate_argnums=donate_argnums
    )

  def compile(self, partitioned_fn, *args):
    return partitioned_fn.lower(*args).compile()


class TrainStateInitializer:
  def __init__(
    self, optimizer_def, init_fn, input_shapes, partitioner, input_types=None
  ):
    del partitioner
    assert optimizer_def is None  # The teacher does not learn.
    self.init_fn, self.shapes = init_fn, (input_shapes, input_types)
    axes = jax.eval_shape(self.variables, jax.random.key(0))["params_axes"]
    self.train_state_axes = TrainState(None, partitioning.get_axis_names(axes))

  def variables(self, rng):
    shapes, kinds = self.shapes
    return self.init_fn(rng=rng, input_shapes=shapes, input_types=kinds)


def random_params(init_fn, seed):
  """Parameters for which no program is compiled."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(
    lambda: init_fn(rng=jax.random.key(0), input_shapes={})["params"]
  )
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape).astype("f4") * 0.3),
    shapes,
  )


@dataclasses.dataclass
class RestoreCheckpointConfig:
  path: Any
  mode: str = "latest"


def create_checkpoint_manager_and_restore(
  train_state_initializer,
  partitioner,
  restore_checkpoint_cfg,
  restore_path,
  fallback_init_rng,
  save_checkpoint_cfg=None,
  model_dir=None,
  ds_iter=None,
  use_orbax=False,
):
  """The path is the seed of what is restored."""
  del partitioner, fallback_init_rng, save_checkpoint_cfg, model_dir, ds_iter
  del use_orbax
  assert restore_checkpoint_cfg.path == restore_path
  params = random_params(train_state_initializer.init_fn, restore_path)
  return TrainState(jnp.int32(0), params), None


def summarize_gin_config(model_dir, summary_writer, step):
  del model_dir, summary_writer, step


MODULES = {
  "t5x.models": {"BaseModel": BaseModel},
  "t5x.trainer": {"Trainer": Trainer, "apply_grads": apply_grads},
  "t5x.utils": {
    "TrainStateInitializer": TrainStateInitializer,
    "RestoreCheckpointConfig": RestoreCheckpointConfig,
    "create_checkpoint_manager_and_restore": (
      create_checkpoint_manager_and_restore
    ),
  },
  "t5x.gin_utils": {"summarize_gin_config": summarize_gin_config},
}


def modules():
  """Name -> module, for sys.modules."""
  package = types.ModuleType("t5x")
  found = {"t5x": package}
  for name, content in MODULES.items():
    found[name] = types.ModuleType(name)
    vars(found[name]).update(content)
    setattr(package, name.split(".")[1], found[name])
  return found


def forget():
  """Removes the plug-in, so that its next import finds what is there."""
  for name in [*sys.modules]:
    if name.startswith("augdistill.t5x_plugin"):
      del sys.modules[name]
  vars(augdistill).pop("t5x_plugin", None)  # Or `from augdistill` finds it.
