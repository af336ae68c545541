"""Errors meant for a person."""

import doctest

import pytest

from augdistill import errors


@pytest.mark.parametrize(
  ("error", "code"),
  [(errors.UsageError, 2), (errors.RunError, 1), (errors.Preempted, 75)],
)
def test_each_error_knows_its_exit_code(error, code):
  assert issubclass(error, errors.AugdistillError)
  assert error("x").exit_code == code


def test_the_nearest_known_name_is_suggested():
  known = ["kd", "mixup", "augpro_mix", "augpro_fgsm"]
  assert errors.suggest("augpro_fsgm", known) == " Did you mean 'augpro_fgsm'?"


def test_a_name_in_the_wrong_case_is_near():
  assert errors.suggest("LABEL", ["Label"]) == " Did you mean 'Label'?"


def test_nothing_is_suggested_where_nothing_is_near():
  assert errors.suggest("zebra", ["kd", "mixup"]) == ""
  assert errors.suggest("zebra", []) == ""


def test_a_long_list_of_names_is_cut_and_counted():
  assert errors.listing(["a", "b"]) == "a, b"
  assert errors.listing("abc", limit=2) == "a, b, ... (3 in all)"
  assert errors.listing([]) == "(none)"


def test_what_is_wrong_is_said_to_be_of_its_place():
  with pytest.raises(errors.UsageError) as error, errors.said_of("view 'x'"):
    raise errors.UsageError("k must be at least 1")
  assert str(error.value) == "view 'x': k must be at least 1"
  with pytest.raises(ValueError, match=r"^a bug$"), errors.said_of("view 'x'"):
    raise ValueError("a bug")


def test_the_examples_in_the_docstrings_are_true():
  assert doctest.testmod(errors).failed == 0
