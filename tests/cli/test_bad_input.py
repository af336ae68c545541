"""What is wrong is said in one line, with its place, and nothing is lost.

Each line of the table is a command, what is wrong with it, and what the error
must say. Every one must exit with 2, print one line on stderr and no
traceback, and leave neither an output directory nor anything changed.
"""

import json
import os
import shutil
import subprocess

import jax
import numpy as np
import pytest

from augdistill.checkpoints.store import Store
from tests.cli.tiny import (
  TINY,
  command,
  examples,
  ok,
  read_jsonl,
  results,
  run,
  snapshot,
  write_tsv,
)

HEADER = b"sentence\tlabel\n"
GOOD = b"".join(f"{t}\t{name}\n".encode() for t, name in examples(30))

# Name of the file, its bytes, and what must be said of it as training data.
FILES = {
  "empty": ("x.tsv", b"", ["x.tsv is empty"]),
  "header_only": ("x.tsv", HEADER, ["x.tsv has a header but no rows"]),
  "extension": ("x.txt", HEADER + GOOD, ["x.txt", ".tsv, .csv, .jsonl"]),
  "no_text_column": (
    "x.tsv",
    b"text\tlabel\n" + GOOD,
    ["x.tsv", "'sentence'", "text, label", "--text_column"],
  ),
  "no_label_column": (
    "x.tsv",
    b"sentence\tlable\n" + GOOD,
    ["x.tsv", "'label'", "--label_column", "Did you mean 'lable'?"],
  ),
  "too_few_fields": (
    "x.tsv",
    HEADER + GOOD + b"only a text\n",
    ["x.tsv, line 32", "2 tab-separated", "got 1", "only a text"],
  ),
  "too_many_fields": (
    "x.tsv",
    HEADER + b"a\tb\tc\n" + GOOD,
    ["x.tsv, line 2", "2 tab-separated", "got 3"],
  ),
  "too_many_csv_fields": (
    "x.csv",
    b'sentence,label\n"a,b",card\na,b,card\n',
    ["x.csv, line 3", "2 comma-separated", "got 3"],
  ),
  "not_utf8": (
    "x.tsv",
    HEADER + GOOD + b"caf\xe9\tcard\n",
    ["x.tsv, line 32, byte 4", "0xe9", "UTF-8", "iconv"],
  ),
  "nul": ("x.tsv", HEADER + b"a\0b\tcard\n", ["x.tsv, line 2", "NUL"]),
  "empty_text": (
    "x.tsv",
    HEADER + GOOD + b"  \tcard\n",
    ["x.tsv, line 32", "'sentence'", "must not be empty", "drop the row"],
  ),
  "empty_label": (
    "x.tsv",
    HEADER + GOOD + b"text\t\n",
    ["x.tsv, line 32", "'label'", "must not be empty"],
  ),
  "nan_label": (
    "x.tsv",
    HEADER + b"a\t1.5\nb\tNaN\n",
    ["x.tsv, line 3", "'label'", "NaN"],
  ),
  "infinite_label": (
    "x.tsv",
    HEADER + b"a\t1.5\nb\t-inf\n",
    ["x.tsv, line 3", "'label'", "-inf"],
  ),
  "nan_label_in_json": (
    "x.jsonl",
    b'{"sentence": "a", "label": 1.5}\n{"sentence": "b", "label": NaN}\n',
    ["x.jsonl, line 2", "'label'", "nan"],
  ),
  "one_class": (
    "x.tsv",
    HEADER + b"a\tcard\nb\tcard\nc\tcard\n",
    ["at least 2 different", "card"],
  ),
  "json_error": (
    "x.jsonl",
    b'{"sentence": "a", "label": "x"}\n{"sentence": "b", \n',
    ["x.jsonl, line 2", "JSON"],
  ),
  "json_text_of_another_type": (
    "x.jsonl",
    b'{"sentence": 3, "label": "x"}\n',
    ["x.jsonl, line 1", "'sentence'", "got 3"],
  ),
  "same_column_twice": (
    "x.tsv",
    b"sentence\tsentence\na\tb\n",
    ["x.tsv, line 1", "'sentence' twice"],
  ),
}


def refused(done, said, code=2):
  assert done.code == code, done.err
  assert done.err.startswith("augdistill: error: ")
  assert done.err.count("\n") == 1
  assert "Traceback" not in done.err
  for words in said:
    assert words in done.err
  return done


@pytest.fixture
def place(tmp_path, monkeypatch):
  """An empty folder to work in, so that paths are short."""
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.mark.parametrize("case", FILES)
def test_bad_training_data(place, case):
  name, content, said = FILES[case]
  (place / name).write_bytes(content)
  refused(run("finetune", f"--train={name}", *TINY, "--output_dir=run"), said)
  assert set(snapshot(place)) == {name}


# Flags after `finetune`/`distill`, and what must be said. {teacher} and
# {train} stand for good ones.
COMMANDS = {
  "missing_file": (
    "finetune --train=trian.tsv",
    ["trian.tsv does not exist", "Did you mean 'train.tsv'?"],
  ),
  "directory": (
    "finetune --train=folder.tsv",
    ["folder.tsv must be a file, but it is a directory"],
  ),
  "wrong_text_column": (
    "finetune --train=train.tsv --text_column=sentnce",
    ["'sentnce'", "sentence, label", "Did you mean 'sentence'?"],
  ),
  "three_text_columns": (
    "finetune --train=train.tsv --text_column=a,b,c",
    ["--text_column must name one or two columns, got a,b,c"],
  ),
  "label_never_seen": (
    "finetune --train=train.tsv --test=other.tsv",
    ["other.tsv, line 3", "'crad'", "app, card, cash", "Did you mean 'card'?"],
  ),
  "validation_label_never_seen": (
    "finetune --train=train.tsv --validation=other.tsv",
    ["other.tsv, line 3", "'crad'"],
  ),
  "no_data": ("finetune", ["--task NAME or --train FILE"]),
  "only_test": ("finetune --test=train.tsv", ["--train FILE"]),
  "task_and_file": (
    "finetune --task=cola --train=train.tsv",
    ["either by --task or by files"],
  ),
  "unknown_task": ("finetune --task=colla", ["colla", "Did you mean"]),
  "unknown_kind": (
    "finetune --train=train.tsv --task_kind=clases",
    ["--task_kind", "clases"],
  ),
  "names_as_regression": (
    "finetune --train=train.tsv --task_kind=regression",
    ["train.tsv, line 2", "number", "'app'"],
  ),
  "model_typo": (
    "finetune --train=train.tsv --model=mirco",
    ["'mirco'", "Did you mean 'micro'?"],
  ),
  "method_typo": (
    "distill --train=train.tsv --teacher={teacher} --method=kd+augpro_mx",
    ["'augpro_mx'", "Did you mean 'augpro_mix'?"],
  ),
  "base_typo": (
    "distill --train=train.tsv --teacher={teacher} --method=kdd",
    ["'kdd'", "Did you mean 'kd'?"],
  ),
  "method_grammar": (
    "distill --train=train.tsv --teacher={teacher} --method=kd+",
    ["column 4 of 'kd+'"],
  ),
  "no_teacher": (
    "distill --train=train.tsv --method=kd",
    ["'kd' needs a teacher", "--teacher DIR", "--teacher_model NAME"],
  ),
  "two_teachers": (
    "distill --train=train.tsv --teacher={teacher} --teacher_model=micro",
    ["but not both"],
  ),
  "teacher_steps_alone": (
    "distill --train=train.tsv --teacher={teacher} --teacher_num_steps=0",
    ["--teacher_num_steps is for --teacher_model"],
  ),
  "teacher_is_nowhere": (
    "distill --train=train.tsv --teacher=nowhere",
    ["nowhere", "must exist"],
  ),
  "teacher_is_no_run": (
    "distill --train=train.tsv --teacher=.",
    ["no results.json"],
  ),
  "teacher_model_typo": (
    "distill --train=train.tsv --teacher_model=mirco",
    ["'mirco'", "Did you mean 'micro'?"],
  ),
  "other_labels_than_the_teacher": (
    "distill --train=other.tsv --teacher={teacher}",
    ["other.tsv must have the teacher's labels", "lacks crad", "lack app"],
  ),
  "other_kind_than_the_teacher": (
    "distill --train=numbers.tsv --teacher={teacher} --task_kind=regression",
    ["--task_kind must be the teacher's, classes, got regression"],
  ),
  "pairs_for_a_teacher_of_single_texts": (
    "distill --train=pairs.tsv --teacher={teacher}",
    ["pairs.tsv must hold single texts"],
  ),
  "unlabeled_without_a_teacher_term": (
    "distill --train=train.tsv --unlabeled=train.tsv --method=ft",
    ["--unlabeled needs a method with a teacher, got 'ft'"],
  ),
  "unlabeled_is_missing": (
    "distill --train=train.tsv --unlabeled=no.tsv --teacher={teacher}",
    ["no.tsv does not exist"],
  ),
  "too_many_train_examples": (
    "distill --train=train.tsv --teacher={teacher} --train_examples=999",
    ["999"],
  ),
  "bad_data_before_the_teacher_is_trained": (
    "distill --train=train.tsv --unlabeled=no.tsv --teacher_model=micro",
    ["no.tsv does not exist"],
  ),
  "too_many_rows_before_the_teacher_is_trained": (
    "distill --train=train.tsv --train_examples=999 --teacher_model=micro",
    ["999"],
  ),
  "a_layer_that_the_teacher_lacks": (
    "distill --train=train.tsv --teacher={teacher} "
    "--method=kd+hidden_mse(layers=l1_2)",
    ["term 'hidden_mse' on view 'clean'", "layer 2 of the teacher; the layers"],
  ),
  "a_layer_to_mix_at_that_the_student_lacks": (
    "finetune --train=train.tsv --method=ft+tmix(student_layer=2)",
    ["view 'tmix': student_layer must be at most 1", "got 2"],
  ),
  "more_neighbours_than_words_before_the_teacher_is_trained": (
    "distill --train=train.tsv --teacher_model=micro --method=kd+knn(k=9999)",
    ["view 'knn': k must be less", "got k=9999"],
  ),
  "another_kind_of_task_before_the_teacher_is_trained": (
    "distill --train=scores.tsv --teacher_model=micro --method=kd+batch_mixup",
    ["view 'batch_mixup' compares by dot_product", "this kind of task"],
  ),
  "layers_to_begin_with_before_the_teacher_is_trained": (
    "distill --train=train.tsv --teacher_model=micro --init_layers=1",
    ["--init_layers must name layers from 0 to 0", "got '1'"],
  ),
  "widths_to_begin_with_before_the_teacher_is_trained": (
    "distill --train=train.tsv --teacher_model=mini --init_layers=bottom",
    ["--init_layers needs a student of its teacher's widths", "--model"],
  ),
  "a_view_without_its_clean_batch": (
    "finetune --train=train.tsv --method=ft(clean=false)+fgsm",
    ["view 'fgsm' begins at the clean batch"],
  ),
  "no_share_of_the_rows": (
    "finetune --train=train.tsv --train_fraction=0",
    ["--train_fraction: the share", "got 0.0"],
  ),
  "rewrites_in_a_bad_line": (
    "finetune --train=train.tsv --method=ft+rewrites --rewrites=bad.jsonl",
    ["bad.jsonl, line 2", "JSON"],
  ),
  "no_vocabulary": (
    "finetune --train=train.tsv --vocab=no.spm",
    ["no.spm"],
  ),
  "vocabulary_of_another_format": (
    "finetune --train=train.tsv --vocab=train.tsv",
    ["train.tsv"],
  ),
  "batch_of_no_share_for_every_device": (
    "finetune --train=train.tsv --batch_size=13",
    ["multiple of 1 microbatches x 2 devices, got 13"],
  ),
  "no_steps": ("finetune --train=train.tsv --num_steps=0", ["num_steps", "0"]),
  "no_learning": (
    "finetune --train=train.tsv --learning_rate=nan",
    ["--learning_rate: must be a finite number, got 'nan'"],
  ),
  "seed_too_large": (
    "finetune --train=train.tsv --seed=99999999999",
    ["seed must be in [0, 2^32), got 99999999999"],
  ),
  "length_too_short": (
    "finetune --train=train.tsv --max_length=3",
    ["max_length must be at least 8, got 3"],
  ),
  "gin_parameter": (
    "finetune --train=train.tsv --gin.RunConfig.num_step=3",
    ["num_step", "Did you mean 'num_steps'?"],
  ),
  "gin_macro": (
    "finetune --train=train.tsv --gin.NUMSTEPS=3",
    ["NUMSTEPS", "Did you mean 'NUM_STEPS'?"],
  ),
  "gin_file": (
    "finetune --train=train.tsv --gin_file=no.gin",
    ["no.gin"],
  ),
  "microbatches": (
    "finetune --train=train.tsv --gin.RunConfig.num_microbatches=3",
    ["multiple of 3 microbatches"],
  ),
  "evaluate_nowhere": ("evaluate --run=nowhere --data=train.tsv", ["nowhere"]),
  "evaluate_missing": (
    "evaluate --run={teacher} --data=no.tsv",
    ["no.tsv does not exist"],
  ),
  "evaluate_label_never_seen": (
    "evaluate --run={teacher} --data=other.tsv",
    ["other.tsv, line 3", "'crad'", "Did you mean 'card'?"],
  ),
  "predict_missing": (
    "predict --run={teacher} --input=no.tsv",
    ["no.tsv does not exist"],
  ),
  "predict_into_a_directory": (
    "predict --run={teacher} --input=train.tsv --output=.",
    ["--output must be a file"],
  ),
  "predict_columns": (
    "predict --run={teacher} --input=train.tsv --text_column=a,b",
    ["--text_column must name 1 column"],
  ),
  "predict_pairs": (
    "predict --run={teacher} --input=pairs.tsv",
    ["pairs.tsv must hold single texts"],
  ),
  "augment_method": (
    "augment --data=train.tsv --method=augpro_mx",
    ["'augpro_mx'", "Did you mean 'augpro_mix'?"],
  ),
  "augment_limit": (
    "augment --data=train.tsv --method=augpro_mix --limit=-1",
    ["--limit must be >= 0, got -1"],
  ),
  "augment_rewrites": (
    "augment --data=train.tsv --method=mmel_soft(view=rewrites)*2",
    ["has a view of rewrites", "augdistill rewrite makes one"],
  ),
  "augment_what_enters_elsewhere": (
    "augment --data=train.tsv --method=projected(view=token_mix)",
    ["view 'projected': only a view that enters at embeddings"],
  ),
  "table_of_nothing": ("table nowhere", ["nowhere"]),
}


@pytest.fixture
def stage(place):
  """A good file, and others that are each wrong for something."""
  (place / "train.tsv").write_bytes(HEADER + GOOD)
  (place / "other.tsv").write_bytes(HEADER + b"a\tcard\nb\tcrad\nc\tcash\n")
  (place / "numbers.tsv").write_bytes(HEADER + b"a\t0.5\nb\t1.5\nc\t2.5\n")
  scores = ((text, i / 2) for i, (text, _) in enumerate(examples(30)))
  write_tsv(place / "scores.tsv", scores)
  (place / "bad.jsonl").write_text(
    '{"sentence": "a", "rewrites": ["b"]}\n{"sentence"\n'
  )
  (place / "folder.tsv").mkdir()
  write_tsv(
    place / "pairs.tsv",
    [("a", text, label) for text, label in examples(30)],
    ("sentence1", "sentence2", "label"),
  )
  return place


@pytest.mark.parametrize("case", COMMANDS)
def test_a_bad_command(stage, teacher, case):
  line, said = COMMANDS[case]
  words = line.format(teacher=teacher).split()
  if words[0] in ("finetune", "distill"):
    given = {word.split("=")[0] for word in words}
    words[1:1] = [w for w in TINY if w.split("=")[0] not in given]
    words.append("--output_dir=run")
  files = snapshot(stage), snapshot(teacher)
  refused(run(*words), said)
  assert (snapshot(stage), snapshot(teacher)) == files
  assert not (stage / "run").exists()


def test_bytes_on_standard_input_that_are_no_text(teacher):
  done = run("predict", f"--run={teacher}", "--input=-", stdin=b"ok\n\xff\n")
  refused(done, ["standard input, line 2", "UTF-8", "0xff"])
  done = run("predict", f"--run={teacher}", "--input=-", stdin=b"ok\n \n")
  refused(done, ["standard input, line 2", "must not be empty"])


def test_a_corrected_command_may_use_the_directory_of_a_failed_one(
  stage, data, teacher
):
  flags = *TINY, f"--teacher={teacher}", "--output_dir=run", "--method=kd"
  refused(run("distill", *flags, "--train=other.tsv"), ["other.tsv"])
  ok("distill", *flags, *data)


def test_a_directory_of_another_run_is_not_touched(
  stage, files, data, teacher, tmp_path
):
  copy = tmp_path / "copy"
  shutil.copytree(teacher, copy)
  before = snapshot(copy)
  flags = *data, *TINY, f"--output_dir={copy}"
  said = ["another configuration", "SEED = 0", "SEED = 1", "--output_dir"]
  refused(run("finetune", *flags, "--seed=1"), said)
  refused(
    run("distill", *flags, "--teacher_model=micro", "--method=kd"),
    ["another configuration"],
  )
  assert snapshot(copy) == before
  (copy / "config.gin").unlink()
  (copy / "results.json").unlink()
  before = snapshot(copy)
  refused(run("finetune", *flags), ["holds a run, but no config.gin"])
  assert snapshot(copy) == before


def test_an_output_directory_that_cannot_be_written(stage):
  flags = *TINY, "--train=train.tsv"
  done = run("finetune", *flags, "--output_dir=train.tsv/run")
  refused(done, ["train.tsv/run", "Choose another --output_dir"])
  done = run("finetune", *flags, "--output_dir=train.tsv")
  refused(done, ["train.tsv", "Choose another --output_dir"])
  assert (stage / "train.tsv").read_bytes() == HEADER + GOOD


def test_a_loss_that_turns_nan_fails_and_keeps_the_last_checkpoint(
  place, capfd, data
):
  flags = *TINY, *data, "--output_dir=run"
  absurd = "--learning_rate=1e30", "--gin.RunConfig.eval_period=1"
  done = run("finetune", *flags, *absurd)
  assert done.code == 1
  *_, last = done.err.splitlines()
  assert last.startswith("augdistill: error: the ")
  for words in ("must stay finite", "the last checkpoint", "--learning_rate"):
    assert words in last
  assert not os.path.exists("run/results.json")
  with Store("run/checkpoints") as store:
    kept = store.steps()
    for step in kept:
      for leaf in jax.tree.leaves(store.restore_params(step)):
        assert np.isfinite(leaf).all()
  assert kept
  assert run("finetune", *flags, *absurd).code == 1
  with Store("run/checkpoints") as store:
    assert store.steps() == kept
  for row in read_jsonl("run/metrics.jsonl"):
    assert "NaN" not in json.dumps(row)
  assert capfd.readouterr() == ("", "")  # what libraries say of it


def test_a_run_that_fails_before_a_checkpoint_leaves_the_directory_free(
  place, data
):
  flags = *TINY, *data, "--output_dir=run"
  absurd = "--learning_rate=1e30", "--gin.RunConfig.eval_period=4"
  assert run("finetune", *flags, *absurd).code == 1
  ok("finetune", *flags)
  assert results("run")["metrics"]["validation"]
  steps = [r["step"] for r in read_jsonl("run/metrics.jsonl") if "loss" in r]
  assert steps == [1, 2, 3, 4]


def test_a_damaged_run_is_explained(tmp_path, files, teacher):
  copy = tmp_path / "copy"
  shutil.copytree(teacher, copy)
  flags = f"--run={copy}", f"--data={files / 'test.tsv'}"
  (copy / "student.gin").write_text("Served.max_length = \n")
  refused(run("evaluate", *flags), ["gin"])
  shutil.copy(teacher / "student.gin", copy)
  shutil.rmtree(copy / "checkpoints")
  refused(run("evaluate", *flags), ["checkpoint", str(copy)], code=1)
  (copy / "results.json").write_text("{")
  refused(run("evaluate", *flags), ["results.json"])
  (copy / "results.json").unlink()
  refused(run("evaluate", *flags), ["finished run", "run its command again"])


def test_a_process_says_the_same_and_exits_the_same(stage):
  words = "finetune", "--train=no.tsv", "--output_dir=run"
  done = subprocess.run(command(*words), capture_output=True, text=True)
  assert (done.returncode, done.stdout, done.stderr) == run(*words)
  refused(run(*words), ["no.tsv does not exist"])
  assert not os.path.exists("run")
