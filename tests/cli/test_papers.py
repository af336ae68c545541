"""The files of configs/papers: every row of the papers' tables.

What the hub of Hugging Face has is here a tiny model of the same name.
"""

import argparse
import functools
import importlib.util
import math
import pathlib
import re

import huggingface_hub
import jax
import numpy as np
import pytest

from augdistill.cli import config, fit, parts
from augdistill.cli.bindings import PACKAGE, packaged_files
from augdistill.models.bert_config import BertConfig
from augdistill.models.enct5 import EncT5Config
from augdistill.models.sizes import SIZES
from tests.cli.hub import MODELS, write_model
from tests.cli.tiny import examples, write_tsv

CONFIGS = pathlib.Path(importlib.util.find_spec(PACKAGE).origin).parent
MICRO = pathlib.Path(__file__).with_name("micro.gin")
# Files that rows include, by paper: what its rows, its twins and some share.
SHARED = {
  "ad2": {"common", "cpu"},
  "augpro": {"common", "cpu", "labeled"},
  "batch_mixup": {"common", "cpu"},
  "fmix": {"bert", "common", "cpu"},
  "mmel": {"common", "cpu"},
}
NAMES = {
  "ad2": "AD²",
  "augpro": "AugPro",
  "batch_mixup": "BatchMixUp",
  "fmix": "FMix",
  "mmel": "MMEL",
}
PAPERS = [name for name in packaged_files() if name.startswith("papers/")]


def stem(name):
  return name.split("/")[-1].removesuffix(".gin")


def is_shared(name):
  return stem(name) in SHARED[name.split("/")[1]]


@pytest.fixture(scope="module", autouse=True)
def hub(tmp_path_factory, teacher):
  """Writes the model called so, once, in place of the hub; returns where."""
  root = tmp_path_factory.mktemp("hub")
  spiece = teacher / "vocab" / "vocab.spm"

  @functools.cache
  def folder(name):
    return write_model(name, root / name, spiece)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      huggingface_hub,
      "snapshot_download",
      lambda name, allow_patterns: str(folder(name)),
    )
    yield folder


TWINS = [name for name in PAPERS if name.endswith("_cpu.gin")]
ROWS = [name for name in PAPERS if name not in TWINS and not is_shared(name)]


def resolve(*files, bindings=(), **given):
  given |= {"gin_file": [str(file) for file in files], "gin_search_paths": ""}
  args = argparse.Namespace(gin_bindings=list(bindings), **given)
  return config.resolve("runs/distill.gin", args)


def header(name):
  text = (CONFIGS / name).read_text(encoding="utf-8")
  lines = text.split("\n\n")[0].splitlines()
  return " ".join(line.lstrip("# ") for line in lines)


# --- what there is -----------------------------------------------------------

# Rows per table and figure, those left out that another table has already.
COUNTS = {
  "ad2": {
    "table1": 5,  # BERT, Fine-tune, Vanilla KD, BERT-PKD, AD²
    "table2": 2,
    "table3": 2,  # AD² and -AD are table 1's
    "table4": 4,
    "table5": 3,  # its teacher; BERT12 + KD is table 1's
    "figure2": 1,  # AD² is table 1's
  },
  "augpro": {
    "table1": 12,
    "table2": 8,  # its teacher and 7 columns
    "table4": 3,  # 35 is table 2's
    "table5": 3,
    "table6": 7,  # 2 of 9 are table 1's
    "table7": 1,  # the others are table 1's
    "table8": 7,  # 2 of 9 are table 2's
    "figure3": 7,  # figure 5 is its other validation rows
  },
  "batch_mixup": {"table1": 4},
  "fmix": {"table5": 3, "section5": 1},
  # Figure 2 is table 3's runs; table 6 has MMEL-H and -S in one file, and one
  # of its 8 settings is table 3's; table 7 is common.gin.
  "mmel": {"table3": 6, "table4": 2, "table6": 7},
}


@pytest.mark.parametrize("paper", COUNTS)
def test_every_row_of_a_table_has_a_file(paper):
  rows = [stem(n).split("_")[0] for n in ROWS if n.split("/")[1] == paper]
  assert {table: rows.count(table) for table in set(rows)} == COUNTS[paper]


def test_every_row_has_a_twin_for_cpus():
  assert {n.replace(".gin", "_cpu.gin") for n in ROWS} == set(TWINS)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_where_it_stands_what_it_gave_and_how_to_run_it(name):
  _, paper, _ = name.split("/")
  text = header(name)
  table, number = re.match(r"([a-z]+)(\d+)", stem(name)).groups()
  where = rf"{NAMES[paper]}, {table}s? {number}( and \d+)?[,:]"
  assert re.match(where, text)
  assert f"--gin_file {name} " in text
  assert "--output_dir" in text
  assert "The paper" in text


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_is_the_method_of_its_row_at_a_size_for_cpus(name):
  row = name.replace("_cpu", "")
  assert header(name).startswith(f"{stem(row)}.gin at a size for CPUs")
  assert f"--gin_file {name} " in header(name)
  (twin, _), (full, _) = resolve(name), resolve(row)
  assert twin.method == full.method
  # A student that has a model of its own begins, small, as its teacher.
  assert full.init_layers in (None, twin.init_layers)
  assert twin.data.labeled_fraction == full.data.labeled_fraction
  shapes = [c.model(vocab_size=8, num_outputs=2) for c in (twin, full)]
  assert isinstance(shapes[0], EncT5Config) and twin.init is None
  assert shapes[0].emb_dim <= SIZES["mini"][0]
  assert full.init or shapes[1].emb_dim > SIZES["mini"][0]
  assert twin.num_steps <= (2000 if "long" in name else 1200)
  assert (twin.data.task, twin.data.max_length) == ("helpdesk", 32)


# --- what the papers say -----------------------------------------------------


# What the rows of a paper begin with, and those of another size.
BEGINNINGS = {
  "ad2": "distilbert/distilbert-base-uncased",
  "ad2/table1_teacher": "google-bert/bert-base-uncased",
  "ad2/table2_ad2": "microsoft/MiniLM-L12-H384-uncased",
  "ad2/table2_minilm": "microsoft/MiniLM-L12-H384-uncased",
  "ad2/table5_teacher": "google-bert/bert-large-uncased",
  "augpro": "google/t5-v1_1-small",
  "augpro/table1_teacher": "google/t5-v1_1-large",
  "augpro/table2_teacher": "google/t5-v1_1-large",
  "batch_mixup": "FacebookAI/roberta-large",
  "fmix": None,
  "mmel": "google-bert/bert-base-uncased",
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_begins_with_the_papers_model(name):
  paper, row = name.split("/")[1], name.removeprefix("papers/")[:-4]
  model = BEGINNINGS.get(row, BEGINNINGS[paper])
  run_config, _ = resolve(name)
  assert run_config.init == (model and f"hf://{model}")
  if model:
    _, there, _, width = MODELS[model]
    shape = run_config.model(vocab_size=8, num_outputs=2)
    some = row.startswith("ad2/table4_")
    assert (shape.num_layers, shape.emb_dim) == (3 if some else there, width)
    which = row.split("_")[1] if some else None
    assert run_config.init_layers == which


def test_a_flag_gives_a_row_another_model():
  shape = {"vocab_size": 8, "num_outputs": 2}
  row = "papers/mmel/table3_baseline.gin"
  mini = resolve(row, bindings=["INIT = None"], model="mini")[0].model(**shape)
  assert isinstance(mini, EncT5Config) and mini.num_layers == SIZES["mini"][2]
  distil = f"hf://{BEGINNINGS['ad2']}"
  for name in (row, row.replace(".gin", "_cpu.gin")):
    run_config, _ = resolve(name, init=distil)
    assert run_config.init == distil
    assert run_config.model(**shape).num_segments == 0  # DistilBERT's


def test_fmix_is_tried_with_bert_too():
  for row in ("table5_baseline", "table5_fmix"):
    run_config, text = resolve(f"papers/fmix/{row}.gin", "papers/fmix/bert.gin")
    assert run_config.init == "hf://google-bert/bert-base-uncased"
    assert run_config.batch_size == 32
    assert run_config.num_steps == math.ceil(5 * 159_571 / 32)
    assert of(run_config, "fmix") == {"alpha": 0.1, "decay": 3.0}
    assert "LEARNING_RATE = 1e-05" in text


def of(run_config, view):
  return run_config.recipes[view].make.keywords


@pytest.mark.parametrize(
  "name", [n for n in ROWS if n.startswith("papers/augpro/")]
)
def test_augpro_is_at_the_papers_scale(name):
  run_config, text = resolve(name)
  shape = run_config.model(vocab_size=8, num_outputs=2)
  assert shape.dropout_rate == 0.1
  assert run_config.teacher_dropout
  assert run_config.num_steps == 600_000
  assert run_config.batch_size == 512
  assert run_config.data.max_length == 128
  assert "LEARNING_RATE = 0.001" in text
  delta = re.search(r"delta(\d+)", name)
  delta = float(delta[1]) if delta else 35.0
  assert of(run_config, "augpro_fgsm") == {"delta": delta, "relative": False}
  few_labels = re.search("table[248]", name)
  assert run_config.data.labeled_fraction == (0.1 if few_labels else None)
  shares = {"table5": 0.2, "figure3": 0.1}
  share = shares.get(stem(name).split("_")[0])
  assert run_config.data.train_fraction == share


def test_augpros_signs_are_those_of_the_rows():
  for table in ("table6", "table8"):
    for letter in ("descent", "random"):
      for views in ("augpro_fgsm", "augpro", "mixup_augpro_fgsm"):
        name = f"papers/augpro/{table}_{views}_{letter}.gin"
        method = resolve(name)[0].method
        assert f"augpro_fgsm(direction={letter})" in method
        assert ("+mixup" in method) == ("mixup" in views)
        assert ("+augpro_mix" in method) == (views == "augpro")


@pytest.mark.parametrize(
  "name", [n for n in ROWS if n.startswith("papers/ad2/")]
)
def test_ad2_is_at_the_papers_scale(name):
  run_config, text = resolve(name)
  assert run_config.batch_size == 32
  assert run_config.data.max_length == 512
  for line in ("decay = 'linear'", "warmup_fraction = 0.1", "clip_norm = 1.0"):
    assert f"make_optimizer.{line}" in text
  assert of(run_config, "ad2") == {
    "steps": 1,
    "epsilon": 1e-5,
    "step_size": 1e-3,
    "relative": False,
  }


def test_fmix_is_at_the_papers_scale():
  for name in ROWS:
    if name.startswith("papers/fmix/"):
      run_config, text = resolve(name)
      assert of(run_config, "fmix") == {"alpha": 1.0, "decay": 3.0}
      assert of(run_config, "mixup") == {"alpha": 1.0}
      assert run_config.batch_size == 64
      assert "LEARNING_RATE = 0.001" in text


@pytest.mark.parametrize(
  "name", [n for n in ROWS if n.startswith("papers/mmel/")]
)
def test_mmel_is_at_the_papers_scale(name):
  run_config, text = resolve(name)
  assert run_config.batch_size == 32
  assert run_config.num_steps == (3890 if "long" in name else 778)
  for line in ("decay = 'linear'", "warmup_fraction = 0.0"):
    assert f"make_optimizer.{line}" in text
  assert "make_optimizer.weight_decay = 0.0" in text
  assert "LEARNING_RATE = 3e-05" in text
  rewriting = run_config.rewriting
  assert rewriting.copies == 4
  how = stem(name) if "table6" in name else "table3_greedy_separate_40"
  _, search, pairs, percent = how.split("_")
  assert (rewriting.search, rewriting.pairs) == (search, pairs)
  assert round(100 * rewriting.rate) == int(percent)


def test_mmels_longer_training_is_five_times_as_long():
  for twin in ("", "_cpu"):
    long, short = (
      resolve(f"papers/mmel/table3_{name}{twin}.gin")[0].num_steps
      for name in ("da_long", "da_uni")
    )
    assert long == 5 * short


# --- what they do ------------------------------------------------------------


@pytest.mark.parametrize("name", PAPERS)
def test_what_a_file_gives_is_written_and_read_back(name, tmp_path):
  _, text = resolve(name)
  written = tmp_path / "config.gin"
  written.write_text(text, encoding="utf-8")
  assert resolve(written)[1] == text


@pytest.fixture(scope="module")
def given(tmp_path_factory, data, teacher):
  """What a row is told on the command line, by flag."""
  train, test = (flag.split("=", 1)[1] for flag in data)
  folder = tmp_path_factory.mktemp("given")
  rewrites = [(text, f"{text} please") for text, _ in examples(60)]
  path = folder / "rewrites.tsv"
  write_tsv(path, rewrites, ("sentence", "rewrite"))
  base, large = (
    write_model(f"google-bert/bert-{size}-uncased", folder / size, None, True)
    for size in ("base", "large")
  )

  def flags(name):
    found = {"train": train, "test": test, "rewrites": path}
    if resolve(name)[0].method.startswith("kd"):
      bert = large if "ad2/table5" in name else base
      found["teacher"] = teacher if "augpro/" in name else bert
    return {flag: str(value) for flag, value in found.items()}

  return flags


def prepared(name, given):
  """The parts of a row's run at micro size on tiny data."""
  return parts.prepare(resolve(name, MICRO, **given(name))[0])


def take_two_steps(name, given):
  """Two steps at micro size on tiny data; returns the losses."""
  what = fit.training(prepared(name, given))
  state = what.initial_state()
  before = jax.tree.map(np.array, state.params)  # Its own is given away.
  step, losses = what.make_step(), []
  for number in range(2):
    with jax.numpy_dtype_promotion("standard"):  # optax's adamw needs it
      state, metrics = step(number, state, what.batch_at(number))
    total, weight = metrics["loss"]
    losses.append(float(total) / float(weight))
  after = jax.tree.map(np.asarray, state.params)
  pairs = list(zip(*map(jax.tree.leaves, (before, after)), strict=True))
  assert all(np.isfinite(new).all() for _, new in pairs)
  assert any((old != new).any() for old, new in pairs)
  return losses


# Some layers of another model, and a row with labels for some; what each part
# does is tested where it lives, and every row below.
SAMPLE = ("papers/ad2/table4_top.gin", "papers/augpro/table2_augpro.gin")


@pytest.mark.parametrize("name", SAMPLE)
def test_a_row_of_a_paper_takes_steps(name, given):
  assert np.isfinite(take_two_steps(name, given)).all()


@pytest.mark.parametrize("row", ["table1", "table2", "table4_bottom", "table5"])
def test_a_student_of_berts_fits_its_teacher_and_its_method(row, given):
  # A step is traced, and not run.
  made = prepared(f"papers/ad2/{row}_ad2.gin", given)
  assert not made.apart
  assert isinstance(made.served.model, BertConfig)


def distinct():
  """A row of every method and beginning."""
  found = {}
  for name in ROWS:
    run_config, _ = resolve(name)
    start = run_config.init, run_config.init_layers
    found.setdefault((run_config.method, *start), name)
  return sorted(found.values())


@pytest.mark.slow
def test_every_method_of_a_paper_takes_steps(given):
  for name in distinct():
    losses = take_two_steps(name, given)
    assert np.isfinite(losses).all(), (name, losses)
