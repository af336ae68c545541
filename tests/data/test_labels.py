"""What labels mean: kinds, names, orders, arrays."""

import numpy as np
import pytest

from augdistill.data.labels import encode_labels, infer_kind, infer_task
from augdistill.errors import UsageError
from augdistill.types import Task, TaskKind


def _where(row):
  return f"a.tsv, line {row + 2}"


@pytest.mark.parametrize(
  ("labels", "kind"),
  [
    (["b", "a"], "classes"),
    (["1", "0", "2"], "classes"),
    (["1.5", "2", "-3e-2"], "regression"),
    (["5.0", ".5"], "regression"),
    (["1.5", "x"], "classes"),
    (["v1.0", "v2.0"], "classes"),
    (["a", "a|b"], "multi_label"),
    (["a", ("b", "c")], "multi_label"),
  ],
)
def test_the_kind_is_inferred_from_all_labels(labels, kind):
  assert infer_kind(labels) == kind


def test_a_given_kind_beats_the_inferred_one():
  labels = ["1", "2"]
  assert infer_task("t", labels, kind="regression").kind == "regression"
  task = infer_task("t", ["a|b", "c"], kind="classes")
  assert task.label_names == ("a|b", "c")


def test_names_are_in_order_of_letters_or_of_integers():
  assert infer_task("t", ["b", "a", "10"]).label_names == ("10", "a", "b")
  assert infer_task("t", ["10", "9", "-1"]).label_names == ("-1", "9", "10")
  task = infer_task("t", ["c|a", ("b",), ()])
  assert task.label_names == ("a", "b", "c")


def test_a_task_has_the_metrics_of_its_kind():
  assert infer_task("t", ["a", "b"]).metrics[0] == "accuracy"
  task = infer_task("t", ["1.5"], pair=True)
  assert task == Task(
    "t", TaskKind.REGRESSION, (), ("pearson", "spearman", "mse"), pair=True
  )
  assert infer_task("t", ["a|b"]).metrics[0] == "micro_f1"


def test_one_class_is_too_few():
  with pytest.raises(UsageError, match=r"at least 2 .* got x"):
    infer_task("t", ["x", "x"])


def test_classes_become_one_hot_rows_in_the_order_of_names():
  task = Task("t", TaskKind.CLASSES, ("b", "a"))
  encoded = encode_labels(task, ["a", "b", "a"], _where)
  np.testing.assert_array_equal(encoded, [[0, 1], [1, 0], [0, 1]])
  assert encoded.dtype == np.float32


def test_sets_of_names_become_zeros_and_ones():
  task = Task("t", TaskKind.MULTI_LABEL, ("a", "b", "c"))
  encoded = encode_labels(task, ["c | a", ("b",), (), "a"], _where)
  expected = [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0]]
  np.testing.assert_array_equal(encoded, expected)


def test_values_become_one_column():
  encoded = encode_labels(Task("t", TaskKind.REGRESSION), ["1.5", "-2"], _where)
  np.testing.assert_array_equal(encoded, np.float32([[1.5], [-2]]))


@pytest.mark.parametrize(
  ("kind", "names", "label", "said"),
  [
    ("classes", ("card", "cash"), "crad", "Did you mean 'card'"),
    ("multi_label", ("card", "cash"), "card|crad", "'crad'"),
    ("classes", ("card", "cash"), ("card", "cash"), "one name"),
    ("classes", ("card", "cash"), (), "one name"),
    ("regression", (), "high", "'high'"),
    ("regression", (), "1.5x", "'1.5x'"),
    ("regression", (), "1_0.5", "'1_0.5'"),
    ("regression", (), "nan", "'nan'"),
    ("regression", (), "1e39", "'1e39'"),
    ("regression", (), ("1.0",), "number"),
  ],
)
def test_a_label_that_the_task_lacks_is_refused_with_its_line(
  kind, names, label, said
):
  good = names[0] if names else "1.0"
  with pytest.raises(UsageError, match="line 3") as caught:
    encode_labels(Task("t", TaskKind(kind), names), [good, label], _where)
  assert said in str(caught.value)
