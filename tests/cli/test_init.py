"""Models that begin with a pretrained encoder."""

import argparse
import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from augdistill.cli import config, fit, parts
from augdistill.cli.trained import Trained
from augdistill.data.sentence_pieces import train_vocab
from augdistill.data.vocabulary import load_vocab
from tests.checkpoints.test_t5x_checkpoint import write as write_t5x
from tests.cli.tiny import (
  BOTH,
  LABELS,
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
  new, _ = new.split("; left over: ")
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
  theirs, placed = made.teacher.params, made.teacher_params
  mine = fit.first_state(made).params
  assert same_bits(mine, jax.device_get(placed))
  read = {x.ctypes.data for x in jax.tree.leaves(theirs)}
  assert not memory(mine) & (read | memory(placed))


def memory(tree):
  """Where in memory the arrays of a tree lie."""
  shards = [s for x in jax.tree.leaves(tree) for s in x.addressable_shards]
  return {shard.data.unsafe_buffer_pointer() for shard in shards}


# --- weights of other programs ------------------------------------------------

HEADS, HEAD_DIM, WIDTH, MLP_DIM, LAYERS = 2, 4, 8, 12, 3


def t5_weights(rows):
  """Random weights under the names that transformers has for a T5 1.1."""
  joined = HEADS * HEAD_DIM
  shapes = {
    "shared.weight": (rows, WIDTH),
    "encoder.final_layer_norm.weight": (WIDTH,),
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (
      *(32, HEADS),
    ),
    "lm_head.weight": (rows, WIDTH),
  }
  for i in range(LAYERS):
    block = f"encoder.block.{i}.layer"
    for name in "qkv":
      shapes[f"{block}.0.SelfAttention.{name}.weight"] = joined, WIDTH
    shapes[f"{block}.0.SelfAttention.o.weight"] = WIDTH, joined
    for name in ("wi_0", "wi_1"):
      shapes[f"{block}.1.DenseReluDense.{name}.weight"] = MLP_DIM, WIDTH
    shapes[f"{block}.1.DenseReluDense.wo.weight"] = WIDTH, MLP_DIM
    for j in (0, 1):
      shapes[f"{block}.{j}.layer_norm.weight"] = (WIDTH,)
  rng = np.random.default_rng(0)
  return {n: rng.normal(0, 0.3, s).astype("f4") for n, s in shapes.items()}


@pytest.fixture(scope="module")
def t5(tmp_path_factory, pretrained):
  """A directory of transformers with a T5 of three layers."""
  folder = tmp_path_factory.mktemp("transformers") / "t5"
  vocab = pretrained / "vocab" / "vocab.spm"
  folder.mkdir()
  shutil.copy(vocab, folder / "spiece.model")
  config = {"model_type": "t5", "feed_forward_proj": "gated-gelu"}
  (folder / "config.json").write_text(json.dumps(config))
  weights = t5_weights(load_vocab(vocab).size)
  save_file(weights, folder / "model.safetensors")
  return folder


NO_MODEL = tuple(flag for flag in TINY if not flag.startswith("--model"))


def test_a_student_begins_with_some_layers_of_a_t5_of_transformers(
  tmp_path, data, teacher, t5
):
  output = tmp_path / "run"
  done = ok(
    *("distill", *data, *NO_MODEL, f"--teacher={teacher}", f"--init={t5}"),
    *("--init_layers=0,2", "--gin.model_like.num_layers=2", "--method=kd"),
    *("--gin.make_optimizer.learning_rate=1e-9", f"--output_dir={output}"),
  )
  assert "head (27); left over: lm_head (" in done.out
  made, there = params(output), load_file(t5 / "model.safetensors")
  for mine, theirs in ((0, 0), (1, 2)):
    np.testing.assert_allclose(
      made["encoder"][f"layers_{mine}"]["attention"]["query"]["kernel"],
      there[f"encoder.block.{theirs}.layer.0.SelfAttention.q.weight"].T,
      atol=1e-6,
    )
  assert set(made["encoder"]) == {
    *("layers_0", "layers_1", "encoder_norm", "relpos_bias"),
  }
  # The run is used without what it began with.
  line = ok("predict", "--run", output, "--input", "-", stdin=b"my card\n").out
  assert json.loads(line)["prediction"] in LABELS


def test_a_teacher_begins_with_it_and_its_student_reads_with_its_vocabulary(
  tmp_path, t5
):
  other = [(f"{text} indeed", label) for text, label in examples(60)]
  train = write_tsv(tmp_path / "train.tsv", other)
  output = tmp_path / "run"
  flags = f"--train={train}", *TINY, "--method=kd", f"--teacher_init={t5}"
  ok("distill", *flags, "--teacher_num_steps=4", f"--output_dir={output}")
  taught = Trained.load(str(output / "teacher"))
  assert taught.served.model.num_layers == LAYERS
  want = load_vocab(t5 / "spiece.model").fingerprint
  for path in (output, output / "teacher"):
    assert load_vocab(path / "vocab" / "vocab.spm").fingerprint == want


def test_a_model_begins_with_a_checkpoint_of_t5x(tmp_path, data, teacher):
  there = params(teacher, results(teacher)["best_step"])
  taken = {name: there[name] for name in (*SHARED, "decoder")}
  path = write_t5x(
    tmp_path / "checkpoint_7", params=jax.tree.map(np.asarray, dict(taken))
  )
  vocab = teacher / "vocab" / "vocab.spm"
  output = tmp_path / "run"
  done = ok(
    *("finetune", *data, *NO_MODEL, f"--init={path}", f"--vocab={vocab}"),
    *("--gin.make_optimizer.learning_rate=1e-9", f"--output_dir={output}"),
  )
  assert "decoder (" in done.out.partition("; new: ")[0]
  made = params(output)
  for name in taken:
    for one, other in zip(
      jax.tree.leaves(made[name]), jax.tree.leaves(there[name]), strict=True
    ):
      np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_student_begins_with_some_layers_of_a_fine_tuned_run_and_its_head(
  files, teacher
):
  there = params(teacher, results(teacher)["best_step"])
  made = first_params(
    "runs/distill.gin",
    train=str(files / "train.tsv"),
    max_length=16,
    teacher=str(teacher),
    init=str(teacher),
    init_layers="0",
    batch_size=8,
  )
  assert same_bits(made, there)


def test_a_head_for_other_classes_is_new(tmp_path, teacher, capsys):
  train = write_tsv(
    tmp_path / "train.tsv",
    [(text, f"no {label}") for text, label in examples(24)],
  )
  given = {"train": str(train), "init": str(teacher), "max_length": 16}
  made = first_params("runs/finetune.gin", **given)
  there = params(teacher, results(teacher)["best_step"])
  assert same_bits(made["decoder"], there["decoder"])
  assert not same_bits(made["head"], there["head"])
  said = capsys.readouterr().out
  assert "; new: head (195); left over: another task's head (195)" in said


# --- what is wrong -----------------------------------------------------------

WRONG = {
  "nowhere": ("--init=nowhere", ["nowhere", "must exist"]),
  "unfinished": ("--init={unfinished}", ["must hold a finished run"]),
  "another_size": (
    "--init={pretrained} --model=mini",
    ["{pretrained} must be of the same size", "[64] there", "[192] here"],
  ),
  "another_vocabulary": (
    "--init={pretrained} --vocab={vocab}",
    ["--vocab must be that of --init", "{vocab}", "it with --vocab"],
  ),
  "more_layers_than_there": (
    "--init={t5} --gin.INIT_LAYERS='bottom' --gin.model_like.num_layers=4",
    ["at most its teacher's 3 layers, got a student of 4"],
  ),
  "fewer_layers_unsaid": (
    "--init={t5} --gin.model_like.num_layers=2",
    ["encoder/layers_2", "missing here", "by --init_layers"],
  ),
  "a_shape_that_is_not_read": (
    "--init={t5} --gin.enct5_config.num_layers=2",
    ["enct5_config.num_layers has no effect", "say model_like.num_layers"],
  ),
  "a_size_by_name": (
    "--init={t5} --model=micro",
    ["{t5} must be of the same size", "[8] there", "leave out --model"],
  ),
  "another_architecture": ("--init={other}", ["one of the types t5", "'gpt2'"]),
  "no_weights": ("--init={empty}", ["must hold weights: model.safetensors"]),
  "no_vocabulary": ("--init={bare}", ["{bare} has no vocabulary", "--vocab"]),
}


@pytest.fixture
def places(tmp_path, teacher, pretrained, t5):
  vocab = tmp_path / "other.spm"
  vocab.write_bytes(train_vocab(["another text"] * 9).model_bytes)
  found = {"teacher": teacher, "pretrained": pretrained, "vocab": vocab}
  found |= {name: tmp_path / name for name in ("other", "empty", "bare")}
  for name, kind in (("other", "gpt2"), ("empty", "t5")):
    found[name].mkdir()
    text = json.dumps({"model_type": kind})
    (found[name] / "config.json").write_text(text)
  found["unfinished"] = tmp_path / "unfinished"
  found["unfinished"].mkdir()
  (found["unfinished"] / "config.gin").write_text("INIT = None")
  shutil.copytree(t5, found["bare"])
  (found["bare"] / "spiece.model").unlink()
  return found | {"t5": t5}


@pytest.mark.parametrize("case", WRONG)
def test_a_bad_beginning_is_refused_in_one_line(tmp_path, data, places, case):
  line, said = WRONG[case]
  words = line.format(**places).split()
  given = {word.split("=")[0] for word in words}
  tiny = [w for w in NO_MODEL if w.split("=")[0] not in given]
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
    *("distill", *data, *TINY, f"--teacher={teacher}", f"--method={BOTH}"),
    *(f"--init={pretrained}", f"--output_dir={output}"),
  )
  assert done.code == 2
  assert "must read with one vocabulary" in done.err
  assert not output.exists()
