"""What T5X calls, on a stand-in of it: signatures, pytrees and numbers."""

import dataclasses
import functools
import importlib
import inspect
import pathlib
import re
import sys

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import augdistill
from augdistill.data import load, tasks
from augdistill.data.load import DataConfig, load_data
from augdistill.errors import UsageError
from augdistill.models import sizes
from augdistill.models.enct5 import EncT5Config
from augdistill.training.methods import build_method
from augdistill.training.step import grads_and_metrics
from augdistill.types import Task, TaskKind
from tests.cli.tiny import examples, write_tsv
from tests.t5x_plugin import standin

SHAPE = functools.partial(
  EncT5Config,
  emb_dim=16,
  mlp_dim=24,
  num_layers=1,
  num_heads=2,
  head_dim=8,
)


def features():
  """The module; it takes seconds to import, which others need not wait for."""
  return importlib.import_module("augdistill.data.features")


@pytest.fixture(scope="module", autouse=True)
def plugin():
  """The plug-in on the stand-in, whether or not the real one is there."""
  with pytest.MonkeyPatch.context() as patch:
    tasks.import_seqio()  # Not as a guest of T5X: quietly.
    for name, module in standin.modules().items():
      patch.setitem(sys.modules, name, module)
    standin.forget()
    from augdistill import t5x_plugin

    yield t5x_plugin
  standin.forget()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  return DataConfig(
    train=str(write_tsv(folder / "train.tsv", examples(40))),
    test=str(write_tsv(folder / "test.tsv", examples(9, first=40))),
    max_length=16,
    cache_dir=str(folder / "cache"),
  )


@pytest.fixture(scope="module")
def task(plugin, config, tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("vocabulary")))
    yield plugin.text_task(config)


@pytest.fixture(scope="module")
def model(plugin, task):
  return plugin.EncT5Model(task, SHAPE)


@pytest.fixture(scope="module")
def params(model):
  return standin.random_params(model.get_initial_variables, 0)


@pytest.fixture(scope="module")
def batch(task):
  """Eight training rows, as T5X's trainer gets them."""
  lengths = features().lengths(task)
  rows = (
    features()
    .seqio.TaskRegistry.get(task)
    .get_dataset(lengths, "train", shuffle=False)
  )
  converter = features().TextConverter(pack=False)
  made = next(converter(rows, lengths).batch(8).as_numpy_iterator())
  return jax.tree.map(jnp.asarray, made)


# --- the Task ----------------------------------------------------------------


def test_a_batch_has_the_rows_of_the_standalone_trainer(config, batch):
  train = load_data(config).train
  made = features().as_batch(batch)
  tokens, mask = np.asarray(made.tokens), np.asarray(made.mask)
  for i in range(8):
    row = train.tokens[train.offsets[i] : train.offsets[i + 1]]
    np.testing.assert_array_equal(tokens[i][mask[i]], row)
  np.testing.assert_array_equal(made.label, train.label[:8])
  assert made.has_label.all()
  np.testing.assert_array_equal(made.weight, 1)
  assert len(set(made.example_id.tolist())) > 1
  assert made.example_id.dtype == np.int32


def test_the_same_data_are_one_task(plugin, config, task):
  assert plugin.text_task(config) == task
  assert plugin.feature_lengths(task)["targets"] == 3


def test_a_row_without_a_label_says_so():
  rows = {"inputs": [[5, 6], [7, 1]], "targets": [[], []]}
  data = features().tf.data.Dataset.from_tensor_slices(
    {
      "inputs": features().tf.constant(rows["inputs"]),
      "targets": features().tf.zeros((2, 0)),
    }
  )
  lengths = {"inputs": 4, "targets": 3}
  converted = features().TextConverter(pack=False)(data, lengths)
  (made,) = converted.batch(2).as_numpy_iterator()
  assert made["label"].shape == (2, 3)
  batch = features().as_batch(jax.tree.map(jnp.asarray, made))
  assert not batch.has_label.any()


def test_rows_without_labels_are_trained_on_and_texts_are_kept(
  plugin, config, tmp_path
):
  path = tmp_path / "unlabeled.tsv"
  path.write_text("sentence\nhow odd\n")
  more = dataclasses.replace(config, unlabeled=str(path))
  name = plugin.text_task(more)
  task = features().seqio.TaskRegistry.get(name)
  train, test = (
    [
      *task.get_dataset(
        features().lengths(name), split, shuffle=False
      ).as_numpy_iterator()
    ]
    for split in ("train", "test")
  )
  assert [len(row["targets"]) for row in train] == [3] * (len(train) - 1) + [0]
  assert len(train) == task.num_input_examples("train") > 1
  texts = [row["inputs_pretokenized"].decode() for row in test]
  assert texts == [text for text, _ in examples(9, first=40)]
  with pytest.raises(UsageError, match="one Task"):
    trainer_module()._method(
      "kd",
      *(
        plugin.EncT5Model(plugin.text_task(data), SHAPE)
        for data in (config, more)
      ),
    )


def test_packing_is_refused_with_what_to_bind(task):
  lengths = features().lengths(task)
  rows = features().seqio.TaskRegistry.get(task).get_dataset(lengths, "train")
  with pytest.raises(UsageError, match="pack = False"):
    features().TextConverter(pack=True)(rows, lengths)


def test_a_task_of_another_kind_is_refused(plugin):
  with pytest.raises(UsageError, match=r"load\.DataConfig\.task"):
    plugin.EncT5Model("somebody_elses", SHAPE)


@pytest.mark.parametrize(
  ("kind", "logits", "words"),
  [
    (TaskKind.CLASSES, [0.1, 2.0, -1.0], b"card"),
    (TaskKind.MULTI_LABEL, [0.1, 2.0, -1.0], b"app|card"),
    (TaskKind.MULTI_LABEL, [-0.1, -2.0, -1.0], b""),
    (TaskKind.REGRESSION, [2.5], b"2.500000"),
  ],
)
def test_logits_are_said_in_words(kind, logits, words):
  names = () if kind == TaskKind.REGRESSION else ("app", "card", "cash")
  vocabulary = features().LabelVocabulary(Task("t", kind, names))
  assert vocabulary.decode_tf(features().tf.constant(logits)).numpy() == words
  np.testing.assert_allclose(vocabulary.decode(logits), logits)


def test_a_task_is_measured_by_the_metrics_of_its_data(task):
  (metric,) = features().seqio.TaskRegistry.get(task).metric_fns
  right = [[1.0, 0, 0], [0, 1.0, 0], []]
  said = [[3.0, 1, 2], [3.0, 1, 2], [3.0, 1, 2]]
  assert metric(targets=right, scores=said)["accuracy"] == 0.5


# --- the model ---------------------------------------------------------------


def test_a_model_has_the_methods_of_t5x_with_its_arguments(model):
  for name, wanted in inspect.getmembers(standin.BaseModel, inspect.isfunction):
    if name != "__init__":
      ours = inspect.signature(getattr(type(model), name)).parameters
      assert list(ours) == list(inspect.signature(wanted).parameters), name


def test_the_parameters_are_those_of_the_standalone_network(model):
  # As T5X makes them, with names of arguments.
  variables = jax.eval_shape(
    lambda rng: model.get_initial_variables(
      rng=rng, input_shapes={}, input_types=None
    ),
    jax.random.key(0),
  )
  assert isinstance(variables, flax.core.FrozenDict)
  assert set(variables) == {"params", "params_axes"}
  ours = jax.eval_shape(model.network.init, jax.random.key(0))
  found = variables["params"].unfreeze()
  assert jax.tree.structure(found) == jax.tree.structure(ours)
  axes = flax.linen.partitioning.get_axis_names(variables["params_axes"])
  ranks = jax.tree.map(
    lambda names, leaf: len(names) == leaf.ndim,
    axes.unfreeze(),
    variables["params"].unfreeze(),
    is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec),
  )
  assert all(jax.tree.leaves(ranks))


def test_the_loss_is_the_sum_over_rows_of_the_standalone_one(
  model, params, batch
):
  loss, found = jax.jit(model.eval_fn)(params, batch)
  logits = model.score_batch(params, batch)
  wanted = -jnp.sum(jax.nn.log_softmax(logits) * batch["label"])
  np.testing.assert_allclose(loss, wanted, rtol=1e-5)
  np.testing.assert_allclose(found["loss"].compute(), wanted / 8, rtol=1e-5)
  assert set(found) == {"loss", "clean/label"}
  dropped, _ = jax.jit(model.loss_fn)(params, batch, jax.random.key(1))
  assert abs(dropped - loss) > 1e-4


def test_predictions_are_logits(model, params, batch):
  said, aux = model.predict_batch_with_aux(params, batch, rng=None)
  assert said.shape == (8, 3)
  np.testing.assert_array_equal(aux["logits"], said)
  np.testing.assert_array_equal(model.predict_batch(params, batch), said)


# --- the trainer -------------------------------------------------------------


def trainer_module():
  return sys.modules["augdistill.t5x_plugin.trainer"]


def make_trainer(plugin, model, params, num_microbatches=None, **kwargs):
  """A trainer that has done three steps, and whose learning rate grows."""
  return plugin.DistillTrainer(
    model=model,
    train_state=standin.TrainState(
      jnp.int32(3), jax.tree.map(jnp.array, params)
    ),
    partitioner=standin.Partitioner(),
    eval_names=[],
    summary_dir=None,
    train_state_axes=None,
    rng=jax.random.key_data(jax.random.key(7)),
    learning_rate_fn=lambda step: 0.125 * (step + 1).astype(jnp.float32),
    num_microbatches=num_microbatches,
    **kwargs,
  )


def test_a_step_is_the_standalone_one_with_the_teacher_beside_the_state(
  plugin, model, task, params, batch
):
  teacher = plugin.EncT5Model(
    task, functools.partial(SHAPE, embedding_init=0.5)
  )
  trainer = make_trainer(
    plugin,
    model,
    params,
    method="kd(teacher_weight=ramp(0, 1, 6))",
    teacher=teacher,
    teacher_checkpoint=standin.RestoreCheckpointConfig(path=3),
    teacher_dropout=False,
  )
  theirs = standin.random_params(teacher.get_initial_variables, 3)
  call = functools.partial(
    grads_and_metrics,
    student=model.network,
    teacher=teacher.network,
    method=build_method("kd(teacher_weight=ramp(0, 1, 6))", TaskKind.CLASSES),
    teacher_dropout=False,
  )
  grads, wanted = jax.jit(call)(
    *(params, theirs, model.data.vocab.lexicon),
    *(features().as_batch(batch), jax.random.key(7), jnp.int32(3)),
  )
  trainer.compile_train(batch)
  found = trainer.train(iter([batch]), 1)
  mean = wanted["loss"][0] / wanted["loss"][1]
  np.testing.assert_allclose(found["loss"].compute(), mean, rtol=1e-5)
  assert set(wanted) < set(found)
  arrays = (grads, params, trainer.train_state.params)
  for grad, was, now in zip(*map(jax.tree.leaves, arrays), strict=True):
    np.testing.assert_allclose(
      now, np.asarray(was) - np.float32(0.5) * grad, rtol=1e-5, atol=1e-6
    )
  trainer.train(iter([batch]), 1)  # The teacher was not given away.
  assert int(trainer.train_state.step) == 5
  # Sharded by the teacher's own axes, and only the state is donated.
  ((given, _, donated),) = trainer._partitioner.calls
  assert jax.tree.structure(given[2]) == jax.tree.structure(
    trainer._frozen_axes
  )
  assert donated == (0,)


@pytest.mark.parametrize(("given", "parts"), [(None, 1), (1, 1), (4, 4)])
def test_what_t5x_counts_and_measures_reaches_the_step(
  plugin, model, params, batch, monkeypatch, given, parts
):
  told = {}

  def step_of(params, frozen, lexicon, batch, key, step, **what):
    told.update(what)
    counted = step.astype(jnp.float32), jnp.float32(1)
    return jax.tree.map(jnp.zeros_like, params), {"step": counted}

  class Weights:
    def compute_metrics(self, grads, before, after):
      return {"moved": jnp.float32(after.step - before.step)}

  monkeypatch.setattr(trainer_module(), "grads_and_metrics", step_of)
  trainer = make_trainer(
    *(plugin, model, params, given),
    method="ft",
    weight_metrics_computer=Weights(),
  )
  found = trainer.train(iter([batch] * 2), 2)
  assert found["step"].compute() == 4
  assert found["learning_rate"].total == 0.125 * 5
  assert found["moved"] == 1
  assert told["num_microbatches"] == parts
  assert told["teacher_dropout"]


@pytest.mark.parametrize(
  ("method", "what"),
  [
    ("kd", "TEACHER_MODEL"),
    ("ft+alternate(fmix, mixup)", "augdistill distill"),
    ("best", r"kd\+tinybert.*project=false"),
    ("ft+nothing_of_this_name", "no view or term"),
    ("ft+knn(k=99999)", "knn"),
  ],
)
def test_a_method_that_does_not_fit_is_refused(
  plugin, model, params, method, what
):
  with pytest.raises(UsageError, match=what):
    make_trainer(plugin, model, params, method=method)


# --- the run -----------------------------------------------------------------


def test_a_run_leaves_what_the_commands_need(plugin, model, tmp_path):
  from augdistill.cli.served import load_served
  from augdistill.data.vocabulary import find_vocab, load_vocab

  plugin.summarize_run(str(tmp_path), None, 0, model=model)
  served = load_served(tmp_path / "student.gin")
  assert served.model == model.config
  assert served.task == model.data.task
  assert served.max_length == 16
  vocab = load_vocab(find_vocab(tmp_path / "vocab"))
  assert vocab.fingerprint == model.data.vocab.fingerprint


def test_without_t5x_the_error_says_how_to_get_it(monkeypatch):
  for name in [n for n in sys.modules if n.split(".")[0] == "t5x"]:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, "t5x", None)
  for name in [n for n in sys.modules if "augdistill.t5x_plugin" in n]:
    monkeypatch.delitem(sys.modules, name)
  with pytest.raises(UsageError, match=r"GitHub.*augdistill\[t5x\]"):
    import augdistill.t5x_plugin  # noqa: F401


# --- the gin files -----------------------------------------------------------

CONFIGS = pathlib.Path(augdistill.__file__).parents[1] / "configs" / "t5x"
BINDING = re.compile(r"(?:(\w+)/)?(\w+)\.(\w+)\.(\w+) =.*")


def bindings(text):
  """(scope, module, name, parameter) of bindings, and of blocks of them."""
  block = ""
  for line in text.splitlines():
    if found := re.fullmatch(r"((?:\w+/)?\w+\.\w+):", line):
      block = found[1]
    elif not line.startswith("  "):
      block = ""
    line = f"{block}.{line.strip()}" if block else line
    if found := BINDING.fullmatch(line):
      yield found.groups()


@pytest.mark.parametrize(
  "path", sorted(CONFIGS.glob("*.gin")), ids=lambda path: path.stem
)
def test_what_a_gin_file_binds_is_there(plugin, path):
  ours = {"t5x_plugin": plugin, "sizes": sizes, "load": load}
  for _, module, name, parameter in bindings(path.read_text()):
    if module in ours:
      called = inspect.signature(getattr(ours[module], name)).parameters
      # What T5X's trainer takes passes through.
      passed = name == "DistillTrainer" and parameter in (
        inspect.signature(standin.Trainer).parameters
      )
      assert parameter in called or passed, (module, name, parameter)


def test_what_t5_1_1_binds_for_a_student_is_bound_anew_for_its_teacher():
  # Or its teacher would be restored without its head.
  student, teacher = (
    {
      binding[1:]
      for binding in bindings((CONFIGS / name).read_text())
      if binding[0] == scope
    }
    for name, scope in (("from_t5_1_1.gin", None), ("distill.gin", "teacher"))
  )
  assert student
  assert student <= teacher


def test_bindings_are_found():
  text = "a.B.c = 1\ns/a.B:\n  d = 2\n\nE = 3\n"
  assert [*bindings(text)] == [(None, "a", "B", "c"), ("s", "a", "B", "d")]
