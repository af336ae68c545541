"""Policies: one method for all steps, or one of several by (seed, step)."""

import collections

import pytest

from augdistill.errors import UsageError
from augdistill.training.policies import build_policy
from augdistill.types import TaskKind


def policy(text):
  return build_policy(text, TaskKind.CLASSES)


def names(method):
  return [view.name for view in method.views]


def test_a_method_that_chooses_nothing_is_a_policy_of_one():
  made = policy("kd + mixup*2")
  assert made.name == "kd + mixup*2"
  assert [method.name for method in made.methods] == ["kd + mixup*2"]
  assert {made.choose(seed, step) for seed in (0, 1) for step in range(9)} == {
    0
  }
  assert made.needs_teacher
  assert not policy("ft+mixup").needs_teacher


def test_of_all_views_that_may_come_the_most_neighbours_are_told():
  assert policy("kd+token_mix+mixup").num_neighbours == 0
  assert policy("ft+eda(operations=swap)").num_neighbours == 0
  several = "kd+one_of(knn(k=4)*2, eda(k=5), none)+tinybert(k=3)"
  assert policy(several).num_neighbours == 5
  assert policy("kd+mmel_soft(view=knn)*2").num_neighbours == 15


def test_views_that_alternate_take_turns_batch_by_batch():
  made = policy("kd+alternate(token_mix, mixup(lam=0.3)*2, none)+fgsm")
  assert [names(method) for method in made.methods] == [
    ["token_mix", "fgsm"],
    ["mixup", "fgsm"],
    ["fgsm"],
  ]
  assert [method.name for method in made.methods] == [
    "kd+token_mix+fgsm",
    "kd+mixup(lam=0.3)*2+fgsm",
    "kd+fgsm",
  ]
  assert [made.choose(7, step) for step in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_one_of_several_is_drawn_by_seed_and_step_alone():
  made, again = (
    policy("ft+one_of(mixup, token_mix)"),
    policy("ft+one_of(mixup, token_mix)"),
  )
  drawn = [made.choose(3, step) for step in range(2000)]
  assert drawn == [again.choose(3, step) for step in range(2000)]
  assert drawn != [made.choose(4, step) for step in range(2000)]
  # Binomial(2000, 1/2): four standard deviations are 89.
  assert abs(sum(drawn) - 1000) < 90
  # Neighbouring steps are independent: 500 of each pair, give or take.
  pairs = collections.Counter(zip(drawn[::2], drawn[1::2], strict=True))
  assert all(abs(count - 250) < 60 for count in pairs.values())
  assert len(pairs) == 4


def test_several_items_choose_for_themselves():
  made = policy("kd+one_of(mixup, token_mix)+one_of(fgsm, none, augpro_fgsm)")
  assert len(made.methods) == 6
  assert names(made.methods[1 * 3 + 2]) == ["token_mix", "augpro_fgsm"]
  drawn = collections.Counter(made.choose(0, step) for step in range(3000))
  assert sorted(drawn) == [0, 1, 2, 3, 4, 5]
  assert all(abs(count - 500) < 90 for count in drawn.values())
  mixed = policy("kd+alternate(mixup, none)+alternate(fgsm, none, token_mix)")
  assert [mixed.choose(0, step) for step in range(6)] == [0, 4, 2, 3, 1, 5]


def test_a_policy_learns_projections_if_any_of_its_methods_reads_them():
  for choice in ("hidden_mse, mixup", "mixup, hidden_mse", "none, hidden_mse"):
    assert policy(f"kd+alternate({choice})").needs_projections
  assert not policy("kd+alternate(mixup, pkd)").needs_projections


@pytest.mark.parametrize(
  ("text", "said"),
  [
    (
      "kd+alternate(mixup)",
      "alternate must be given two views or more, such as alternate(fmix, "
      "mixup), got alternate(mixup)",
    ),
    (
      "kd+one_of(mixup, token_mix)*2",
      "one_of must be given two views or more, such as one_of(fmix, mixup), "
      "got one_of(mixup, token_mix)*2",
    ),
    (
      "kd+one_of(mixup, weight=2)",
      "one_of must be given two views or more, such as one_of(fmix, mixup), "
      "got one_of(mixup, weight=2)",
    ),
    ("kd+one_of(mixup, 3)", "one_of chooses between views, got 3"),
    (
      "kd+one_of(mixup, alternate(fgsm, none))",
      "one_of chooses between views, got alternate(fgsm, none)",
    ),
    (
      "kd+one_of(mixup, mxup)",
      "no view or term is called 'mxup' in 'kd+mxup'. Did you mean 'mixup'? "
      "`augdistill methods` lists all of them.",
    ),
    (
      "one_of(kd, ft)+mixup",
      "a policy must begin with a base, ft or kd, got 'one_of' in "
      "'one_of(kd, ft)+mixup'",
    ),
  ],
)
def test_a_wrong_choice_gives_one_clear_line(text, said):
  with pytest.raises(UsageError) as error:
    policy(text)
  assert str(error.value) == said
