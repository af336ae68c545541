"""The files of configs/papers: every row of the papers' tables."""

import argparse
import importlib.util
import pathlib
import re

import jax
import numpy as np
import pytest

from augdistill.cli import config, fit, parts
from augdistill.cli.bindings import PACKAGE, packaged_files
from augdistill.models.sizes import SIZES
from tests.cli.tiny import examples, write_tsv

CONFIGS = pathlib.Path(importlib.util.find_spec(PACKAGE).origin).parent
MICRO = pathlib.Path(__file__).with_name("micro.gin")
# Files that rows include, by paper: what its rows, its twins and some share.
SHARED = {
  "ad2": {"common", "cpu", "minilm"},
  "augpro": {"common", "cpu", "labeled"},
  "batch_mixup": {"common", "cpu"},
  "fmix": {"common", "cpu"},
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
  assert twin.init_layers == full.init_layers
  assert twin.data.labeled_fraction == full.data.labeled_fraction
  shapes = [c.model(vocab_size=8, num_outputs=2) for c in (twin, full)]
  assert shapes[0].emb_dim <= SIZES["mini"][0] < shapes[1].emb_dim
  assert twin.num_steps <= (2000 if "long" in name else 1200)
  assert (twin.data.task, twin.data.max_length) == ("helpdesk", 32)


# --- what the papers say -----------------------------------------------------


def of(run_config, view):
  return run_config.recipes[view].make.keywords


@pytest.mark.parametrize(
  "name", [n for n in ROWS if n.startswith("papers/augpro/")]
)
def test_augpro_is_at_the_papers_scale(name):
  run_config, text = resolve(name)
  teacher = stem(name).endswith("teacher")
  shape = run_config.model(vocab_size=8, num_outputs=2)
  assert shape.num_layers == (24 if teacher else 8)
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
  layers = {"table1_teacher": 12, "table5_teacher": 24}
  layers |= {"table2_minilm": 12, "table2_ad2": 12}
  here = layers.get(stem(name), 3 if "table4" in name else 6)
  shape = run_config.model(vocab_size=8, num_outputs=2)
  assert shape.num_layers == here
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
  rewrites = [(text, f"{text} please") for text, _ in examples(60)]
  path = tmp_path_factory.mktemp("rewrites") / "rewrites.tsv"
  write_tsv(path, rewrites, ("sentence", "rewrite"))
  teacher = str(teacher)
  return {"train": train, "test": test, "teacher": teacher, "rewrites": path}


def take_two_steps(name, given):
  """Two steps at micro size on tiny data; returns the losses."""
  given = {flag: str(value) for flag, value in given.items()}
  run_config, _ = resolve(name, MICRO, **given)
  made = parts.prepare(run_config)
  what = fit.training(made)
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


# A row with deep terms and an inherited student, and one with labels for some;
# what each part does is tested where it lives, and every row below.
SAMPLE = ("papers/ad2/table1_ad2.gin", "papers/augpro/table2_augpro.gin")


@pytest.mark.parametrize("name", SAMPLE)
def test_a_row_of_a_paper_takes_steps(name, given):
  assert np.isfinite(take_two_steps(name, given)).all()


def distinct():
  """A row of every method and kind of start."""
  found = {}
  for name in ROWS:
    run_config, _ = resolve(name)
    found.setdefault((run_config.method, run_config.init_layers), name)
  return sorted(found.values())


@pytest.mark.slow
def test_every_method_of_a_paper_takes_steps(given):
  for name in distinct():
    losses = take_two_steps(name, given)
    assert np.isfinite(losses).all(), (name, losses)
