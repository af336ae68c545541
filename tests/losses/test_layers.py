"""Which layer of the teacher a layer of the student learns from."""

import doctest

import pytest

from augdistill.augment.grammar import parse
from augdistill.errors import UsageError
from augdistill.losses import layers
from augdistill.losses.layers import (
  LAYER_MAPS,
  NEED_A_DEEPER_TEACHER,
  check_layers,
  layer_map,
)

DEPTHS = [(s, t) for s in range(1, 13) for t in range(1, 25)]
# (name, S, T) -> the pairs of the papers, or worked out by hand.
KNOWN = {
  # TinyBERT-4 from BERT-base: g(m) = 3 m.
  ("uniform", 4, 12): ((1, 3), (2, 6), (3, 9), (4, 12)),
  # BERT-PKD's 6 layers from 12: I_pt = {2, 4, 6, 8, 10}.
  ("pkd_skip", 6, 12): ((1, 2), (2, 4), (3, 6), (4, 8), (5, 10)),
  ("pkd_skip", 1, 3): ((1, 3),),
  ("pkd_skip", 2, 3): ((1, 2),),
  # AD²'s 3 layers of 6, every other one from the first on.
  ("skip", 3, 6): ((1, 1), (2, 3), (3, 5)),
  ("skip", 2, 5): ((1, 1), (2, 3)),
  # PKD-last: {7, ..., 11}, and the last.
  ("top", 6, 12): ((1, 7), (2, 8), (3, 9), (4, 10), (5, 11), (6, 12)),
  ("bottom", 3, 12): ((1, 1), (2, 2), (3, 3)),
  ("last", 6, 12): ((6, 12),),
  ("last", 12, 6): ((12, 6),),
  # Halves go up: 1.5 and 4.5.
  ("uniform", 4, 6): ((1, 2), (2, 3), (3, 5), (4, 6)),
  ("uniform", 2, 3): ((1, 2), (2, 3)),
  # A teacher that is less deep; 0.25 is not the entry.
  ("uniform", 4, 1): ((1, 1), (2, 1), (3, 1), (4, 1)),
  ("uniform", 4, 2): ((1, 1), (2, 1), (3, 2), (4, 2)),
  ("l1_4.l2_8", 2, 12): ((1, 4), (2, 8)),
  ("l2_3", 2, 3): ((2, 3),),
  ("l0_0.l2_1.l2_3", 2, 3): ((0, 0), (2, 1), (2, 3)),
}


@pytest.mark.parametrize(("asked", "pairs"), KNOWN.items())
def test_a_map_is_that_of_the_papers(asked, pairs):
  assert layer_map(*asked) == pairs


@pytest.mark.parametrize("name", LAYER_MAPS)
def test_every_map_stays_within_both_networks(name):
  for s, t in DEPTHS:
    if name in NEED_A_DEEPER_TEACHER and s > t:
      continue
    pairs = layer_map(name, s, t)
    assert pairs
    assert all(1 <= i <= s and 1 <= j <= t for i, j in pairs)
    assert [i for i, _ in pairs] == sorted({i for i, _ in pairs})


@pytest.mark.parametrize("name", [n for n in LAYER_MAPS if n != "last"])
def test_a_map_never_goes_back_and_rises_where_the_teacher_is_deeper(name):
  for s, t in DEPTHS:
    if s <= t:
      taught = [j for _, j in layer_map(name, s, t)]
      assert taught == sorted(set(taught))
  for s, t in DEPTHS:
    taught = [j for _, j in layer_map("uniform", s, t)]
    assert taught == sorted(taught)


def test_the_last_layer_learns_from_the_last():
  for name in ("uniform", "top", "last"):
    for s, t in DEPTHS:
      if name != "top" or s <= t:
        assert layer_map(name, s, t)[-1] == (s, t)


def test_networks_of_one_depth_are_paired_layer_by_layer():
  for name in ("uniform", "skip", "bottom", "top"):
    assert layer_map(name, 3, 3) == ((1, 1), (2, 2), (3, 3))


def test_a_method_can_hold_every_map():
  for text in [*LAYER_MAPS, "l1_4.l2_8", "l12_24"]:
    _, call = parse(f"kd+hidden_mse(layers={text})")
    check_layers(call.kwargs["layers"])
    assert call.kwargs["layers"] == text


@pytest.mark.parametrize(
  ("asked", "message"),
  [
    (
      ("bottom", 4, 3),
      "the layer map 'bottom' needs at most as many layers of the student as "
      "of the teacher, got 4 of the student and 3 of the teacher",
    ),
    (("top", 4, 3), "'top' needs at most .* 4 of the student and 3 of the tea"),
    (("skip", 4, 3), "'skip' needs at most .* 4 of the student and 3 of the t"),
    (
      ("l1_4.l3_4", 2, 4),
      "'l1_4.l3_4' pairs layer 3 of the student with layer 4 of the teacher; "
      "the layers are 2 of the student and 4 of the teacher",
    ),
    (("l1_5", 2, 4), "pairs layer 1 of the student with layer 5 of the teach"),
    (("uniform", 0, 4), "needs layers, got 0 of the student and 4 of the teac"),
  ],
)
def test_a_map_that_does_not_fit_is_an_error_that_says_why(asked, message):
  with pytest.raises(UsageError, match=message):
    layer_map(*asked)


@pytest.mark.parametrize(
  ("asked", "message"),
  [
    (("unifrom", 2, 4), "one of uniform, pkd_skip, .*Did you mean 'unif"),
    (("1_4", 2, 4), "such as l1_4.l2_8, got '1_4'"),
    (("l1_4,l2_8", 2, 8), "got 'l1_4,l2_8'"),
    (("l1_4.", 2, 8), "got 'l1_4.'"),
    (("", 2, 8), "got ''"),
    (("l1_4.l1_4", 2, 4), "'l1_4.l1_4' holds a pair twice"),
  ],
)
def test_what_is_no_map_is_an_error_that_says_why(asked, message):
  with pytest.raises(ValueError, match=message):
    layer_map(*asked)


def test_where_the_entry_has_nothing_to_compare_a_map_may_not_name_it():
  check_layers("l1_1", first=1)
  check_layers("l0_0.l1_1")
  for text in ("l0_1", "l1_1.l1_0"):
    with pytest.raises(ValueError, match=f"'{text}' holds layer 0"):
      check_layers(text, first=1)


def test_the_example_is_true():
  assert doctest.testmod(layers) == (0, 1)
