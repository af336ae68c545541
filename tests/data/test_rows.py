"""Any seqio Task, and GLUE over TFDS, as tables. Nothing is downloaded."""

import pytest

from augdistill.data import glue, rows
from augdistill.data.load import DataConfig, load_data
from augdistill.data.tasks import encode_texts, import_seqio
from augdistill.errors import UsageError


@pytest.fixture
def register(request):
  """Registers a Task of features, by split; it is gone after the test."""
  seqio = import_seqio()
  import tensorflow as tf

  name = request.node.name.split("[")[0]

  def add(preprocessors, vocabulary=None, **splits):
    vocabulary = vocabulary or seqio.ByteVocabulary()
    features = {"inputs": seqio.Feature(vocabulary)}
    if any("targets" in columns for columns in splits.values()):
      features["targets"] = seqio.Feature(vocabulary)
    seqio.TaskRegistry.add(
      name,
      source=seqio.FunctionDataSource(
        lambda split, shuffle_files, seed=None: (
          tf.data.Dataset.from_tensor_slices(splits[split])
        ),
        splits=tuple(splits),
      ),
      preprocessors=preprocessors,
      output_features=features,
    )
    return name

  yield add
  seqio.TaskRegistry.remove(name)


def test_a_text_to_text_task_gives_texts_and_names(register):
  seqio = import_seqio()
  name = register(
    [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
    train={"inputs": ["cola: é", "cola: b"], "targets": ["yes", "no"]},
    test={"inputs": ["cola: c"], "targets": [""]},
  )
  tables, vocab = rows.read_task(name)
  assert set(tables) == {"train"}  # test is unlabelled
  assert tables["train"].texts == [("cola: é",), ("cola: b",)]
  assert tables["train"].labels == ["yes", "no"]
  assert vocab is None


def test_tokens_without_their_texts_are_decoded(register):
  seqio = import_seqio()
  name = register(
    [
      lambda dataset, output_features: seqio.preprocessors.tokenize(
        dataset, output_features, copy_pretokenized=False
      ),
      seqio.preprocessors.append_eos,
    ],
    train={"inputs": ["a b", "c"], "targets": ["2.5", "3"]},
  )
  tables, _ = rows.read_task(name)
  assert tables["train"].texts == [("a b",), ("c",)]
  assert tables["train"].labels == ["2.5", "3"]


def test_columns_of_texts_and_numbers_as_labels(register):
  name = register(
    [encode_texts],
    train={"sentence1": ["a"], "sentence2": ["b"], "label": [1]},
    validation={"sentence1": ["a"], "sentence2": ["b"], "label": [0]},
    test={"sentence1": ["a"], "sentence2": ["b"], "label": [-1]},
  )
  tables, _ = rows.read_task(name)
  assert tables["train"].texts == [("a", "b")]
  assert [t.labels for t in tables.values()] == [["1"], ["0"]]


def test_a_task_loads_end_to_end_with_its_own_vocabulary(
  register, vocab, texts, tmp_path
):
  name = register(
    [encode_texts],
    vocabulary=vocab.seqio_vocabulary(tmp_path),
    train={"sentence": list(texts), "label": ["x", "y", "x", "y", "x"]},
    test={"sentence": ["my card"], "label": ["y"]},
  )
  data = load_data(DataConfig(task=name, cache_dir=str(tmp_path)))
  assert data.vocab.fingerprint == vocab.fingerprint
  assert data.task.name == name
  assert data.task.label_names == ("x", "y")
  assert (len(data.train), len(data.validation), len(data.test)) == (4, 1, 1)
  tokens = data.test.tokens.tolist()
  assert tokens == [*vocab.encode(["my card"])[0], vocab.frame.end_id]


def test_an_unknown_task_is_refused_with_the_near_one():
  with pytest.raises(UsageError, match=r"'colla'\. Did you mean 'cola'\?"):
    rows.read_task("colla")


def test_a_task_that_breaks_is_named_with_its_error(register):
  def breaks(dataset):
    raise RuntimeError("no such bucket\nand a long story")

  name = register([breaks], train={"inputs": ["a"]})
  with pytest.raises(UsageError, match=f"{name}.*no such bucket$"):
    rows.read_task(name)


def test_a_label_that_is_not_a_number_in_a_task_is_refused(register):
  name = register(
    [encode_texts],
    train={"sentence": ["a", "b"], "label": [1.5, float("nan")]},
  )
  with pytest.raises(UsageError, match=f"'{name}', split 'train', line 2"):
    rows.read_task(name)


@pytest.fixture
def mock_tfds(monkeypatch):
  """TFDS gives random rows; whoever reaches for the network fails."""
  import_seqio()
  import tensorflow_datasets as tfds

  def network(*args):
    raise AssertionError("reached for the network")

  monkeypatch.setattr(glue, "check_reachable", network)
  with tfds.testing.mock_data(num_examples=12):
    yield


@pytest.mark.filterwarnings("ignore")  # TFDS's own
@pytest.mark.parametrize("name", glue.GLUE)
def test_every_task_of_glue_is_read(name, mock_tfds, tmp_path, monkeypatch):
  tables = rows.read_glue(name, str(tmp_path / "tfds"), str(tmp_path))
  task = glue.glue_task(name)
  assert {"train", "validation"} <= set(tables)
  for table in tables.values():
    assert len(table.texts) == len(table.labels) == 12
    assert table.pair == task.pair
    if task.label_names:
      assert set(table.labels) <= set(task.label_names)
    else:
      assert all(0 <= float(label) < 1 for label in table.labels)
  import tensorflow_datasets as tfds

  config = glue.GLUE[name].config or name
  label = tfds.builder(f"glue/{config}").info.features["label"]
  assert task.label_names == tuple(getattr(label, "names", ()))
  # The second time they come from the cache.
  monkeypatch.setattr(glue, "glue_seqio_task", None)
  again = rows.read_glue(name, str(tmp_path / "tfds"), str(tmp_path))
  assert again == tables


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["matched", "mismatched"])
def test_mnli_is_validated_on_one_of_its_two_sets(suffix, tmp_path):
  import_seqio()
  import tensorflow as tf
  import tensorflow_datasets as tfds

  asked = []

  def as_dataset(builder, split, **kwargs):
    asked.append((builder.builder_config.name, split))
    row = {"premise": ["a"], "hypothesis": ["b"], "label": [2], "idx": [0]}
    return tf.data.Dataset.from_tensor_slices(row)

  with tfds.testing.mock_data(as_dataset_fn=as_dataset):
    tables = rows.read_glue(f"mnli_{suffix}", None, str(tmp_path))
  assert asked == [
    ("mnli", "train"),
    ("mnli", f"validation_{suffix}"),
    ("mnli", f"test_{suffix}"),
  ]
  assert tables["train"].labels == ["contradiction"]
  assert tables["train"].texts == [("a", "b")]


@pytest.mark.filterwarnings("ignore")
def test_hidden_test_rows_come_with_their_numbers_at_glue(tmp_path):
  import_seqio()
  import tensorflow as tf
  import tensorflow_datasets as tfds

  def as_dataset(builder, split, **kwargs):
    assert split == "test"
    hidden = {"sentence1": ["a", "c"], "sentence2": ["b", "d"]}
    return tf.data.Dataset.from_tensor_slices(
      hidden | {"label": [-1, -1], "idx": [7, 3]}
    )

  with tfds.testing.mock_data(as_dataset_fn=as_dataset):
    texts, numbers = rows.read_glue_test("rte", None)
  assert texts == [("a", "b"), ("c", "d")]
  assert numbers == [7, 3]


@pytest.mark.parametrize(
  ("name", "said", "written"),
  [
    ("rte", "not_entailment", "not_entailment"),
    ("mnli", "neutral", "neutral"),
    ("sst2", "positive", "1"),
    ("cola", "unacceptable", "0"),
    ("stsb", 2.34567, "2.346"),
    ("stsb", 7.0, "5.000"),
    ("stsb", -1.0, "0.000"),
  ],
)
def test_submissions_are_written_as_the_leaderboard_takes_them(
  name, said, written
):
  lines = [*glue.submission_lines(name, [(1, said), (0, said)])]
  assert lines == [
    "index\tprediction\n",
    f"0\t{written}\n",
    f"1\t{written}\n",
  ]
  assert all(task.submission.endswith(".tsv") for task in glue.GLUE.values())


@pytest.mark.filterwarnings("ignore")
def test_glue_loads_end_to_end_with_official_names_and_metrics(
  mock_tfds, tmp_path
):
  config = DataConfig(
    task="mrpc", tfds_data_dir=str(tmp_path), cache_dir=str(tmp_path / "c")
  )
  data = load_data(config)
  assert data.task == glue.glue_task("mrpc")
  assert data.task.metrics == ("f1", "accuracy")
  assert data.task.label_names == ("not_equivalent", "equivalent")
  assert (len(data.train), len(data.validation)) == (12, 12)
  assert (data.train.tokens == data.vocab.frame.end_id).sum() == 24


def test_hidden_labels_are_empty_and_numbers_are_short():
  import tensorflow as tf

  rename = glue._rename
  dataset = tf.data.Dataset.from_tensor_slices(
    {
      "question": ["q"] * 3,
      "sentence": ["s"] * 3,
      "label": [0, 1, -1],
      "idx": [0, 1, 2],
    }
  )
  renamed = list(rename(dataset, ("question", "sentence"), ("no", "yes")))
  labels = [row["label"].numpy() for row in renamed]
  assert labels == [b"no", b"yes", b""]
  assert renamed[0]["sentence1"].numpy() == b"q"
  dataset = tf.data.Dataset.from_tensor_slices(
    {"sentence": ["s"] * 2, "label": [3.8, -1.0], "idx": [0, 1]}
  )
  labels = [r["label"].numpy() for r in rename(dataset, ("sentence",), ())]
  assert labels == [b"3.8", b""]


def test_data_that_are_not_there_and_cannot_come_are_one_clear_error(
  monkeypatch, tmp_path
):
  import requests

  def offline(*args, **kwargs):
    raise requests.ConnectionError

  import_seqio()
  import tensorflow_datasets as tfds

  downloads = []
  monkeypatch.setattr(tfds, "load", lambda *a, **k: downloads.append(a))
  monkeypatch.setattr(requests, "head", offline)
  with pytest.raises(UsageError, match=f"{tmp_path}.*--tfds_data_dir"):
    rows.read_glue("rte", str(tmp_path), str(tmp_path / "cache"))
  assert not (tmp_path / "cache").exists()
  assert not downloads  # it would try for minutes


def test_glue_can_be_registered_twice():
  glue.register()
  glue.register()
  names = import_seqio().TaskRegistry.names()
  assert {f"augdistill_glue_{name}" for name in glue.GLUE} <= set(names)
