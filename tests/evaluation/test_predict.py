"""Predictions come in the data set's order, without padding, and are named."""

import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.data.dataset import Examples
from augdistill.evaluation import predict
from augdistill.evaluation.predictions import write_predictions
from augdistill.types import Batch, Network, Outputs, Task, TaskKind
from tests.reference import metrics as reference

NAMES = ("no", "yes")
CLASSES = Task("t", TaskKind.CLASSES, NAMES)
MULTI_LABEL = Task("t", TaskKind.MULTI_LABEL, NAMES)
REGRESSION = Task("t", TaskKind.REGRESSION)


def make_network():
  """Logits are the table's rows, summed over the tokens of a text."""
  traced = []

  def forward(params, inputs, *, key=None):
    assert key is None
    traced.append(inputs.tokens.shape)
    words = params["table"][inputs.tokens]  # [n, M, L, C]
    pooled = jnp.sum(words * inputs.mask[..., None].astype(words.dtype), axis=2)
    return Outputs(logits=pooled, pooled=pooled)

  network = Network(
    init=lambda key: {"table": jax.random.normal(key, (10, 2))},
    forward=forward,
    embed=lambda params, tokens: params["table"][tokens],
    table=lambda params: params["table"],
    logical_axes=lambda: {"table": ("vocab", "embed")},
    num_outputs=2,
  )
  return network, traced


def make_batches(tokens, batch_size):
  """The rows of `tokens` [N, L], the last batch filled with weight 0."""
  for start in range(0, len(tokens), batch_size):
    part = tokens[start : start + batch_size]
    fill = batch_size - len(part)
    rows = np.pad(part, ((0, fill), (0, 0)))
    yield Batch(
      tokens=rows.astype(np.int32),
      mask=rows > 0,
      label=np.zeros((batch_size, 2), np.float32),
      has_label=np.zeros(batch_size, bool),
      weight=(np.arange(batch_size) < len(part)).astype(np.float32),
      example_id=np.arange(start, start + batch_size, dtype=np.int32),
    )


@pytest.mark.parametrize("batch_size", [1, 8, 16, 23, 32])
def test_every_row_is_predicted_once_and_in_order(batch_size):
  tokens = np.random.default_rng(0).integers(0, 10, size=(23, 4))
  network, _ = make_network()
  params = network.init(jax.random.key(0))
  logits = predict.predict(network, params, make_batches(tokens, batch_size))
  table = np.asarray(params["table"], np.float64)
  expected = (table[tokens] * (tokens > 0)[..., None]).sum(axis=1)
  assert logits.dtype == np.float32
  np.testing.assert_allclose(logits, expected, rtol=1e-5)


def test_rows_of_a_split_are_predicted_with_those_of_their_length():
  rng = np.random.default_rng(0)
  lengths = rng.permutation([60] * 3 + [20] * 13 + [9] * 7)
  rows = [rng.integers(1, 10, size) for size in lengths]
  examples = Examples(
    tokens=np.concatenate(rows).astype(np.int32),
    offsets=np.cumsum([0, *lengths]),
    label=np.zeros((23, 2), np.float32),
    has_label=np.zeros(23, bool),
    example_id=np.arange(23, dtype=np.int32),
    read_texts=list,
  )
  network, traced = make_network()
  params = network.init(jax.random.key(0))
  logits = predict.predict_split(network, params, examples, 8)
  table = np.asarray(params["table"], np.float64)
  expected = [table[row].sum(axis=0) for row in rows]
  assert logits.dtype == np.float32
  np.testing.assert_allclose(logits, expected, rtol=1e-5)
  # The row that fills the last batch is no longer than the others there.
  assert traced == [(1, 8, 64), (1, 8, 24), (1, 8, 16)]


def test_a_network_is_compiled_once():
  tokens = np.ones((20, 4), np.int64)
  network, traced = make_network()
  for seed in (0, 1):
    params = network.init(jax.random.key(seed))
    predict.predict(network, params, make_batches(tokens, 8))
  assert traced == [(1, 8, 4)]


def test_no_batches_give_no_rows():
  network, _ = make_network()
  params = network.init(jax.random.key(0))
  assert predict.predict(network, params, []).shape == (0, 2)


def test_batches_may_be_spread_over_devices():
  tokens = np.random.default_rng(0).integers(0, 10, size=(23, 4))
  network, _ = make_network()
  params = network.init(jax.random.key(0))
  mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("data",))
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  np.testing.assert_allclose(
    predict.predict(
      network,
      params,
      make_batches(tokens, 8),
      place=functools.partial(jax.device_put, device=rows),
    ),
    predict.predict(network, params, make_batches(tokens, 8)),
    rtol=1e-6,
  )


def test_agreement_is_the_share_of_equal_answers():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, 50, 3))
  assert predict.agreement(a, a, CLASSES) == 1.0
  assert predict.agreement(a, b, CLASSES) == pytest.approx(
    reference.agreement(a.argmax(-1), b.argmax(-1))
  )
  assert predict.agreement(a, b, MULTI_LABEL) == np.mean((a > 0) == (b > 0))
  assert predict.agreement(a[:, :1], b[:, :1], REGRESSION) == pytest.approx(
    reference.pearson(a[:, 0], b[:, 0])
  )


def examples(texts, label, has_label):
  return types.SimpleNamespace(
    texts=texts,
    label=np.asarray(label, np.float32),
    has_label=np.asarray(has_label),
    example_id=np.arange(7, 7 + len(texts), dtype=np.int32),
  )


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_predictions_of_classes_show_both_models_probabilities(tmp_path):
  rows = examples([("naïve\nline",), ("b",)], [[0, 1], [0, 0]], [True, False])
  logits = np.log([[0.25, 0.75], [0.5, 0.5]])
  path = tmp_path / "predictions" / "test.jsonl"
  write_predictions(path, CLASSES, rows, logits, teacher_logits=-logits)
  assert "naïve" in path.read_text()
  assert read(path) == [
    {
      "example_id": 7,
      "sentence": "naïve\nline",
      "label": "yes",
      "prediction": "yes",
      "probabilities": {"no": 0.25, "yes": 0.75},
      "teacher_probabilities": {"no": 0.75, "yes": 0.25},
    },
    {
      "example_id": 8,
      "sentence": "b",
      "label": None,
      "prediction": "no",
      "probabilities": {"no": 0.5, "yes": 0.5},
      "teacher_probabilities": {"no": 0.5, "yes": 0.5},
    },
  ]


def test_predictions_of_sets_of_names_are_lists(tmp_path):
  rows = examples([("a", "b")], [[1, 1]], [True])
  path = tmp_path / "test.jsonl"
  write_predictions(path, MULTI_LABEL, rows, np.array([[-50.0, 0.1]]))
  [row] = read(path)
  assert list(row) == [
    "example_id",
    "sentence1",
    "sentence2",
    "label",
    "prediction",
    "probabilities",
    "teacher_probabilities",
  ]
  assert (row["sentence1"], row["sentence2"]) == ("a", "b")
  assert row["label"] == ["no", "yes"]
  assert row["prediction"] == ["yes"]
  assert row["probabilities"] == {"no": 0.0, "yes": 0.524979}
  assert row["teacher_probabilities"] is None


def test_predictions_of_a_regression_have_no_probabilities(tmp_path):
  rows = examples([("a",)], [[2.5]], [True])
  path = tmp_path / "test.jsonl"
  value = np.array([[2.25]])
  write_predictions(path, REGRESSION, rows, value, teacher_logits=value)
  assert read(path) == [
    {"example_id": 7, "sentence": "a", "label": 2.5, "prediction": 2.25}
  ]


def test_a_file_of_predictions_is_whole_or_as_it_was(tmp_path):
  path = tmp_path / "test.jsonl"
  path.write_text("before")
  rows = examples([("a",), ("b",)], [[0, 1]] * 2, [True] * 2)
  with pytest.raises(ValueError, match="equally many"):
    write_predictions(path, CLASSES, rows, np.zeros((1, 2)))
  assert path.read_text() == "before"
  assert [p.name for p in tmp_path.iterdir()] == ["test.jsonl"]
