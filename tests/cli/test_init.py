"""Models that begin with a pretrained encoder."""

import argparse
import json
import shutil

import jax
import pytest

from augdistill.cli import config, fit, parts
from augdistill.cli.trained import Trained
from augdistill.data.vocabulary import load_vocab, train_vocab
from tests.cli.tiny import (
  TINY,
  TINY_PRETRAIN,
  examples,
  ok,
  params,
  results,
  run,
  same_bits,
  untimed,
  write_tsv,
)

SHARED = ("token_embedder", "encoder")


def prepared(run_file, **given):
  args = argparse.Namespace(
    gin_file=[], gin_search_paths="", gin_bindings=[], **given
  )
  return parts.prepare(config.resolve(run_file, args)[0])


def first_params(run_file, **given):
  made = prepared(run_file, **given)
  with jax.numpy_dtype_promotion("standard"):
    return jax.device_get(fit.first_state(made).params)


@pytest.fixture(scope="module")
def begun(files, data, pretrained):
  """A fine-tuned model that began with the pretrained one."""
  flags = (
    *data,
    *TINY,
    f"--init={pretrained}/",
    f"--output_dir={files / 'begun'}",
  )
  return files / "begun", ok("finetune", *flags), flags


def test_a_model_begins_with_the_pretrained_encoder_and_a_head_of_its_own(
  files, pretrained
):
  given = {
    "train": str(files / "train.tsv"),
    "model": "micro",
    "max_length": 16,
  }
  plain = first_params("runs/finetune.gin", **given)
  begun = first_params("runs/finetune.gin", init=str(pretrained), **given)
  source = params(pretrained, results(pretrained)["best_step"])
  for name in SHARED:
    assert same_bits(begun[name], source[name])
    assert not same_bits(begun[name], plain[name])
  rest = [name for name in plain if name not in SHARED]
  assert rest == ["decoder", "head"]
  for name in rest:
    assert same_bits(begun[name], plain[name])


def test_it_is_said_what_is_old_and_what_is_new(begun, pretrained, teacher):
  path, done, _ = begun
  (line,) = (x for x in done.out.splitlines() if x.startswith("beginning"))
  sizes = {
    name: sum(leaf.size for leaf in jax.tree.leaves(part))
    for name, part in params(path).items()
  }
  old, new = line.split("; new: ")
  assert old.startswith(f"beginning with {pretrained}: ")
  for text, names in ((old, SHARED), (new, ("decoder", "head"))):
    for name in names:
      assert f"{name} ({sizes[name]:,})" in text
  assert not same_bits(params(path), params(teacher))
  assert f"INIT = '{pretrained}'" in (path / "config.gin").read_text()


def test_resumed_it_ends_bit_for_bit_the_same(tmp_path, begun):
  path, _, flags = begun
  copy = tmp_path / "copy"
  shutil.copytree(path, copy)
  shutil.rmtree(copy / "checkpoints" / "4")
  (copy / "results.json").unlink()
  done = ok("finetune", *flags, f"--output_dir={copy}")
  assert f"resuming {copy} at step 2" in done.out
  assert same_bits(params(copy, 4), params(path, 4))
  assert untimed(copy) == untimed(path)


@pytest.mark.slow
def test_a_student_begins_so_too_with_projections_and_all(
  tmp_path, data, teacher, pretrained
):
  flags = f"--teacher={teacher}", f"--init={pretrained}"
  output = tmp_path / "run"
  ok(
    *("distill", *data, *TINY, *flags, "--method=kd+hidden_mse"),
    f"--output_dir={output}",
  )
  assert results(output)["agreement"] is not None


def test_texts_are_read_with_the_vocabulary_that_it_was_pretrained_with(
  tmp_path, pretrained
):
  other = [(f"{text} indeed", label) for text, label in examples(60)]
  train = write_tsv(tmp_path / "train.tsv", other)
  output = tmp_path / "run"
  flags = f"--train={train}", f"--init={pretrained}", f"--output_dir={output}"
  ok("finetune", *flags, *TINY)
  one, two = (
    load_vocab(path / "vocab" / "vocab.spm") for path in (output, pretrained)
  )
  assert one.fingerprint == two.fingerprint


@pytest.mark.slow
def test_a_teacher_of_ones_own_reads_with_it_too(tmp_path, pretrained):
  other = [(f"{text} indeed", label) for text, label in examples(60)]
  train = write_tsv(tmp_path / "train.tsv", other)
  output = tmp_path / "run"
  ok(
    *("distill", f"--train={train}", *TINY, "--method=kd"),
    *("--teacher_model=micro", "--teacher_num_steps=4"),
    *(f"--init={pretrained}", f"--output_dir={output}"),
  )
  teacher = Trained.load(str(output / "teacher"))
  want = load_vocab(pretrained / "vocab" / "vocab.spm").fingerprint
  assert teacher.vocab.fingerprint == want
  provenance = json.loads((output / "provenance.json").read_text())
  assert "label_names" in provenance
  # The teacher itself began at random.
  assert "INIT = None" in (output / "teacher" / "config.gin").read_text()


def test_a_student_with_its_teachers_layers_shares_no_memory_with_it(
  files, teacher
):
  # Its own is given away at every step, and would be the teacher's.
  made = prepared(
    "runs/distill.gin",
    train=str(files / "train.tsv"),
    teacher=str(teacher),
    init_layers="bottom",
    batch_size=8,
    method="kd",
  )
  theirs = made.teacher.params
  placed = parts.place_params(made.teacher.network, theirs, made.mesh)
  mine = fit.first_state(made).params
  assert same_bits(mine, jax.device_get(placed))
  assert not memory(mine) & (memory(theirs) | memory(placed))


def memory(tree):
  """Where in memory the arrays of a tree lie."""
  shards = [s for x in jax.tree.leaves(tree) for s in x.addressable_shards]
  return {shard.data.unsafe_buffer_pointer() for shard in shards}


# --- what is wrong -----------------------------------------------------------

WRONG = {
  "nowhere": ("--init=nowhere", ["nowhere", "must exist"]),
  "no_language_model": (
    "--init={teacher}",
    ["must hold a run of augdistill pretrain"],
  ),
  "another_size": (
    "--init={pretrained} --model=mini",
    ["{pretrained} must be of the same size", "[64] there", "[192] here"],
  ),
  "another_vocabulary": (
    "--init={pretrained} --vocab={vocab}",
    ["--vocab must be that of --init", "{vocab}", "pretrain with --vocab"],
  ),
  "layers_too": (
    "--init={pretrained} --gin.INIT_LAYERS='bottom'",
    ["--init DIR or with --init_layers", "not with both"],
  ),
}


@pytest.fixture
def places(tmp_path, teacher, pretrained):
  vocab = tmp_path / "other.spm"
  vocab.write_bytes(train_vocab(["another text"] * 9).model_bytes)
  return {"teacher": teacher, "pretrained": pretrained, "vocab": vocab}


@pytest.mark.parametrize("case", WRONG)
def test_a_bad_beginning_is_refused_in_one_line(tmp_path, data, places, case):
  line, said = WRONG[case]
  words = line.format(**places).split()
  given = {word.split("=")[0] for word in words}
  tiny = [w for w in TINY if w.split("=")[0] not in given]
  output = tmp_path / "run"
  done = run("finetune", *data, *tiny, *words, f"--output_dir={output}")
  assert done.code == 2, done.err
  assert done.err.count("\n") == 1
  for word in said:
    assert word.format(**places) in done.err, done.err
  assert not output.exists()


def test_teacher_and_pretrained_model_must_read_alike(
  tmp_path, data, teacher, places
):
  pretrained = tmp_path / "pretrained"
  ok(
    *("pretrain", *data, *TINY_PRETRAIN, f"--vocab={places['vocab']}"),
    f"--output_dir={pretrained}",
  )
  output = tmp_path / "run"
  done = run(
    *("distill", *data, *TINY, f"--teacher={teacher}"),
    *(f"--init={pretrained}", f"--output_dir={output}"),
  )
  assert done.code == 2
  assert "the teacher's vocabulary must be that of --init" in done.err
  assert f"pretrain with --vocab {teacher}/vocab/vocab.spm" in done.err
  assert not output.exists()
