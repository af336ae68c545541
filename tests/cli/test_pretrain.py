"""A masked language model on a tiny task, and what its runs share."""

import argparse
import ast
import json
import random
import shutil
import signal

import numpy as np
import pytest

from augdistill.cli import flags, pretrain, pretraining
from augdistill.cli.pretrained import Pretrained
from augdistill.data.load import DataConfig, load_data
from augdistill.errors import UsageError
from tests.cli.test_restart import kill_when, last_step, saved
from tests.cli.tiny import (
  TINY,
  TINY_PRETRAIN,
  examples,
  ok,
  params,
  read_jsonl,
  results,
  run,
  same_bits,
  snapshot,
  start,
  untimed,
  write_tsv,
)

METRICS = ["masked_accuracy", "masked_loss", "perplexity"]


def resolve(*bindings, **given):
  given = {"gin_file": [], "gin_search_paths": ""} | given
  return pretraining.resolve(
    argparse.Namespace(gin_bindings=list(bindings), **given)
  )


# --- what a run leaves -------------------------------------------------------


def test_a_run_leaves_the_files_of_every_run_but_predictions_and_a_card(
  pretrained, teacher
):
  tops = {path.name for path in pretrained.iterdir()}
  others = {"predictions", "MODEL_CARD.md"}
  assert tops == {path.name for path in teacher.iterdir()} - others
  assert set(results(pretrained)) == set(results(teacher))


def test_results_are_scores_of_hidden_tokens(pretrained):
  found = results(pretrained)
  assert found["method"] == "masked_lm"
  assert set(found["metrics"]) == {"validation", "test"}
  for values in found["metrics"].values():
    assert list(values) == METRICS
    assert 0 <= values["masked_accuracy"] <= 1
    assert values["perplexity"] == pytest.approx(
      np.exp(values["masked_loss"]), rel=1e-6
    )
  assert found["num_params"]["teacher"] is None
  assert found["agreement"] is None
  assert (found["num_steps"], found["seed"]) == (4, 0)


def test_metrics_of_every_step_and_score_are_written(pretrained):
  rows = read_jsonl(pretrained / "metrics.jsonl")
  trained = [row for row in rows if "loss" in row]
  assert [row["step"] for row in trained] == [1, 2, 3, 4]
  wanted = {"gradient_norm", "masked", "masked_accuracy"}
  assert all(wanted <= set(row) for row in trained)
  assert all(0.1 < row["masked"] < 0.4 for row in trained)
  scored = [row for row in rows if "validation/masked_accuracy" in row]
  assert [row["step"] for row in scored] == [2, 4]
  assert {f"validation/{name}" for name in METRICS} <= set(scored[0])
  best = results(pretrained)["best_step"]
  (row,) = (row for row in scored if row["step"] == best)
  metrics = results(pretrained)["metrics"]["validation"]
  assert row["validation/masked_accuracy"] == metrics["masked_accuracy"]


def test_it_is_read_back_as_it_was_saved(pretrained):
  found = Pretrained.load(str(pretrained))
  assert found.served.max_length == 16
  assert found.served.model.emb_dim == 64
  best = results(pretrained)["best_step"]
  assert same_bits(found.params, params(pretrained, best))
  assert found.params["token_embedder"]["embedding"].shape == (
    found.vocab.size,
    64,
  )


def test_the_last_screen_says_what_to_run_next(data, pretrained):
  before = snapshot(pretrained)
  done = ok("pretrain", *data, *TINY_PRETRAIN, f"--output_dir={pretrained}")
  assert f"{pretrained} is finished already" in done.out
  assert "validation masked_accuracy" in done.out
  assert f"augdistill rewrite --generator {pretrained}" in done.out
  assert snapshot(pretrained) == before
  table = ok("table", pretrained).out
  assert "masked_lm" in table


def test_its_written_configuration_runs_the_same(tmp_path, pretrained):
  other = tmp_path / "other"
  gin = f"--gin_file={pretrained / 'config.gin'}"
  ok("pretrain", gin, f"--output_dir={other}")
  assert untimed(other) == untimed(pretrained)
  assert same_bits(params(other), params(pretrained))
  texts = [(path / "config.gin").read_text() for path in (pretrained, other)]
  assert texts[0] == texts[1]


# --- its data ----------------------------------------------------------------


def test_it_learns_nothing_from_rows_that_finetune_validates_on(data):
  train = data[0].split("=", 1)[1]
  config = DataConfig(train=train, max_length=16)
  ours, theirs = pretraining.load_texts(config), load_data(config)
  assert ours.validation.fingerprint == theirs.validation.fingerprint
  assert ours.train.fingerprint == theirs.train.fingerprint
  assert ours.vocab.fingerprint == theirs.vocab.fingerprint


def test_unlabelled_texts_are_added_to_labelled_ones(tmp_path, data):
  texts = write_tsv(
    tmp_path / "texts.tsv", [[t] for t, _ in examples(30)], ["sentence"]
  )
  train = data[0].split("=", 1)[1]
  found = pretraining.load_texts(
    DataConfig(train=train, unlabeled=str(texts), max_length=16)
  )
  assert len(found.train) == 54 + 30
  assert len(set(found.train.example_id)) == 84
  assert len(found.validation) == 6
  assert found.unlabeled is None


def test_unlabelled_texts_are_enough(tmp_path, files):
  texts = write_tsv(
    tmp_path / "texts.tsv", [[t] for t, _ in examples(60)], ["sentence"]
  )
  output = tmp_path / "run"
  ok(
    *("pretrain", f"--unlabeled={texts}", *TINY_PRETRAIN),
    f"--output_dir={output}",
  )
  assert set(results(output)["metrics"]) == {"validation"}
  provenance = json.loads((output / "provenance.json").read_text())
  assert set(provenance["data_fingerprints"]) == {"train", "validation"}
  assert provenance["label_names"] == []


def test_pairs_are_learnt_from_together(tmp_path):
  rows = [[*t.split(" ", 1), label] for t, label in examples(60)]
  header = ("sentence1", "sentence2", "label")
  pairs = write_tsv(tmp_path / "pairs.tsv", rows, header)
  output = tmp_path / "run"
  ok("pretrain", f"--train={pairs}", *TINY_PRETRAIN, f"--output_dir={output}")
  assert list(results(output)["metrics"]["validation"]) == METRICS


# --- its configuration -------------------------------------------------------


def test_every_flag_is_a_macro_and_the_defaults_are_those_of_the_help():
  parser = argparse.ArgumentParser()
  pretrain.add_arguments(parser)
  given = {action.dest: action.help for action in parser._actions}
  others = {"help", "output_dir", "gin_file", "gin_search_paths", "wandb"}
  others |= {"distributed", "coordinator", "num_processes", "process_id"}
  assert set(given) - others <= set(flags.MACROS)
  _, text = resolve()
  macros = dict(
    line.split(" = ") for line in text.splitlines() if " = " in line
  )
  for flag in ("model", "num_steps", "batch_size", "seed", "max_length"):
    value = ast.literal_eval(macros[flags.MACROS[flag]])
    assert f"default: {value}" in given[flag]
  assert (
    f"(default: {float(macros['LEARNING_RATE'])})" in given["learning_rate"]
  )


def test_flags_and_bindings_arrive_where_they_must():
  config, text = resolve(
    "mask_tokens.rate = 0.3",
    "PretrainConfig.log_period = 7",
    model="small",
    num_steps=9,
    batch_size=24,
    seed=3,
    unlabeled="u.tsv",
  )
  assert config.model(vocab_size=8, num_outputs=1).emb_dim == 512
  assert (config.num_steps, config.batch_size, config.seed) == (9, 24, 3)
  assert (config.data.unlabeled, config.data.seed) == ("u.tsv", 3)
  assert config.log_period == 7
  assert "mask_tokens.rate = 0.3" in text


def test_the_seed_is_that_of_masks_and_parameters(tmp_path, data, pretrained):
  path = tmp_path / "run"
  ok("pretrain", *data, *TINY_PRETRAIN, "--seed=1", f"--output_dir={path}")
  assert not same_bits(params(path), params(pretrained))


# --- restarts ----------------------------------------------------------------


def test_asked_to_stop_a_run_saves_and_goes_on_bit_for_bit(
  tmp_path, monkeypatch, data, pretrained
):
  path, make_step = tmp_path / "run", pretraining.make_step

  def made(parts):
    take_step = make_step(parts)

    def stepping(number, state, batch):
      if number == 2:
        signal.raise_signal(signal.SIGTERM)
      return take_step(number, state, batch)

    return stepping

  flags = *data, *TINY_PRETRAIN, f"--output_dir={path}"
  with monkeypatch.context() as patch:
    patch.setattr(pretraining, "make_step", made)
    assert run("pretrain", *flags).code == 75
  assert (path / "checkpoints" / "3").is_dir()
  assert f"resuming {path} at step 3" in ok("pretrain", *flags).out
  assert same_bits(params(path, 4), params(pretrained, 4))
  assert untimed(path) == untimed(pretrained)


@pytest.mark.slow
def test_killed_at_a_random_moment_and_resumed_it_ends_bit_for_bit_the_same(
  tmp_path, data
):
  steps, path, whole = 40, tmp_path / "run", tmp_path / "whole"
  flags = (
    *("pretrain", *data, *TINY_PRETRAIN, f"--num_steps={steps}"),
    "--gin.PretrainConfig.eval_period=5",
  )
  moment = random.randint(6, steps - 10)
  process = start(*flags, f"--output_dir={path}")
  assert kill_when(
    process, lambda: last_step(path) >= moment and saved(path / "checkpoints")
  )
  for output, said in ((path, "resuming"), (whole, "")):
    process = start(*flags, f"--output_dir={output}")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert said in out, moment
  assert same_bits(params(path, steps), params(whole, steps))
  assert untimed(path) == untimed(whole)


# --- what is wrong -----------------------------------------------------------

WRONG = {
  "no_texts": ("", ["--task NAME, --train FILE or --unlabeled FILE"]),
  "missing": ("--unlabeled=no.tsv", ["no.tsv does not exist"]),
  "labels": ("--train=texts.tsv", ["'label'", "--label_column"]),
  "batch": (
    "--unlabeled=texts.tsv --batch_size=13",
    ["multiple of 1 microbatches x 2 devices, got 13"],
  ),
  "steps": ("--unlabeled=texts.tsv --num_steps=0", ["num_steps"]),
  "rate": (
    "--unlabeled=texts.tsv --gin.mask_tokens.rate=0",
    ["masking rate must be in (0, 1], got 0"],
  ),
  "parameter": (
    "--unlabeled=texts.tsv --gin.PretrainConfig.method='ft'",
    ["doesn't have a parameter named 'method'"],
  ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_bad_command_is_refused_in_one_line(tmp_path, monkeypatch, case):
  monkeypatch.chdir(tmp_path)
  write_tsv(tmp_path / "texts.tsv", [[t] for t, _ in examples(9)], ["sentence"])
  line, said = WRONG[case]
  given = {word.split("=")[0] for word in line.split()}
  tiny = [w for w in TINY_PRETRAIN if w.split("=")[0] not in given]
  done = run("pretrain", *tiny, *line.split(), "--output_dir=run")
  assert done.code == 2, done.err
  assert done.err.startswith("augdistill: error: ")
  assert done.err.count("\n") == 1
  assert all(words in done.err for words in said), done.err
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "line",
  [
    "evaluate --run={run} --data={train}",
    "predict --run={run} --input={train}",
    "distill --teacher={run} --train={train} --output_dir={new}",
  ],
)
def test_it_is_not_taken_for_a_model_of_a_task(
  tmp_path, files, pretrained, line
):
  places = {"run": pretrained, "train": files / "train.tsv"}
  words = line.format(**places, new=tmp_path / "new").split()
  done = run(*words, *(TINY if words[0] == "distill" else ()))
  assert done.code == 2
  assert f"{pretrained} must hold a run of augdistill finetune" in done.err
  assert "holds one of pretrain" in done.err


def test_a_damaged_run_is_explained(tmp_path, pretrained):
  copy = tmp_path / "copy"
  shutil.copytree(pretrained, copy)
  (copy / "student.gin").write_text("ServedMaskedLM.max_length = \n")
  with pytest.raises(UsageError, match="gin"):
    Pretrained.load(str(copy))
