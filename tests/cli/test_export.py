"""A run becomes files that say the same without this package, or none at all.

Most runs here are made of random weights, which takes no training; those that
were trained show that nothing else is needed of a run.
"""

import ast
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from augdistill.checkpoints.store import Store
from augdistill.cli import export_checks, exporting
from augdistill.cli.pretrained import ServedMaskedLM, served_masked_text
from augdistill.cli.trained import Trained
from augdistill.data.sentence_pieces import train_vocab
from augdistill.data.texts import encode_rows
from augdistill.evaluation.predictions import write_predictions
from augdistill.models.enct5 import EncT5Config
from augdistill.models.networks import network
from augdistill.reports.results import build_results
from augdistill.reports.run_directory import RunDirectory
from augdistill.reports.student_gin import Served, served_text
from augdistill.types import Task, TaskKind
from tests.cli.tiny import examples, ok, results, run, snapshot

NAMES = ("app", "card", "cash")
METRICS = {
  TaskKind.CLASSES: ("accuracy",),
  TaskKind.REGRESSION: ("mse",),
  TaskKind.MULTI_LABEL: ("micro_f1",),
}
SIZES = {"emb_dim": 16, "mlp_dim": 24, "num_heads": 2, "head_dim": 8}
TEXTS = [
  " ".join([text, *text.split()[: i % 9]])
  for i, (text, _) in enumerate(examples(90))
]
EVERYWHERE = {"README.md", "export.json", "spiece.model", "task.json"}
EVERYWHERE |= {"texts.py"}
HF = {*EVERYWHERE, "config.json", "tokenizer_config.json", "enct5.py"}
FILES = {
  ("hf", "float32"): HF | {"model.safetensors"},
  ("hf", "int8"): HF | {"model.int8.safetensors"},
  ("stablehlo", "float32"): EVERYWHERE | {"model.stablehlo", "weights.npz"},
  ("stablehlo", "int8"): EVERYWHERE | {"model.stablehlo", "weights.npz"},
}


@pytest.fixture(scope="module", autouse=True)
def quick():
  """Times calls less often than a person would want it."""
  with pytest.MonkeyPatch.context() as patch:
    timed = export_checks.latency
    patch.setattr(export_checks, "latency", lambda call: timed(call, runs=10))
    yield


def make_run(path, kind=TaskKind.CLASSES, pair=False, dtype="float32"):
  """A finished run of random weights, with rows of many lengths."""
  names = () if kind == TaskKind.REGRESSION else NAMES
  task = Task("made", kind, names, METRICS[kind], pair)
  vocab = train_vocab(TEXTS, 60)
  shape = EncT5Config(
    vocab_size=vocab.size,
    num_outputs=task.num_outputs,
    num_layers=1,
    dtype=dtype,
    **SIZES,
  )
  rng = np.random.default_rng(0)
  params = jax.tree.map(  # No program is compiled for this.
    lambda leaf: rng.normal(size=leaf.shape).astype("f4") * 0.3,
    jax.eval_shape(network(shape).init, jax.random.key(0)),
  )
  directory = RunDirectory(path)
  directory.claim("", ["augdistill"])
  vocab.save(directory.vocab)
  directory.write_student(served_text(Served(shape, task, 16)))
  with Store(directory.checkpoints) as store:
    store.save(3, {"params": params})
  texts = [(t, t.split()[-1]) if pair else (t,) for t in TEXTS]
  rows = encode_rows(texts, vocab, 16, task.num_outputs)
  label = np.eye(3, dtype="f4")[np.arange(90) % 3][:, : task.num_outputs]
  rows = dataclasses.replace(rows, label=label, has_label=np.ones(90, bool))
  write_predictions(directory.predictions("test"), task, rows, label)
  made = build_results(
    method="kd",
    task="made",
    seed=0,
    metrics={},
    teacher_metrics={},
    agreement=None,
    num_params={"student": 1, "teacher": None},
    num_steps=3,
    best_step=3,
    train_seconds=1.0,
    batch_size=8,
  )
  directory.write_results(made)
  return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  return make_run(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
  return make_run(tmp_path_factory.mktemp("pairs") / "run", pair=True)


def export(run_path, form, output, *more):
  flags = f"--run={run_path}", f"--format={form}", f"--output={output}"
  return run("export", *flags, *more)


@pytest.fixture(scope="module", params=FILES, ids="-".join)
def exported(request, student, tmp_path_factory):
  """Format, weights, directory and the command's output, of a real student."""
  form, weights = request.param
  path = tmp_path_factory.mktemp("exported") / "model"
  done = export(student, form, path, f"--weights={weights}")
  assert done.code == 0, done.err
  return form, weights, path, done.out


# --- what is written -------------------------------------------------------


def test_an_export_holds_the_files_of_its_list_and_no_other(exported):
  form, weights, path, _ = exported
  assert {p.name for p in path.iterdir()} == FILES[form, weights]
  assert os.listdir(path.parent) == ["model"]


# Python that refuses to import what the files must not need.
ALONE = """
import sys
class Refuse:
  def find_spec(self, name, path=None, target=None):
    if name.split(".")[0] in {refused}:
      raise ImportError("refused: " + name)
sys.meta_path.insert(0, Refuse())
"""
NOT_NEEDED = {
  "hf": {"augdistill", "jax", "flax", "torch", "tensorflow", "transformers"},
  "stablehlo": {"augdistill", "flax", "torch", "tensorflow", "safetensors"},
}
TEXT = "my card has not arrived"


def code_of(readme):
  (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
  return code


def test_the_code_in_its_readme_says_what_the_run_says_without_this_package(
  exported, student
):
  form, weights, path, _ = exported
  code = code_of((path / "README.md").read_text())
  assert f'"{TEXT}"' in code
  done = subprocess.run(
    [
      *(sys.executable, "-B", "-c"),
      ALONE.format(refused=NOT_NEEDED[form]) + code,
    ],
    cwd=path,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  (got,) = ast.literal_eval(done.stdout)
  said = ok("predict", f"--run={student}", "--input=-", stdin=TEXT.encode())
  wanted = json.loads(said.out)
  off = 1e-5 if weights == "float32" else 0.1
  assert got["prediction"] == wanted["prediction"] or weights == "int8"
  for name, value in wanted["probabilities"].items():
    assert got["probabilities"][name] == pytest.approx(value, abs=off)


def test_the_report_says_how_large_how_fast_and_how_far_off_it_is(
  exported, student, teacher
):
  form, weights, path, out = exported
  report = json.loads((path / "export.json").read_text())
  size = results(student)["num_params"]
  assert (report["format"], report["weights"]) == (form, weights)
  assert report["num_params"] == size
  model = {n for n in report["bytes"] if n.startswith(("model", "weights"))}
  for name in model:
    assert report["bytes"][name] == (path / name).stat().st_size
  compared = report["compared"]
  assert (compared["split"], compared["rows"]) == ("test", 12)
  assert 0 <= compared["largest_difference"] <= 1e-4
  assert (report["step"], report["finished"]) == (
    results(student)["best_step"],
    True,
  )
  for name in ("student", "export", "teacher"):
    for batch in ("1", "32"):
      times = report["latency"][name][batch]
      assert 0 < times["p50_ms"] <= times["p95_ms"]
      assert times["runs"] == 10
  assert report["latency"]["device"].startswith("cpu")
  assert report["no_teacher"] is None
  for words in ("12 test rows", "batch 32", "teacher", f"{size['student']:,}"):
    assert words in out


def test_the_cost_of_int8_is_told_and_its_files_are_small(exported, student):
  form, weights, path, out = exported
  report = json.loads((path / "export.json").read_text())
  scores = report["scores"]
  own = results(student)["metrics"]["test"]
  assert scores["before"] == pytest.approx(own)
  if weights == "float32":
    assert scores["after"] == scores["before"]
    assert (scores["agreement"], scores["largest_change"]) == (1.0, 0.0)
    assert "int8" not in out
    return
  assert scores["after"].keys() == own.keys()
  assert 0 < scores["largest_change"] < 1
  assert f"  accuracy {own['accuracy']:.4f} -> " in out
  file = "model.int8.safetensors" if form == "hf" else "weights.npz"
  # One byte for four, and some scales, norms and names.
  assert report["bytes"][file] < 4 * report["num_params"]["student"] / 3


# --- of any run ------------------------------------------------------------


@pytest.mark.parametrize("kind", TaskKind)
def test_pairs_of_texts_and_all_kinds_of_labels_are_exported(tmp_path, kind):
  path = make_run(tmp_path / "run", kind, pair=True)
  done = export(path, "hf", tmp_path / "out", "--weights=int8")
  assert done.code == 0, done.err
  report = json.loads((tmp_path / "out" / "export.json").read_text())
  # More than 64 rows: 64 of all lengths.
  assert report["compared"]["rows"] == 64
  assert report["compared"]["shortest"] < 12
  assert report["compared"]["longest"] == 16
  assert report["scores"]["rows"] == 90
  assert 0 < report["scores"]["largest_change"] < 1
  assert report["scores"]["after"].keys() == set(METRICS[kind])
  assert report["no_teacher"] == "the run has no teacher"
  readme = (tmp_path / "out" / "README.md").read_text()
  assert '[("the first text", "the second")]' in readme


def test_a_run_in_bfloat16_is_exported_in_float32(tmp_path):
  path = make_run(tmp_path / "run", dtype="bfloat16")
  assert export(path, "hf", tmp_path / "out").code == 0


def test_a_run_that_was_interrupted_is_exported_at_its_best_step(
  tmp_path, student
):
  copy = tmp_path / "copy"
  shutil.copytree(student, copy)
  (copy / "results.json").unlink()
  shutil.rmtree(copy / "predictions")
  for step, score in (("2", 0.9), ("4", 0.1)):
    path = copy / "checkpoints" / step / "_CHECKPOINT_METADATA"
    metadata = json.loads(path.read_text())
    metadata["custom_metadata"]["accuracy"] = score
    path.write_text(json.dumps(metadata))
  done = export(copy, "hf", tmp_path / "out")
  assert done.code == 0, done.err
  assert "has not finished; this is its step 2" in done.out
  report = json.loads((tmp_path / "out" / "export.json").read_text())
  assert (report["step"], report["finished"]) == (2, False)
  assert report["compared"]["split"] == "test"
  # It is loaded anew, from the run's own files.
  loaded = Trained.at(RunDirectory(copy), 2)
  with Store(copy / "checkpoints") as store:
    wanted = store.restore_params(2)["head"]["kernel"]
  np.testing.assert_array_equal(loaded.params["head"]["kernel"], wanted)


def test_a_run_whose_teacher_has_gone_is_exported_without_it(tmp_path, student):
  copy = tmp_path / "copy"
  shutil.copytree(student, copy)
  text = (copy / "config.gin").read_text()
  gone = re.sub("TEACHER = '.*'", "TEACHER = '/nowhere'", text)
  (copy / "config.gin").write_text(gone)
  done = export(copy, "hf", tmp_path / "out")
  assert done.code == 0, done.err
  assert "no teacher: a run's directory must exist, got /nowhere" in done.out
  report = json.loads((tmp_path / "out" / "export.json").read_text())
  assert report["num_params"]["teacher"] is None
  assert "teacher" not in report["latency"]


# --- or nothing ------------------------------------------------------------


WRITE_HF = exporting.ARCHITECTURES[EncT5Config]["hf"].write


def off_by(amount):
  """A writer of files whose head is off by so much."""

  def write(directory, served, vocab, weights):
    bias = weights["head/bias"] + np.float32(amount)
    WRITE_HF(directory, served, vocab, weights | {"head/bias": bias})

  return write


def of_other_texts(directory, served, vocab, weights):
  WRITE_HF(directory, served, vocab, weights)
  file = directory / "texts.py"
  text = file.read_text()
  cut_in_front = text.replace("ids[0][: keep[0]]", "ids[0][-keep[0] :]")
  assert cut_in_front != text
  file.write_text(cut_in_front)


def fails(directory, served, vocab, weights):
  (directory / "config.json").write_text("{}")
  raise KeyboardInterrupt


@pytest.mark.parametrize(
  "write, code, said",
  [
    (off_by(2e-4), 1, "up to 0.0001, and differ by 0.0002"),
    (off_by(np.nan), 1, "differ by inf"),
    (of_other_texts, 1, "must read texts as the run does"),
    (fails, 130, "interrupted"),
  ],
)
def test_files_that_say_something_else_are_not_left_there(
  monkeypatch, tmp_path, pairs, write, code, said
):
  hf = dataclasses.replace(
    exporting.ARCHITECTURES[EncT5Config]["hf"], write=write
  )
  monkeypatch.setitem(exporting.ARCHITECTURES, EncT5Config, {"hf": hf})
  done = export(pairs, "hf", tmp_path / "out")
  assert done.code == code, done.err
  assert said in done.err
  assert done.err.count("\n") == 1
  assert os.listdir(tmp_path) == []


def test_a_little_less_than_the_tolerance_is_no_failure(
  monkeypatch, tmp_path, made
):
  hf = dataclasses.replace(
    exporting.ARCHITECTURES[EncT5Config]["hf"], write=off_by(9e-5)
  )
  monkeypatch.setitem(exporting.ARCHITECTURES, EncT5Config, {"hf": hf})
  assert export(made, "hf", tmp_path / "out").code == 0


def test_an_export_is_made_anew_by_force_alone_and_only_as_a_whole(
  monkeypatch, tmp_path, made
):
  out = tmp_path / "out"
  out.mkdir()  # An empty one is as good as none.
  assert export(made, "hf", out).code == 0
  before = snapshot(out)
  done = export(made, "stablehlo", out)
  assert done.code == 2
  assert "holds an export already; give --force" in done.err
  hf = dataclasses.replace(
    exporting.ARCHITECTURES[EncT5Config]["hf"], write=off_by(1)
  )
  with monkeypatch.context() as patch:
    patch.setitem(exporting.ARCHITECTURES, EncT5Config, {"hf": hf})
    assert export(made, "hf", out, "--force").code == 1
  assert snapshot(out) == before
  assert export(made, "stablehlo", out, "--force").code == 0
  assert {p.name for p in out.iterdir()} == FILES["stablehlo", "float32"]
  assert os.listdir(tmp_path) == ["out"]


def no_checkpoint(copy):
  shutil.rmtree(copy / "checkpoints")


def damaged(copy):
  for file in (copy / "checkpoints").rglob("*"):
    if file.is_file() and file.name != "_CHECKPOINT_METADATA":
      file.write_bytes(file.read_bytes()[:10])


def damaged_gin(copy):
  (copy / "student.gin").write_text("Served.max_length = \n")


def empty(copy):
  shutil.rmtree(copy)
  copy.mkdir()


def not_there(copy):
  shutil.rmtree(copy)


def begun(copy):
  no_checkpoint(copy)
  (copy / "results.json").unlink()


def without_rows(copy):
  shutil.rmtree(copy / "predictions")
  (copy / "config.gin").write_text("RunConfig.data = @DataConfig()\n")


@pytest.mark.parametrize(
  "spoil, code, said",
  [
    (no_checkpoint, 1, ["no readable checkpoint of step 3", "checkpoints"]),
    (damaged, 1, ["no readable checkpoint of step 3"]),
    (damaged_gin, 2, ["gin"]),
    (empty, 2, ["must hold a finished run, but has no results.json"]),
    (not_there, 2, ["a run's directory must exist"]),
    (begun, 2, ["must hold a finished run"]),
    (without_rows, 2, ["the rows of", "run"]),
  ],
)
def test_a_directory_that_is_no_whole_run_is_explained(
  tmp_path, made, spoil, code, said
):
  copy = tmp_path / "run"
  shutil.copytree(made, copy)
  spoil(copy)
  before = snapshot(tmp_path)
  done = export(copy, "hf", tmp_path / "out")
  assert done.code == code, done.err
  *_, last = done.err.splitlines()
  assert last.startswith("augdistill: error: ")
  for words in said:
    assert words in last
  assert snapshot(tmp_path) == before
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("finished", [True, False])
def test_a_pretrained_model_has_no_outputs_to_export(tmp_path, made, finished):
  copy = tmp_path / "run"
  shutil.copytree(made, copy)
  served = ServedMaskedLM(Trained.load(str(made)).served.model, 16)
  (copy / "student.gin").write_text(served_masked_text(served))
  found = json.loads((copy / "results.json").read_text())
  found["method"] = "masked_lm"
  (copy / "results.json").write_text(json.dumps(found))
  if not finished:
    (copy / "results.json").unlink()
  done = export(copy, "hf", tmp_path / "out")
  assert done.code == 2
  assert "must hold a run of augdistill finetune or distill" in done.err


@pytest.mark.parametrize(
  "output, said",
  [
    ("{made}/checkpoints", "must not lie in the run's own checkpoints"),
    ("{made}/checkpoints/new", "must not lie in the run's own checkpoints"),
    ("{made}", "must be new or empty, but"),
    ("{made}/..", "must be new or empty, but"),
    ("{made}/results.json", "must be a directory, got the file"),
    ("{made}/results.json/out", "Choose another --output"),
  ],
)
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_place_that_is_needed_otherwise_is_not_touched(
  made, output, said, force
):
  before = snapshot(made)
  done = export(made, "hf", output.format(made=made), *force)
  assert (done.code, done.out) == (2, "")
  assert said in done.err
  assert snapshot(made) == before


def test_force_does_not_remove_a_run_with_the_export_that_it_lies_in(
  tmp_path, made
):
  shutil.copytree(made, tmp_path / "run")
  (tmp_path / "export.json").write_text("{}")
  before = snapshot(tmp_path)
  done = export(tmp_path / "run", "hf", tmp_path, "--force")
  assert done.code == 2
  assert "must be new or empty" in done.err
  assert snapshot(tmp_path) == before


def test_a_place_in_the_run_is_fine(tmp_path, made):
  copy = tmp_path / "run"
  shutil.copytree(made, copy)
  assert export(copy, "hf", copy / "export").code == 0
  assert export(copy, "hf", copy / "export", "--force").code == 0


@pytest.mark.parametrize(
  "words, said",
  [
    (["--format=onnx"], "'onnx' (choose from hf, stablehlo, t5x)"),
    (["--format=hf", "--weights=int4"], "'int4' (choose from float32, int8)"),
    ([], "--format"),
  ],
)
def test_what_there_is_not_is_named_in_one_line(tmp_path, words, said):
  done = run("export", "--run=x", f"--output={tmp_path / 'out'}", *words)
  assert done.code == 2
  # Python 3.12 does not quote the choices.
  quoted = re.sub(r"(?<=[ m])'(\w+)'(?=[,)])", r"\1", done.err)
  assert said in quoted


def test_a_network_that_no_format_writes_is_named(monkeypatch, tmp_path, made):
  monkeypatch.setattr(exporting, "ARCHITECTURES", {})
  done = export(made, "hf", tmp_path / "out")
  assert done.code == 2
  assert "got one of EncT5Config" in done.err
