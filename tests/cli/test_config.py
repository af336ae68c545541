"""From files, flags and bindings to one configuration, and back."""

import argparse
import ast
import dataclasses
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import augdistill.cli
from augdistill.augment.grammar import parse
from augdistill.augment.methods import COMBINATIONS, RECIPES, written_out
from augdistill.augment.replacement import neighbour_lists
from augdistill.checkpoints.store import Store
from augdistill.cli import config, fit, flags, parts
from augdistill.cli import distill as distill_command
from augdistill.cli import finetune as finetune_command
from augdistill.cli.bindings import fits, packaged_files, parsed
from augdistill.cli.served import load_served
from augdistill.data.batches import train_batches
from augdistill.data.dataset import tokens_of
from augdistill.errors import UsageError
from augdistill.losses.named import TERMS
from augdistill.models.enct5 import EncT5Config
from augdistill.models.sizes import SIZES
from augdistill.reports.run_directory import RunDirectory
from augdistill.reports.student_gin import Served, served_text
from augdistill.training import step
from augdistill.training.policies import build_policy
from augdistill.types import Task, TaskKind
from tests.cli.tiny import ok, read_jsonl

# A value for every flag that stands for a macro, and where it must arrive.
FLAGS = {
  "task": ("cola", "data.task"),
  "train": ("a.tsv", "data.train"),
  "validation": ("b.tsv", "data.validation"),
  "test": ("c.tsv", "data.test"),
  "unlabeled": ("d.tsv", "data.unlabeled"),
  "text_column": ("q,a", "data.text_column"),
  "label_column": ("y", "data.label_column"),
  "task_kind": ("regression", "data.task_kind"),
  "vocab": ("v.spm", "data.vocab"),
  "max_length": (40, "data.max_length"),
  "tfds_data_dir": ("/d", "data.tfds_data_dir"),
  "train_examples": (7, "data.train_examples"),
  "train_fraction": (0.5, "data.train_fraction"),
  "labeled_fraction": (0.25, "data.labeled_fraction"),
  "teacher": ("t", "teacher"),
  "init": ("p", "init"),
  "rewrites": ("r.jsonl", "rewrites"),
  "generator": ("g", "generator"),
  "init_layers": ("skip", "init_layers"),
  "model": ("small", "model"),
  "method": ("kd+mixup(lam=0.3)", "method"),
  "teacher_dropout": (False, "teacher_dropout"),
  "teacher_cache": ("c", "teacher_cache"),
  "teacher_cache_draws": (4, "teacher_cache_draws"),
  "num_steps": (9, "num_steps"),
  "mesh": ("2x4", "mesh"),
  "batch_size": (24, "batch_size"),
  "learning_rate": (0.5, None),
  "seed": (3, "seed"),
}


def resolve(*bindings, run_file="runs/distill.gin", **given):
  given = {"gin_file": [], "gin_search_paths": ""} | given
  args = argparse.Namespace(gin_bindings=list(bindings), **given)
  return config.resolve(run_file, args)


def value_of(run_config, path):
  if path == "model":
    shape = run_config.model(vocab_size=8, num_outputs=2)
    (size,) = (
      name for name, shapes in SIZES.items() if shapes[0] == shape.emb_dim
    )
    return size
  for name in path.split("."):
    run_config = getattr(run_config, name)
  return run_config


def peak_learning_rate(run_config):
  """The largest update that Adam makes of a constant gradient."""
  params = {"w": jax.numpy.zeros((2, 2))}
  optimizer, largest = run_config.optimizer, 0.0
  with jax.numpy_dtype_promotion("standard"):
    state = optimizer.init(params)
    for _ in range(3):
      updates, state = optimizer.update(
        {"w": jax.numpy.ones((2, 2))}, state, params
      )
      largest = max(largest, float(-updates["w"].min()))
  return largest


def test_every_flag_of_a_macro_is_tested_here():
  assert set(FLAGS) == set(flags.MACROS)


@pytest.mark.parametrize("flag", [f for f in FLAGS if FLAGS[f][1]])
def test_a_flag_arrives_where_it_must(flag):
  value, path = FLAGS[flag]
  # Without a size, that of --init is looked up there.
  size = {"model": "micro"} if flag == "init" else {}
  run_config, text = resolve(**{flag: value}, **size)
  assert value_of(run_config, path) == value
  assert f"{flags.MACROS[flag]} = {value!r}" in text


@pytest.mark.parametrize("rest", ["", "+mixup"])
def test_a_run_keeps_what_a_combination_stood_for(rest):
  run_config, text = resolve(method=f"best{rest}")
  for name, method in COMBINATIONS.items():
    assert name == "best"
    assert run_config.method == method + rest
    assert f"METHOD = {method + rest!r}" in text
  assert build_policy(run_config.method, TaskKind.CLASSES).needs_teacher


def test_a_combination_is_at_the_head_of_a_method():
  assert written_out("kd+best") == "kd+best"
  with pytest.raises(UsageError, match="best"):
    resolve(method="kd+best")


def test_the_learning_rate_arrives_at_the_optimizer():
  run_config, _ = resolve(
    "make_optimizer.warmup_fraction = 0.0", learning_rate=0.5
  )
  assert peak_learning_rate(run_config) == pytest.approx(0.5, rel=1e-3)


def test_the_seed_draws_rows_too():
  run_config, _ = resolve(seed=3)
  assert run_config.data.seed == 3
  assert run_config.data.validation_seed == 0


@pytest.mark.parametrize("module", [finetune_command, distill_command])
def test_every_flag_of_a_command_is_a_macro_or_known_to_be_none(module):
  parser = argparse.ArgumentParser()
  module.add_arguments(parser)
  others = {"help", "output_dir", "gin_file", "gin_search_paths"}
  others |= {"teacher_model", "teacher_num_steps", "teacher_init"}
  others |= {"force", "profile"}
  others |= {"wandb"}
  others |= {"distributed", "coordinator", "num_processes", "process_id"}
  given = {action.dest for action in parser._actions}
  assert given - others <= set(flags.MACROS)


@pytest.mark.parametrize(
  "module, model, method",
  [(finetune_command, "mini", "ft"), (distill_command, "micro", "kd")],
)
def test_the_defaults_are_those_of_the_run_file_and_of_the_help(
  module, model, method
):
  name = module.__name__.split(".")[-1]
  run_config, text = resolve(run_file=f"runs/{name}.gin")
  assert value_of(run_config, "model") == model
  assert run_config.method == method
  assert run_config.teacher_dropout
  parser = argparse.ArgumentParser()
  module.add_arguments(parser)
  helps = {action.dest: action.help for action in parser._actions}
  macros = dict(
    line.split(" = ") for line in text.splitlines() if " = " in line
  )
  for flag in ("model", "num_steps", "batch_size", "seed", "max_length"):
    assert (
      f"default: {ast.literal_eval(macros[flags.MACROS[flag]])}"
      in (helps[flag])
    )
  rate = float(macros["LEARNING_RATE"])
  assert f"(default: {rate})" in helps["learning_rate"]


def test_later_wins_files_then_flags_then_bindings(tmp_path):
  first, second = tmp_path / "first.gin", tmp_path / "second.gin"
  first.write_text("NUM_STEPS = 1\nBATCH_SIZE = 1\nSEED = 1\nMETHOD = 'ft'\n")
  second.write_text("BATCH_SIZE = 2\nSEED = 2\nMETHOD = 'kd+mixup'\n")
  run_config, _ = resolve(
    "METHOD = 'kd+fgsm'",
    "METHOD = 'kd+token_mix'",
    gin_file=[str(first), str(second)],
    seed=3,
    method="kd",
  )
  assert run_config.num_steps == 1  # only in the first file
  assert run_config.batch_size == 2  # the second file wins
  assert run_config.seed == 3  # a flag wins
  assert run_config.method == "kd+token_mix"  # the last binding wins


def test_a_binding_sets_any_parameter():
  run_config, text = resolve(
    "RunConfig.log_period = 7",
    "DataConfig.validation_fraction = 0.5",
    "enct5_config.dropout_rate = 0.25",
    "augpro_mix.lam = 0.75",
    method="kd+augpro_mix",
  )
  assert run_config.log_period == 7
  assert run_config.data.validation_fraction == 0.5
  assert run_config.model(vocab_size=8, num_outputs=2).dropout_rate == 0.25
  assert "augpro_mix.lam = 0.75" in text


def test_the_default_of_a_view_is_that_of_gin_after_gin_is_empty_again():
  run_config, _ = resolve("mixup.lam = 7.0")
  with pytest.raises(ValueError, match="7"):
    run_config.recipes["mixup"].make()
  run_config.recipes["mixup"].make(lam=0.5)
  assert resolve()[0].recipes["mixup"].make()  # not of the run before


def test_a_shape_of_ones_own_takes_the_place_of_a_size():
  run_config, text = resolve(
    "RunConfig.model = @EncT5Config",
    *(f"EncT5Config.{n} = 8" for n in ("emb_dim", "mlp_dim", "num_layers")),
    *(f"EncT5Config.{n} = 4" for n in ("num_heads", "head_dim")),
  )
  shape = run_config.model(vocab_size=24, num_outputs=2)
  assert shape == EncT5Config(24, 2, 8, 8, 8, 4, 4)
  assert "EncT5Config.num_layers = 8" in text


def test_a_file_is_looked_for_here_then_below_search_then_packaged(
  tmp_path, monkeypatch
):
  search, here = tmp_path / "search", tmp_path / "here"
  for folder, steps in ((search, 5), (here, 6)):
    (folder / "methods").mkdir(parents=True)
    (folder / "methods" / "mine.gin").write_text(f"NUM_STEPS = {steps}\n")
  monkeypatch.chdir(tmp_path)
  wanted = {"gin_file": ["methods/mine.gin"]}
  paths = {"gin_search_paths": f"nowhere,{search}"}
  with pytest.raises(UsageError, match="Unable to open file"):
    resolve(**wanted)
  assert resolve(**wanted, **paths)[0].num_steps == 5
  monkeypatch.chdir(here)
  assert resolve(**wanted, **paths)[0].num_steps == 6
  assert resolve(gin_file=["methods/kd.gin"])[0].method == "kd"


def test_a_folder_called_runs_does_not_get_between_the_run_files(
  tmp_path, monkeypatch
):
  (tmp_path / "runs").mkdir()
  for name in ("common.gin", "distill.gin"):
    (tmp_path / "runs" / name).write_text("NONSENSE\n")
  monkeypatch.chdir(tmp_path)
  assert resolve()[0].num_steps == 1200


WRONG = {
  "FOO = 1": "no macro is called FOO",
  "method = 'kd'": "Did you mean 'METHOD'?",
  "NUM_STEPS = %FOO": "a macro is read that nothing sets",
  "MODEL = micro": "texts in quotes in 'MODEL = micro'",
  "MODEL = 'micr'": "Did you mean 'micro'?",
  "METHOD = 'kd+augpro_mx'": "Did you mean 'augpro_mix'?",
  "METHOD = 'kd+mixup(lamb=1)'": "Did you mean 'lam'?",
  "METHOD = 'kd+mixup(lam=2)'": "lambda must be in [0, 1], got 2",
  "METHOD = 'kd+mixup('": "column",
  "METHOD = 3": "RunConfig.method must be str, got 3",
  "RunConfg.num_steps = 1": "Did you mean 'RunConfig'?",
  "RunConfig.num_step = 1": "Did you mean 'num_steps'?",
  "enct5_config.dropout = 0.1": "Did you mean 'dropout_rate'?",
  "enct5_config.dropout_rate = 2": "dropout_rate must be in [0, 1), got 2",
  "make_optimizer.name = 'adamv'": "Did you mean 'adamw'?",
  "RunConfig.model = @nothing": "@nothing",
  "RunConfig.model = 3": "must be Callable, got 3",
  "RunConfig.data = 3": "must be DataConfig, got 3",
  "NUM_STEPS = 0": "num_steps must be at least 1, got 0",
  "NUM_STEPS = 1.5": "num_steps must be int, got 1.5",
  "BATCH_SIZE = True": "batch_size must be int, got True",
  "RunConfig.eval_period = 0": "eval_period must be at least 1, got 0",
  "SEED = -1": "seed must be in [0, 2^32), got -1",
  "LEARNING_RATE = 0": "learning rate must be positive, got 0",
  "LEARNING_RATE = '1'": "learning_rate must be float, got '1'",
  "MAX_LENGTH = 'x'": "DataConfig.max_length must be int, got 'x'",
  "a b c": "'a b c'",
  "NUM_STEPS": "'NUM_STEPS'",
}


@pytest.mark.parametrize("binding", WRONG)
def test_a_wrong_binding_is_explained_in_one_line(binding):
  with pytest.raises(UsageError) as caught:
    resolve(binding)
  assert WRONG[binding] in str(caught.value)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  "text, said",
  [
    (b"METHD = 'kd'\n", "Did you mean 'METHOD'?"),
    (b"\nRunConfig.num_step = 1\n", 'wrong.gin", line 2'),
    (b"NUM_STEPS = 3 4\n", "(wrong.gin, line 1)"),
    (b"include 'nowhere.gin'\n", 'wrong.gin", line 1'),
    (b"import nowhere\n", "No module named 'nowhere'"),
    (b"METHOD = '\xff'\n", "can't decode byte 0xff"),
  ],
)
def test_what_is_wrong_in_a_file_is_explained_with_its_line(
  tmp_path, monkeypatch, text, said
):
  monkeypatch.chdir(tmp_path)
  pathlib.Path("wrong.gin").write_bytes(text)
  with pytest.raises(UsageError) as caught:
    resolve(gin_file=["wrong.gin"])
  assert said in str(caught.value)
  assert "\n" not in str(caught.value)


def test_a_packaged_file_with_a_typo_is_suggested():
  with pytest.raises(UsageError, match=r"mean 'methods/augpro\.gin'"):
    resolve(gin_file=["methods/augpo.gin"])


def test_a_macro_that_only_an_overridden_method_reads_is_no_typo(tmp_path):
  file = tmp_path / "mine.gin"
  file.write_text("LAM = 0.3\nmixup.lam = %LAM\nMETHOD = 'kd+mixup'\n")
  resolve(gin_file=[str(file)])
  resolve("METHOD = 'kd'", gin_file=[str(file)])


def test_a_flag_that_a_file_makes_void_is_refused_not_ignored(tmp_path):
  file = tmp_path / "mine.gin"
  file.write_text("DataConfig.max_length = 8\n")
  assert resolve(gin_file=[str(file)])[0].data.max_length == 8
  with pytest.raises(UsageError, match="'MAX_LENGTH = 9' has no effect"):
    resolve(gin_file=[str(file)], max_length=9)


def test_a_percent_sign_in_a_path_is_no_macro():
  run_config, _ = resolve(train="50%OFF.tsv")
  assert run_config.data.train == "50%OFF.tsv"


def test_a_bug_in_the_block_is_not_taken_for_a_wrong_configuration():
  with pytest.raises(ZeroDivisionError), parsed(["models/micro.gin"] * 0):
    1 / 0  # noqa: B018


@pytest.mark.parametrize("where", ["beside", "here"])
def test_a_file_imports_what_lies_beside_it_or_where_one_is(
  tmp_path, monkeypatch, where
):
  monkeypatch.setattr(sys, "path", [*sys.path])
  folder, name = tmp_path / where, f"module_{where}"
  folder.mkdir()
  (folder / f"{name}.py").write_text("FOUND = True\n")
  file = tmp_path / "mine.gin"
  if where == "beside":
    file = folder / "mine.gin"
  else:
    monkeypatch.chdir(folder)
  file.write_text(f"import {name}\n")
  with parsed([str(file)]):
    assert sys.modules.pop(name).FOUND


def test_gin_is_empty_after_a_configuration_was_read_or_refused():
  resolve("enct5_config.dropout_rate = 0.25", seed=3)
  with pytest.raises(UsageError):
    resolve("enct5_config.dropout_rate = 2")
  run_config, _ = resolve()
  assert run_config.seed == 0
  assert run_config.model(vocab_size=8, num_outputs=2).dropout_rate == 0.1


@pytest.mark.parametrize(
  "value, hint, whether",
  [
    (1, int, True),
    (True, int, False),
    (1.0, int, False),
    (1, float, True),
    ("1", float, False),
    (None, type(None), True),
    (["a"], tuple[str, ...], True),
    ("a", tuple[str, ...], False),
    ("classes", TaskKind, True),
    (1, TaskKind, False),
    (object(), object, True),
  ],
)
def test_a_value_fits_its_annotation_or_not(value, hint, whether):
  assert fits(value, hint) is whether


@pytest.mark.parametrize("method", ["kd", "ft+eda", "kd+knn(k=3)+eda(k=4)"])
def test_the_step_is_told_what_the_configuration_says(
  monkeypatch, data, teacher, method
):
  told = {}

  def train_step(state, teacher_params, lexicon, batch, key, **what):
    told.update(what, teacher_params=teacher_params, lexicon=lexicon)
    return state, {}

  monkeypatch.setattr(step, "train_step", train_step)
  train, test = (flag.split("=", 1)[1] for flag in data)
  run_config, _ = resolve(
    "RunConfig.num_microbatches = 2",
    train=train,
    test=test,
    teacher=str(teacher),
    method=method,
    teacher_dropout=False,
    batch_size=16,
  )
  made = parts.prepare(run_config)
  batch = train_batches(made.train, 16, seed=0)(0)
  its = fit.make_step(made)
  its(0, jnp.zeros(3), batch)
  assert told["optimizer"] is run_config.optimizer
  assert told["student"] is made.student
  assert told["method"] is made.policy.methods[0]
  assert told["num_microbatches"] == 2
  assert told["teacher_dropout"] is False
  assert told["lexicon"].producible.shape == (made.data.vocab.size,)
  lists = its.arguments(None, batch)[2].neighbours
  if method == "kd+knn(k=3)+eda(k=4)":
    table = made.teacher.network.table(made.teacher_params)
    expected = neighbour_lists(table, made.data.vocab.lexicon, 4)
    there = tokens_of(made.train)
    np.testing.assert_array_equal(lists[there], expected[there])
  else:  # None is asked for, or the table is one that learns.
    assert lists is None
  if method.startswith("kd"):
    assert told["teacher"] is made.teacher.network
    assert told["teacher_params"] is not None
  else:  # A teacher that the method does not ask only scores.
    assert told["teacher"] is told["teacher_params"] is None


def test_the_batches_of_a_run_are_those_of_its_seed(
  monkeypatch, data, tmp_path
):
  seen = []

  def train(state, step_fn, batch_at, num_steps, hooks):
    seen.append([batch_at(i).example_id for i in range(3)])
    return state

  monkeypatch.setattr(fit.loop, "train", train)
  file = data[0].split("=", 1)[1]
  for seed in (0, 1):
    given = {"train": file, "method": "ft", "batch_size": 16, "seed": seed}
    made = parts.prepare(resolve(**given)[0])
    run = RunDirectory(tmp_path / str(seed))
    with Store(run.checkpoints) as store:
      fit.fit(fit.training(made), run, store, time.perf_counter())
    batch_at = train_batches(made.train, 16, seed)
    expected = [batch_at(i).example_id for i in range(3)]
    np.testing.assert_array_equal(seen[-1], expected)
  assert np.any(np.array(seen[0]) != seen[1])


# --- as text ---------------------------------------------------------------


def same(one, other):
  """Whether two RunConfigs are equal in what can be compared."""
  left_out = ("model", "optimizer", "recipes")
  for field in dataclasses.fields(config.RunConfig):
    if field.name not in left_out:
      assert getattr(one, field.name) == getattr(other, field.name)
  shapes = (c.model(vocab_size=24, num_outputs=3) for c in (one, other))
  assert next(shapes) == next(shapes)
  assert peak_learning_rate(one) == peak_learning_rate(other)


@pytest.mark.parametrize("run_file", ["runs/finetune.gin", "runs/distill.gin"])
def test_the_written_configuration_gives_the_same_again(tmp_path, run_file):
  one, text = resolve(
    "enct5_config.dropout_rate = 0.25",
    "augpro_fgsm.delta = 2.0",
    "make_optimizer.decay = 'linear'",
    "RunConfig.eval_period = 5",
    "DataConfig.label_names = ('b', 'a|', \"it's\")",
    run_file=run_file,
    **{name: value for name, (value, _) in FLAGS.items()},
  )
  (tmp_path / "config.gin").write_text(text)
  other, again = resolve(
    run_file=run_file, gin_file=[str(tmp_path / "config.gin")]
  )
  same(one, other)
  assert again == text


@pytest.mark.parametrize(
  "task",
  [
    Task(
      "t", TaskKind.CLASSES, ("a", "b's", 'c"', "ü\n%X", "1"), ("accuracy",)
    ),
    Task("t", TaskKind.REGRESSION, (), ("pearson", "mse"), pair=True),
    Task("a/b c", TaskKind.MULTI_LABEL, ("x",), ("micro_f1",)),
  ],
)
def test_what_a_model_needs_to_be_used_survives_its_file(tmp_path, task):
  served = Served(EncT5Config(24, 3, 8, 8, 1, 2, 4, 0.0, "bfloat16"), task, 32)
  path = tmp_path / "student.gin"
  path.write_text(served_text(served), encoding="utf-8")
  assert load_served(path) == served


def test_a_damaged_student_gin_is_explained(tmp_path):
  path = tmp_path / "student.gin"
  with pytest.raises(UsageError, match="Unable to open file"):
    load_served(path)
  path.write_text("Served.max_length = 3\n")
  with pytest.raises(UsageError, match="model"):
    load_served(path)
  path.write_text("Served.max_length = 3 4\n")
  with pytest.raises(UsageError, match="line 1"):
    load_served(path)
  path.write_text("Served.task = @Task()\nTask.kind = 'clases'\n")
  with pytest.raises(UsageError, match="clases"):
    load_served(path)


# --- the files of configs/ -------------------------------------------------

ROOT = pathlib.Path(augdistill.cli.__file__).parents[2]
RUNS = {"runs/finetune.gin": "finetune", "runs/distill.gin": "distill"}


def test_every_file_of_configs_is_found():
  assert len(packaged_files()) > 20
  configs = ROOT / "configs"
  if configs.is_dir():  # a checkout
    found = {p.relative_to(configs).as_posix() for p in configs.rglob("*.gin")}
    of_t5x = {name for name in found if name.startswith("t5x/")}
    assert of_t5x  # tests/t5x_plugin parses them.
    assert found - of_t5x == set(packaged_files())


@pytest.mark.parametrize(
  "name",  # What is in papers/ is read in test_papers.py.
  [name for name in packaged_files() if not name.startswith("papers/")],
)
def test_a_file_of_configs_is_parsed_and_changes_what_it_says(name):
  folder, *_, stem = name.removesuffix(".gin").split("/")
  if folder == "runs":  # pretrain.gin is run in test_pretrain.py
    resolve(run_file="runs/distill.gin", gin_file=[name])
    return
  run_config, _ = resolve(gin_file=[name])
  if folder == "models":
    assert value_of(run_config, "model") == stem
  if folder == "tasks":
    assert run_config.data.task == stem
  if folder == "methods":
    known = {"augpro": {"augpro_mix", "augpro_fgsm"}, "ft": set(), "kd": set()}
    known["best"] = {call.name for call in parse(COMBINATIONS["best"])[1:]}
    called = {call.name for call in parse(run_config.method)[1:]}
    assert called == known.get(stem, {stem})


def test_every_view_term_size_and_task_has_a_file():
  there = set(packaged_files())
  assert {f"methods/{name}.gin" for name in (*RECIPES, *TERMS)} <= there
  assert {f"models/{name}.gin" for name in SIZES} <= there
  glue = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
  assert {f"tasks/{name}.gin" for name in glue} <= there


def test_a_header_says_what_a_file_is_and_gives_its_command():
  for name in packaged_files():
    text = next(ROOT.glob(f"**/configs/{name}")).read_text()
    header = text.split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines()), name
    assert "augdistill " in header or "Included by" in header, name


@pytest.mark.parametrize("name", RUNS)
def test_a_run_file_runs_and_its_written_configuration_runs_the_same(
  tmp_path, files, data, teacher, name
):
  override = tmp_path / "tiny.gin"
  override.write_text(
    "MODEL = 'micro'\nNUM_STEPS = 4\nBATCH_SIZE = 8\nMAX_LENGTH = 16\n"
    "RunConfig.eval_batch_size = 16\nRunConfig.eval_period = 2\n"
    "RunConfig.log_period = 1\n"
    f"TRAIN_FILE = '{files / 'train.tsv'}'\n"
    f"TEST_FILE = '{files / 'test.tsv'}'\n"
  )
  with_teacher = [f"--teacher={teacher}"] if name == "runs/distill.gin" else []
  one, other = tmp_path / "one", tmp_path / "other"
  ok(
    RUNS[name],
    f"--gin_file={name}",
    f"--gin_file={override}",
    *with_teacher,
    f"--output_dir={one}",
  )
  ok(RUNS[name], f"--gin_file={one / 'config.gin'}", f"--output_dir={other}")
  losses = [
    [row["loss"] for row in read_jsonl(path / "metrics.jsonl") if "loss" in row]
    for path in (one, other)
  ]
  assert len(losses[0]) == 4
  assert losses[0] == losses[1]
  assert (one / "config.gin").read_text() == (other / "config.gin").read_text()
