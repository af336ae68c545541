"""Runs whose models are of the BERT family, read from directories."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from augdistill.cli.trained import Trained
from augdistill.data.batches import eval_batches
from augdistill.data.texts import encode_rows
from augdistill.data.vocabulary import load_vocab
from augdistill.evaluation.predict import predict
from augdistill.models.bert_config import BertConfig
from tests.cli.tiny import (
  LABELS,
  TINY,
  examples,
  ok,
  params,
  read_jsonl,
  results,
  run,
  write_tsv,
)

GOLDEN = pathlib.Path(__file__).parents[1] / "checkpoints" / "golden"
PIECES = (
  *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##s", "##ing", "app"),
  *("card", "cash", "money", "phone", "my", "the", "work", "not"),
)
NO_MODEL = tuple(flag for flag in TINY if not flag.startswith("--model"))
METHOD = "kd+augpro_mix+ad2(epsilon=1.0)+hidden_mse"


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
  """A directory with a BERT of two layers and the 16 pieces above."""
  folder = tmp_path_factory.mktemp("transformers") / "bert"
  shutil.copytree(GOLDEN / "bert", folder)
  (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
  return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
  """The flags of pairs of texts."""
  folder = tmp_path_factory.mktemp("pairs")
  rows = [(text, f"my {text}s", label) for text, label in examples(36)]
  header = ("sentence1", "sentence2", "label")
  write_tsv(folder / "train.tsv", rows[:24], header)
  write_tsv(folder / "test.tsv", rows[24:], header)
  return f"--train={folder / 'train.tsv'}", f"--test={folder / 'test.tsv'}"


@pytest.fixture(scope="module")
def distilled(tmp_path_factory, bert, pairs):
  """A run of a BERT and a student of its first layer, with its output."""
  output = tmp_path_factory.mktemp("runs") / "run"
  done = ok(
    *("distill", *pairs, *NO_MODEL, "--teacher_num_steps=4"),
    *(f"--teacher_init={bert}", f"--init={bert}", "--init_layers=bottom"),
    *("--gin.model_like.num_layers=1", f"--method={METHOD}"),
    "--gin.make_optimizer.learning_rate=1e-9",
    f"--output_dir={output}",
  )
  return output, done


def test_teacher_and_student_begin_with_its_weights(distilled, bert):
  output, done = distilled
  there = load_file(bert / "model.safetensors")
  made, taught = params(output), params(output / "teacher")
  for run_params, layers in ((made, (0,)), (taught, (0, 1))):
    for layer in layers:
      np.testing.assert_allclose(
        run_params["encoder"][f"layers_{layer}"]["attention"]["query"][
          "kernel"
        ],
        there[f"bert.encoder.layer.{layer}.attention.self.query.weight"].T,
        atol=0.01,
      )
  assert set(made["encoder"]) == {"layers_0"}
  assert "pooler (72)" in done.out


def test_the_vocabulary_goes_with_the_run(distilled, bert):
  output, _ = distilled
  want = load_vocab(bert).fingerprint
  for path in (output, output / "teacher"):
    assert load_vocab(path / "vocab").fingerprint == want
  served = Trained.load(str(output)).served.model
  assert isinstance(served, BertConfig)
  assert (served.num_layers, served.separator_id) == (1, 3)


def test_what_a_text_is_counts_for_its_prediction(distilled):
  # The texts of a pair are told apart: turned around, they say another thing.
  output, _ = distilled
  lines = b"my app\twork\nwork\tmy app\n"
  done = ok("predict", "--run", output, "--input", "-", stdin=lines)
  one, other = (json.loads(line) for line in done.out.splitlines())
  assert one["prediction"] in LABELS
  assert one != other


@pytest.fixture(scope="module", params=["hf", "stablehlo"])
def exported(request, tmp_path_factory, distilled):
  """The student written for others, and what was said of it."""
  output = tmp_path_factory.mktemp("exports") / request.param
  flags = f"--format={request.param}", f"--output={output}"
  done = ok("export", f"--run={distilled[0]}", *flags)
  return output, request.param, done


def test_an_export_says_what_the_run_says(exported):
  output, kind, _ = exported
  report = json.loads((output / "export.json").read_text())
  assert report["architecture"] == "BertConfig"
  assert report["compared"]["largest_difference"] <= 1e-4
  assert report["compared"]["rows"] == 12
  names = {path.name for path in output.iterdir()}
  assert {"tokenizer.json", "task.json", "texts.py", "README.md"} <= names
  assert ("model.safetensors" in names) == (kind == "hf")
  readme = (output / "README.md").read_text()
  assert "`tokenizer.json`" in readme and "tokenizers" in readme
  assert "spiece" not in readme and "sentencepiece" not in readme


def test_an_export_is_a_classifier_again(exported, distilled, pairs):
  output, kind, _ = exported
  if kind != "hf":
    return
  (test,) = (flag for flag in pairs if flag.startswith("--test"))
  file = test.partition("=")[2]
  said = [
    json.loads(ok("evaluate", f"--run={run}", f"--data={file}").out)
    for run in (output, distilled[0])
  ]
  assert said[0] == said[1]
  config = json.loads((output / "config.json").read_text())
  assert [config["id2label"][str(i)] for i in range(3)] == sorted(LABELS)
  assert config["vocab_size"] == len(PIECES)


def test_transformers_loads_an_export(exported, distilled):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  output, kind, _ = exported
  if kind != "hf":
    return
  tokenizer = transformers.AutoTokenizer.from_pretrained(output)
  model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
    output, output_loading_info=True
  )
  assert not info["missing_keys"] and not info["unexpected_keys"]
  assert set(model.config.id2label.values()) == set(LABELS)
  texts = [("my app", "works not"), ("the cards", "my money")]
  given = tokenizer(
    *map(list, zip(*texts, strict=True)), padding=True, return_tensors="pt"
  )
  with torch.no_grad():
    logits = model.eval()(**given).logits.numpy()
  trained = Trained.load(str(distilled[0]))
  rows = encode_rows(texts, trained.vocab, 16, 3)
  expected = predict(trained.network, trained.params, eval_batches(rows, 2))
  np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_int8_is_not_written_for_who_would_misread_it(tmp_path, distilled):
  done = run(
    *("export", f"--run={distilled[0]}", "--format=hf", "--weights=int8"),
    f"--output={tmp_path / 'out'}",
  )
  assert done.code == 2
  assert "--format stablehlo" in done.err
  assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, bert):
  """The same BERT, its classes named in an order of their own."""
  folder = tmp_path_factory.mktemp("transformers") / "classifier"
  shutil.copytree(bert, folder)
  config = json.loads((folder / "config.json").read_text())
  config["id2label"] = {"0": "cash", "1": "app", "2": "card"}
  (folder / "config.json").write_text(json.dumps(config))
  return folder


def test_a_fine_tuned_classifier_is_used_as_a_run_is(classifier, files):
  line = ok("predict", "--run", classifier, "--input", "-", stdin=b"my card\n")
  said = json.loads(line.out)
  assert set(said["probabilities"]) == set(LABELS)
  shown = ok("evaluate", "--run", classifier, f"--data={files / 'test.tsv'}")
  assert json.loads(shown.out)["examples"] == 12
  text = ok(
    *("augment", "--method=augpro_mix", f"--data={files / 'train.tsv'}"),
    f"--teacher={classifier}",
  )
  assert "changed" in text.out


def test_a_fine_tuned_classifier_teaches(tmp_path, classifier, data):
  output = tmp_path / "run"
  ok(
    *("distill", *data, *NO_MODEL, f"--teacher={classifier}", "--force"),
    *(f"--init={classifier}", "--init_layers=top", "--method=kd"),
    *("--gin.model_like.num_layers=1", f"--output_dir={output}"),
  )
  # The student's outputs stand in the teacher's order.
  task = Trained.load(str(output)).served.task
  assert task.label_names == ("cash", "app", "card")
  found, there = results(output), load_file(classifier / "model.safetensors")
  assert found["teacher_metrics"]["test"]["accuracy"] >= 0
  np.testing.assert_allclose(
    params(output)["encoder"]["layers_0"]["wi"]["kernel"],
    there["bert.encoder.layer.1.intermediate.dense.weight"].T,
    atol=0.01,
  )


def test_a_model_that_knows_no_classes_does_not_teach(tmp_path, masked, data):
  done = run(
    *("distill", *data, *TINY, f"--teacher={masked}", "--method=kd"),
    f"--output_dir={tmp_path / 'run'}",
  )
  assert done.code == 2
  assert "must hold a fine-tuned classifier" in done.err
  assert f"--teacher_init {masked}" in done.err


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
  """A directory with a masked language model of the same pieces."""
  folder = tmp_path_factory.mktemp("transformers") / "masked"
  shutil.copytree(GOLDEN / "bert_masked", folder)
  (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
  return folder


def test_a_masked_language_model_rewrites_texts(tmp_path, masked):
  rows = [("my card not work", "x"), ("the phones", "x")]
  data = write_tsv(tmp_path / "train.tsv", rows)
  output = tmp_path / "rewrites.jsonl"
  done = ok(
    *("rewrite", f"--data={data}", f"--generator={masked}", "--copies=2"),
    f"--output={output}",
  )
  assert "of tokens changed" in done.out
  found = read_jsonl(output)
  assert [row["sentence"] for row in found] == [text for text, _ in rows]
  vocab = load_vocab(masked)
  for row in found:
    assert len(row["rewrites"]) == 2
    for tokens in vocab.encode(row["rewrites"]):
      # Words of the vocabulary, whose specials are not to be produced.
      assert vocab.lexicon.producible[tokens].all()


def test_a_model_without_a_head_for_masked_words_rewrites_nothing(
  tmp_path, bert
):
  data = write_tsv(tmp_path / "train.tsv", [("my card", "x")])
  output = tmp_path / "rewrites.jsonl"
  done = run(
    *("rewrite", f"--data={data}", f"--generator={bert}"),
    f"--output={output}",
  )
  assert done.code == 2
  assert "must hold the whole model, head and all" in done.err
  assert "masked_head/dense/kernel" in done.err
  assert not output.exists()


def test_texts_longer_than_its_positions_are_refused(tmp_path, bert, pairs):
  done = run(
    *("finetune", *pairs, *NO_MODEL, f"--init={bert}", "--max_length=25"),
    f"--output_dir={tmp_path / 'run'}",
  )
  assert done.code == 2
  assert "--max_length must be at most 24" in done.err
  assert not (tmp_path / "run").exists()


def test_texts_longer_than_a_teachers_positions_are_refused(
  tmp_path, classifier, data
):
  done = run(
    *("distill", *data, *TINY, f"--teacher={classifier}", "--method=kd"),
    *("--max_length=25", f"--output_dir={tmp_path / 'run'}"),
  )
  assert done.code == 2
  assert "--max_length must be at most 24" in done.err


def test_teacher_and_student_may_be_of_two_families(
  tmp_path, bert, teacher, data
):
  # With a vocabulary each, so that only answers can be compared.
  flags = *data, *NO_MODEL, f"--teacher={teacher}", f"--init={bert}"
  output = tmp_path / "run"
  refused = run(
    "distill", *flags, "--method=kd+augpro_mix", f"--output_dir={output}"
  )
  assert refused.code == 2
  assert "must read with one vocabulary" in refused.err
  done = ok("distill", *flags, "--method=kd", f"--output_dir={output}")
  assert "the teacher reads with its own vocabulary" in done.out
  assert isinstance(Trained.load(str(output)).served.model, BertConfig)


@pytest.mark.parametrize(
  "field, value, said",
  [
    ("num_attention_heads", "two", "whose num_attention_heads is a whole num"),
    ("num_attention_heads", 3, "num_heads must divide emb_dim, got 3 and 8"),
    ("model_type", ["bert"], "one of the types t5"),
    ("layer_norm_eps", float("nan"), "epsilon must be in [0, 1), got nan"),
    ("id2label", ["app"], "whose id2label is an object"),
  ],
)
def test_a_spoilt_configuration_is_refused_in_one_line(
  tmp_path, classifier, data, field, value, said
):
  folder = tmp_path / "spoilt"
  shutil.copytree(classifier, folder)
  config = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(config | {field: value}))
  output = tmp_path / "run"
  for line in (
    ("distill", *TINY, f"--teacher={folder}", "--method=kd"),
    ("finetune", *NO_MODEL, f"--init={folder}"),
  ):
    done = run(*line, *data, f"--output_dir={output}")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert said in done.err and str(folder) in done.err
    assert not output.exists()


def test_weights_that_are_not_finite_are_refused(tmp_path, classifier, data):
  folder = tmp_path / "spoilt"
  shutil.copytree(classifier, folder)
  file = folder / "model.safetensors"
  weights = load_file(file)
  weights["bert.pooler.dense.bias"][3] = np.nan
  save_file(weights, file)
  done = run(
    *("distill", *TINY, f"--teacher={folder}", "--method=kd", *data),
    f"--output_dir={tmp_path / 'run'}",
  )
  assert done.code == 2
  assert "pooler/bias in finite numbers, got 1 of 8 that are NaN" in done.err


@pytest.mark.slow
def test_a_grid_of_berts_begins_as_its_teacher_does(tmp_path, bert, pairs):
  output = tmp_path / "grid"
  done = run(
    *("compare", *pairs, *NO_MODEL, "--teacher_num_steps=4", "--force"),
    *("--methods=kd,kd+augpro_mix", "--seeds=0", f"--teacher_init={bert}"),
    *(f"--init={bert}", "--init_layers=bottom"),
    *("--gin.model_like.num_layers=1", f"--output_dir={output}"),
  )
  assert done.code == 0, done.err
  cells = read_jsonl(output / "results.jsonl")
  assert [cell["error"] for cell in cells] == [None, None]
  assert results(output / "teacher")["num_params"]["student"]
