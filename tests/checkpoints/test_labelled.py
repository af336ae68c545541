"""What a foreign classifier's outputs mean."""

import numpy as np
import pytest

from augdistill.checkpoints.foreign import Stored
from augdistill.checkpoints.labelled import task_of
from augdistill.errors import UsageError
from augdistill.types import Task, TaskKind


def with_outputs(count):
  kernel = Stored((8, count), np.dtype("f4"), lambda: np.zeros((8, count)))
  return {"head/kernel": kernel}


@pytest.mark.parametrize(
  ("count", "config", "task"),
  [
    (
      2,
      {"id2label": {"0": "no", "1": "yes"}},
      Task("m", TaskKind.CLASSES, ("no", "yes")),
    ),
    (3, {}, Task("m", TaskKind.CLASSES, ("0", "1", "2"))),
    (
      2,
      {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}},
      Task("m", TaskKind.CLASSES, ("0", "1")),
    ),
    (1, {"id2label": {"0": "LABEL_0"}}, Task("m", TaskKind.REGRESSION)),
    (1, {"problem_type": "regression"}, Task("m", TaskKind.REGRESSION)),
    (
      2,
      {
        "problem_type": "multi_label_classification",
        "id2label": {"0": "rude", "1": "spam"},
      },
      Task("m", TaskKind.MULTI_LABEL, ("rude", "spam")),
    ),
  ],
)
def test_classes_have_the_names_of_the_config(count, config, task):
  assert task_of(with_outputs(count), config, "models/m/") == task


def test_a_model_without_a_head_has_no_task():
  assert task_of({}, {"id2label": {"0": "a"}}, "m") is None


@pytest.mark.parametrize(
  ("config", "message"),
  [
    ({"problem_type": "ranking"}, "m must have a problem_type of .*'ranking'"),
    ({"id2label": {"0": "a", "1": "a"}}, "m must name its classes apart"),
  ],
)
def test_what_cannot_be_meant_is_refused(config, message):
  with pytest.raises(UsageError, match=message):
    task_of(with_outputs(2), config, "m")


@pytest.mark.parametrize(
  "config, said",
  [
    (
      {"id2label": ["no", "yes"]},
      "m must have a config.json whose id2label is",
    ),
    ({"problem_type": ["regression"]}, "whose problem_type is a text, got"),
  ],
)
def test_a_field_of_another_kind_is_told(config, said):
  with pytest.raises(UsageError, match=said):
    task_of(with_outputs(2), config, "m")


def test_names_that_are_null_are_none():
  config = {"id2label": None, "problem_type": None}
  assert task_of(with_outputs(2), config, "m").label_names == ("0", "1")


@pytest.mark.parametrize("shape", [(), (3,), (8, 0)])
def test_a_head_that_is_no_matrix_is_told(shape):
  head = {"head/kernel": Stored(shape, np.dtype("f4"), lambda: np.zeros(shape))}
  with pytest.raises(UsageError, match="a classifier, but head/kernel is floa"):
    task_of(head, {}, "m")
