"""T5X itself: its binaries with our gin files, in processes of their own."""

import contextlib
import functools
import importlib.util
import inspect
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from augdistill.checkpoints.t5x_checkpoint import latest_t5x, t5x_arrays
from augdistill.cli.trained import Trained
from augdistill.data.embedded import read_embedded
from augdistill.data.sentence_pieces import train_vocab
from augdistill.evaluation.predict import predict
from augdistill.training.methods import build_method
from augdistill.training.step import grads_and_metrics
from augdistill.types import TaskKind
from tests.cli.test_export import make_run
from tests.cli.test_extension import write_the_page
from tests.cli.tiny import BOTH, examples, ok, write_tsv
from tests.t5x_plugin import standin

pytestmark = [
  pytest.mark.t5x,
  pytest.mark.skipif(
    importlib.util.find_spec("t5x") is None, reason="T5X is not on PYTHONPATH"
  ),
]

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "t5x").glob("*.gin"))
METHODS = ("kd", "augpro_mix", "augpro_fgsm", "augpro", "ad2")
TINY = """
from __gin__ import dynamic_registration
from augdistill import t5x_plugin
from augdistill.data import load
from augdistill.models import enct5
from t5x import utils

BATCH_SIZE = 8
MAX_LENGTH = 16
{data}
t5x_plugin.EncT5Model.model = @enct5.EncT5Config
enct5.EncT5Config:
  emb_dim = 16
  mlp_dim = 24
  num_layers = 1
  num_heads = 2
  head_dim = 8
"""
OF_TRAINING = """
EVAL_PERIOD = 2
EVAL_STEPS = 1
train/utils.DatasetConfig.seed = 0
utils.SaveCheckpointConfig.period = 2
"""
OF_DISTILLATION = """
teacher/t5x_plugin.EncT5Model.model = @teacher/enct5.EncT5Config
teacher/enct5.EncT5Config.num_layers = 2
"""


def words(binary, file, folder, devices=1, **macros):
  """A command of T5X, and its environment."""
  more = OF_TRAINING if binary == "train" else ""
  more += OF_DISTILLATION if "distill" in file else ""
  data = "".join(
    f"load.DataConfig.{split} = '{folder / split}.tsv'\n"
    for split in ("train", "validation", "test")
  )
  tiny = folder / f"{binary}_{file}.gin"
  tiny.write_text(TINY.format(data=data) + more)
  files = [f"augdistill/configs/t5x/{file}.gin", str(tiny)]
  files += macros.pop("gin_file", [])
  command = [sys.executable, "-m", f"t5x.{binary}"]
  command += [f"--gin_file={name}" for name in files]
  command += [f"--gin.{name}={value!r}" for name, value in macros.items()]
  env = dict(os.environ, XDG_CACHE_HOME=str(folder / "cache"))
  flag = "--xla_force_host_platform_device_count"
  return command, env | {"XLA_FLAGS": f"{flag}={devices}"}


def run(*args, **kwargs):
  """Runs a binary of T5X to its end; gives what it logged."""
  command, env = words(*args, **kwargs)
  done = subprocess.run(
    command, env=env, capture_output=True, text=True, timeout=480, check=False
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stderr


def params_of(directory):
  arrays = t5x_arrays(latest_t5x(str(directory)))
  return {name: array.read() for name, array in arrays.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("t5x")
  for split, count, first in (
    *(("train", 64, 0), ("validation", 21, 64), ("test", 21, 85)),
  ):
    write_tsv(folder / f"{split}.tsv", examples(count, first))
  return folder


@pytest.fixture(scope="module")
def teacher(folder):
  """Fine-tuned, in T5X's own format."""
  path = folder / "teacher"
  run(
    *("train", "finetune_teacher", folder),
    TRAIN_STEPS=4,
    MODEL_DIR=str(path),
    USE_ORBAX=False,
    **{"enct5.EncT5Config.num_layers": 2},
  )
  return path


@pytest.fixture(scope="module")
def student(folder, teacher):
  """Distilled by both AugPro views, in Orbax's format."""
  path = folder / "student"
  distil(folder, teacher, path, "augpro")
  return path


def distil(folder, teacher, path, method, devices=1, steps=4):
  return run(
    *("train", f"distill_{method}", folder, devices),
    TRAIN_STEPS=steps,
    MODEL_DIR=str(path),
    TEACHER_CHECKPOINT=latest_t5x(str(teacher)),
  )


def only(folder, pattern):
  (found,) = folder.glob(pattern)
  return [json.loads(line) for line in found.read_text().splitlines()]


# --- without a run -----------------------------------------------------------

PARSE = """
import sys
import __main__
import gin
import t5x.eval as of_eval
import t5x.infer as of_infer
import t5x.train as of_train
__main__.train, __main__.evaluate = of_train.train, of_eval.evaluate
__main__.infer = of_infer.infer
for path in of_train._DEFAULT_GIN_SEARCH_PATHS:
  gin.add_config_file_search_path(path)
for name in sys.argv[1:]:
  gin.clear_config()
  gin.parse_config_file("augdistill/configs/t5x/" + name)
  print(name)
"""


def test_every_gin_file_is_parsed():
  names = [path.name for path in FILES]
  assert {f"distill_{method}.gin" for method in METHODS} < set(names)
  done = subprocess.run(
    [sys.executable, "-c", PARSE, *names],
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.stdout.split() == names, done.stderr[-2000:]


@contextlib.contextmanager
def real():
  """T5X in this process, whose arithmetic is not strict."""
  standin.forget()
  with (
    jax.numpy_dtype_promotion("standard"),
    jax.numpy_rank_promotion("allow"),
  ):
    yield
  standin.forget()


def test_the_stand_in_has_the_signatures_of_t5x():
  with real():
    for name, content in standin.MODULES.items():
      module = importlib.import_module(name)
      for what, ours in content.items():
        theirs = getattr(module, what)
        if what == "RestoreCheckpointConfig":
          assert set(inspect.signature(ours).parameters) < set(
            inspect.signature(theirs).parameters
          )
          continue
        pairs = [(ours, theirs)]
        if inspect.isclass(ours):
          pairs = [
            (method, getattr(theirs, called))
            for called, method in inspect.getmembers(ours, inspect.isfunction)
            if called != "variables"
          ]
        for one, other in pairs:
          assert list(inspect.signature(one).parameters) == list(
            inspect.signature(other).parameters
          ), (what, one)


def test_a_step_has_loss_and_gradients_of_the_standalone_trainer(
  folder, monkeypatch
):
  """On two devices, as T5X cuts the student over them, and the batch."""
  from augdistill.data.load import DataConfig
  from augdistill.models.enct5 import EncT5Config

  monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
  with real():
    from t5x import optimizers, partitioning, utils

    from augdistill import t5x_plugin
    from augdistill.data import features

    task = t5x_plugin.text_task(
      DataConfig(train=str(folder / "train.tsv"), max_length=16)
    )
    shape = functools.partial(
      EncT5Config,
      emb_dim=16,
      mlp_dim=24,
      num_heads=2,
      head_dim=8,
    )
    student = t5x_plugin.EncT5Model(
      *(task, functools.partial(shape, num_layers=1)),
      optimizers.OptaxWrapper(optax.sgd(1.0)),  # It takes the gradient off.
    )
    teacher = t5x_plugin.EncT5Model(
      task, functools.partial(shape, num_layers=2)
    )
    lengths = t5x_plugin.feature_lengths(task)
    rows = features.seqio.TaskRegistry.get(task).get_dataset(lengths, "train")
    converter = student.FEATURE_CONVERTER_CLS(pack=False)
    batch = next(converter(rows, lengths).batch(8).as_numpy_iterator())
    # T5X cuts parameters over all devices of a CPU, and there are two heads.
    for mesh_shape, parts in [((1, 2), None), ((2, 1), 2)]:
      devices = np.array(jax.devices()[:2]).reshape(mesh_shape)
      mesh = jax.sharding.Mesh(devices, ("data", "model"))
      monkeypatch.setattr(
        partitioning, "default_mesh", lambda *_, mesh=mesh: mesh
      )
      partitioner = partitioning.PjitPartitioner(num_partitions=1)
      first = utils.TrainStateInitializer(
        student.optimizer_def, student.get_initial_variables, {}, partitioner
      )
      state = first.from_scratch(jax.random.PRNGKey(3)).replace_step(3)
      params = jax.device_get(state.params)
      theirs = teacher.network.init(jax.random.key(5))
      monkeypatch.setattr(
        sys.modules["augdistill.t5x_plugin.trainer"],
        "_restore",
        lambda *_, its=theirs: (its, None),
      )
      trainer = t5x_plugin.DistillTrainer(
        student,
        *(state, partitioner, [], str(folder / "summary")),
        *(first.train_state_axes, jax.random.PRNGKey(7)),
        learning_rate_fn=lambda step: jnp.float32(1e-3),
        num_microbatches=parts,
        method=BOTH,
        teacher=teacher,
      )
      step = functools.partial(
        grads_and_metrics,
        student=student.network,
        teacher=teacher.network,
        method=build_method(BOTH, TaskKind.CLASSES),
        num_microbatches=parts or 1,
      )
      grads, wanted = jax.jit(step)(
        *(params, theirs, student.data.vocab.lexicon),
        features.as_batch(jax.tree.map(jnp.asarray, batch)),
        *(jax.random.key(7), jnp.int32(3)),
      )
      with trainer:
        found = trainer.train(iter([batch]), 1, start_step=3).result()
      for name, (total, weight) in wanted.items():
        np.testing.assert_allclose(
          found[name].value, total / weight, rtol=1e-5, err_msg=name
        )
      assert {"augpro_mix/kl", "augpro_fgsm/kl", "clean/label"} < set(wanted)
      arrays = jax.device_get((params, grads, trainer.train_state.params))
      for was, grad, now in zip(*map(jax.tree.leaves, arrays), strict=True):
        np.testing.assert_allclose(was - now, grad, rtol=1e-4, atol=1e-5)


# --- the binaries ------------------------------------------------------------


def test_the_checkpoint_of_a_student_is_the_student_alone(student, teacher):
  names = set(params_of(student))
  assert len(set(params_of(teacher))) > len(names)
  trained = Trained.load(str(student))
  own = jax.eval_shape(trained.network.init, jax.random.key(0))
  assert len(names) == len(jax.tree.leaves(own))


def test_eval_and_infer_need_no_teacher_and_say_what_evaluate_says(
  folder, student, teacher, tmp_path
):
  hidden = teacher.rename(tmp_path / "hidden")
  try:
    checkpoint = latest_t5x(str(student))
    run(
      *("eval", "eval", folder),
      CHECKPOINT_PATH=checkpoint,
      EVAL_OUTPUT_DIR=str(tmp_path / "eval"),
      SPLIT="test",
    )
    run(
      *("infer", "infer", folder),
      CHECKPOINT_PATH=checkpoint,
      INFER_OUTPUT_DIR=str(tmp_path / "infer"),
      SPLIT="test",
    )
  finally:
    hidden.rename(teacher)
  (scores,) = only(tmp_path / "eval", "**/*-metrics.jsonl")
  said = ok("evaluate", f"--run={student}", f"--data={folder / 'test.tsv'}")
  metrics = json.loads(said.out)["metrics"]
  assert scores["accuracy"] == pytest.approx(metrics["accuracy"], abs=1e-6)
  check_inferences(student, folder, tmp_path / "infer")


def check_inferences(path, folder, output):
  """What T5X says of the test rows is what augdistill says."""
  from augdistill.data.batches import eval_batches
  from augdistill.data.load import DataConfig, load_data

  trained = Trained.load(str(path))
  names = trained.served.task.label_names
  rows = load_data(
    DataConfig(
      test=str(folder / "test.tsv"),
      vocab=trained.vocab_path,
      label_names=names,
      max_length=16,
    )
  ).test
  logits = predict(trained.network, trained.params, eval_batches(rows, 32))
  lines = only(output, "*predict_with_aux*-of-00001")
  assert [line["inputs"]["inputs_pretokenized"] for line in lines] == [
    text for (text,) in rows.texts
  ]
  found = np.array([line["aux"]["logits"] for line in lines])
  np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)
  assert [line["prediction"] for line in lines] == [
    names[i] for i in logits.argmax(-1)
  ]


def test_a_run_that_was_killed_goes_on(folder, teacher):
  path = folder / "killed"
  command, env = words(
    *("train", "distill_kd", folder),
    TRAIN_STEPS=100_000,
    MODEL_DIR=str(path),
    TEACHER_CHECKPOINT=latest_t5x(str(teacher)),
  )
  with subprocess.Popen(
    command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  ) as process:
    end = time.monotonic() + 400
    while not (path / "checkpoint_6").exists():
      assert process.poll() is None
      assert time.monotonic() < end
      time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
  last = int(latest_t5x(str(path)).rsplit("_", 1)[1])
  before = params_of(path)
  log = distil(folder, teacher, path, "kd", steps=last + 2)
  assert f"loop over steps {last}-{last + 2}" in log
  after = params_of(path)
  assert latest_t5x(str(path)).endswith(f"checkpoint_{last + 2}")
  assert any((after[name] != before[name]).any() for name in after)


def test_a_view_a_term_and_a_model_of_ones_own_are_trained(
  folder, teacher, tmp_path, monkeypatch
):
  write_the_page(tmp_path)
  path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
  monkeypatch.setenv("PYTHONPATH", path)
  log = run(
    *("train", "distill_kd", folder),
    gin_file=[str(tmp_path / "mine_t5x.gin")],
    TRAIN_STEPS=2,
    MODEL_DIR=str(tmp_path / "mine"),
    TEACHER_CHECKPOINT=latest_t5x(str(teacher)),
  )
  assert "drop_last/centred_mse" in log
  text = (tmp_path / "mine" / "student.gin").read_text()
  assert "Sharp.factor = 2.0" in text


def test_two_devices_learn_what_one_does(folder, teacher):
  one, two = folder / "one", folder / "two"
  distil(folder, teacher, one, "kd", devices=1, steps=2)
  distil(folder, teacher, two, "kd", devices=2, steps=2)
  there = params_of(two)
  for name, array in params_of(one).items():
    np.testing.assert_allclose(there[name], array, rtol=1e-4, atol=1e-5)


def test_t5x_restores_what_export_writes(folder, tmp_path):
  made = make_run(tmp_path / "run")
  output = tmp_path / "exported"
  ok("export", f"--run={made}", "--format=t5x", f"--output={output}")
  assert latest_t5x(str(output)) == str(output / "checkpoint_0")
  (vocab,) = (output / "vocab").iterdir()
  run(
    *("infer", "infer", folder),
    VOCAB=str(vocab),
    CHECKPOINT_PATH=str(output / "checkpoint_0"),
    INFER_OUTPUT_DIR=str(tmp_path / "infer"),
    SPLIT="test",
  )
  check_inferences(output, folder, tmp_path / "infer")


@pytest.mark.parametrize(
  ("checkpoint", "num_layers"), [("t5_1_1", 2), ("t5_1_1_orbax_1layer", 1)]
)
def test_a_run_begins_with_t5_1_1(folder, tmp_path, checkpoint, num_layers):
  root = os.environ.get("AUGDISTILL_SHARED")
  if not root:
    pytest.skip("set AUGDISTILL_SHARED to the folder of t5x_checkpoints")
  begin = os.path.join(root, "t5x_checkpoints", checkpoint)
  texts = itertools.chain(*read_embedded("helpdesk")["train"].texts[:2000])
  vocab = train_vocab(texts, 80)
  assert vocab.size == 80  # As the checkpoint's.
  source = latest_t5x(begin)
  path = tmp_path / "begun"
  run(
    *("train", "finetune_teacher", folder),
    gin_file=["augdistill/configs/t5x/from_t5_1_1.gin"],
    INITIAL_CHECKPOINT_PATH=source,
    TRAIN_STEPS=2,
    MODEL_DIR=str(path),
    VOCAB=vocab.save(tmp_path),
    **{
      "enct5.EncT5Config.num_layers": num_layers,
      "enct5.EncT5Config.head_dim": 6,
    },
  )
  there = t5x_arrays(source)
  begun = {
    name: array.read()
    for name, array in t5x_arrays(str(path / "checkpoint_0")).items()
  }
  new = {name for name in begun if name not in there}
  assert new == {"decoder/latent", "head/kernel", "head/bias"}
  for name in begun.keys() - new:
    np.testing.assert_array_equal(begun[name], there[name].read())
