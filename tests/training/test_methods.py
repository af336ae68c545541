"""From a method as written to the loss that it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.augment.methods import RECIPES
from augdistill.augment.mixing import gather_partners
from augdistill.augment.token_mixing import mix_tokens
from augdistill.errors import UsageError
from augdistill.training.methods import build_method
from augdistill.types import TaskKind, View
from tests import encoders, toy

CLASSES = TaskKind.CLASSES


def terms_of(weighted):
  return [(name, coefficient) for name, coefficient, _ in weighted.terms]


def test_fine_tuning_is_the_label_alone():
  method = build_method("ft", CLASSES)
  assert terms_of(method.clean) == [("label", 1.0)]
  assert method.views == ()
  assert not method.needs_teacher
  assert build_method("ft(weight=2)", CLASSES).clean.terms[0][1] == 2.0


def test_distillation_is_label_and_teacher():
  method = build_method("kd(label_weight=0.5, teacher_weight=3)", CLASSES)
  assert terms_of(method.clean) == [("label", 0.5), ("kl", 3.0)]
  assert method.clean.maker is None
  assert method.needs_teacher


@pytest.mark.parametrize(
  ("kind", "text", "name"),
  [
    ("classes", "kd", "kl"),
    ("classes", "kd(distance=soft_cross_entropy)", "soft_cross_entropy"),
    ("classes", "kd(distance=mse)", "mse"),
    ("multi_label", "kd", "kl"),
    ("multi_label", "kd(distance=none)", "kl"),
    ("regression", "kd", "mse"),
  ],
)
def test_the_distance_is_that_of_the_task(kind, text, name):
  method = build_method(f"{text}+augpro_mix", TaskKind(kind))
  assert terms_of(method.clean)[1] == (name, 1.0)
  assert terms_of(method.views[0]) == [(name, 1.0)]
  # One term, so that the temperature is the same in both.
  assert method.clean.terms[1][2] is method.views[0].terms[0][2]


@pytest.mark.parametrize(
  ("view", "terms"),
  [
    ("mixup", ["label", "kl"]),  # L_MixUp of the paper
    ("fgsm", ["kl"]),  # L_FGSM
    ("augpro_mix", ["kl"]),  # equation 6
    ("augpro_fgsm", ["kl"]),  # equation 7
    ("token_mix", ["kl"]),
    ("tmix", ["label", "kl"]),  # as MixUp
    ("pooled_mixup", ["label", "kl"]),
    ("nonlinear_mixup", ["label", "kl"]),
    ("fmix_embeddings", ["label", "kl"]),
    ("fmix", ["kl"]),
    ("cutmix", ["kl"]),
    ("knn", ["kl"]),
    ("tinybert", ["kl"]),
    ("random", ["kl"]),
    ("eda", ["kl"]),
    ("rewrites", ["kl"]),
    ("ad2", ["kl"]),  # L_ADA of AD²'s equation 3
    ("noise", ["kl"]),
    ("freelb", ["kl"]),
    ("projected(view=fgsm)", ["kl"]),
  ],
)
def test_a_view_has_the_terms_of_the_paper(view, terms):
  method = build_method(f"kd(label_weight=5)+{view}", CLASSES)
  assert terms_of(method.views[0]) == [(name, 1.0) for name in terms]
  method = build_method(f"ft+{view}", CLASSES)
  assert terms_of(method.views[0]) == [("label", 1.0)]  # table 5
  assert method.views[0].weight == 1.0


@pytest.mark.parametrize(
  ("view", "with_teacher", "with_label"),
  [
    # MMEL's equations 7 and 8; without a teacher nothing is relabelled.
    ("mmel_hard(view=rewrites)*4", "label_or_teacher", "label"),
    ("mmel_soft(view=rewrites)*4", "consistency", "consistency"),
    ("batch_mixup", "dot_product", "dot_product"),  # section 4
    ("smart", "smoothness", "smoothness"),  # equation 2
  ],
)
def test_a_view_of_another_kind_has_a_term_of_its_own(
  view, with_teacher, with_label
):
  method = build_method(f"kd+{view}", CLASSES)
  assert terms_of(method.views[0]) == [(with_teacher, 1.0)]
  method = build_method(f"ft+{view}", CLASSES)
  assert terms_of(method.views[0]) == [(with_label, 1.0)]


def test_weights_of_roles_scale_add_and_leave_out_terms():
  method = build_method(
    "kd+augpro_mix(label_weight=0.5, teacher_weight=2)"
    "+mixup(label_weight=0)"
    "+mmel_soft(view=fgsm, consistency_weight=0, live_consistency_weight=1)",
    CLASSES,
  )
  assert [dict(terms_of(view)) for view in method.views] == [
    {"label": 0.5, "kl": 2.0},
    {"kl": 1.0},
    {"live_consistency": 1.0},
  ]


def test_copies_share_their_weight_as_the_method_says():
  losses = jnp.array([[1.0], [3.0]])
  view = View(None, None, None, None, jnp.ones((2, 1)))

  def shared(text):
    return float(build_method(text, CLASSES).views[0].reweight(losses, view)[0])

  assert shared("kd+token_mix*2") == 2.0
  # lambda (log mean exp(l / lambda)), MMEL's theorem 1.
  for lambda_p in (0.5, 1.0):
    expected = lambda_p * np.log(np.mean(np.exp([1 / lambda_p, 3 / lambda_p])))
    text = f"kd+token_mix(reweight=mmel(lambda_p={lambda_p}))*2"
    assert shared(text) == pytest.approx(expected, rel=1e-5)
  assert shared("kd+token_mix(reweight=mmel)*2") == pytest.approx(expected)
  assert shared("kd+mmel_soft(view=token_mix, reweight=mean)*2") == 2.0


def test_the_copies_of_a_view_of_views_are_made_by_the_inner_one():
  method = build_method(
    "kd+mmel_hard(view=token_mix)*3+mmel_soft(view=rewrites)*2", CLASSES
  )
  batch = jax.tree.map(jnp.asarray, encoders.batch_with_rewrites())
  copies = []
  for weighted in method.views:
    mine = batch
    if weighted.maker.partners:
      mates = weighted.maker.partners(jax.random.key(0), batch)
      mine = gather_partners(batch, mates)
    models = toy.make_models()
    view = weighted.maker.make(
      jax.random.key(1), mine, toy.clean_of(models, batch), models, 0
    )
    copies.append(view.weight.shape[0])
    if weighted.name == "mmel_hard":  # Copy 0 is the example, with its label.
      np.testing.assert_array_equal(view.student.tokens[0], batch.tokens)
      np.testing.assert_array_equal(view.label[0], batch.label)
      assert len({np.asarray(x).tobytes() for x in view.student.tokens}) == 4
  assert copies == [4, 2]


def test_deep_terms_are_added_to_the_summands_that_they_are_on():
  method = build_method(
    "kd+mixup+ad2+hidden_mse+hidden_mse(on=ad2, weight=2)"
    "+attention_kl(on=all, heads=mean)+relation_kl(weight=ramp(0, 1, 10))",
    CLASSES,
  )
  terms = [[n for n, _ in terms_of(view)] for view in method.views]
  clean = [name for name, _ in terms_of(method.clean)]
  assert clean == ["label", "kl", "hidden_mse", "attention_kl", "relation_kl"]
  assert terms == [
    ["label", "kl", "attention_kl"],
    ["kl", "hidden_mse_2", "attention_kl"],
  ]
  assert dict(terms_of(method.views[1]))["hidden_mse_2"] == 2.0
  assert float(method.clean.terms[-1][1](jnp.int32(5))) == 0.5
  assert method.needs_projections
  for text in ("kd+hidden_mse(project=false)", "kd+pkd", "kd+relation_kl"):
    assert not build_method(text, CLASSES).needs_projections
  assert build_method("kd+pkd(project=true)", CLASSES).needs_projections


def test_a_base_may_leave_its_clean_batch_out():
  method = build_method("kd(clean=false)+token_mix", CLASSES)
  assert method.clean is None
  assert [view.name for view in method.views] == ["token_mix"]


def test_every_recipe_is_covered_above():
  assert set(RECIPES) == {
    *("mixup", "fgsm", "augpro_mix", "augpro_fgsm", "token_mix", "tmix"),
    *("pooled_mixup", "nonlinear_mixup", "batch_mixup", "fmix_embeddings"),
    *("fmix", "cutmix", "knn", "tinybert", "random", "eda", "rewrites", "ad2"),
    *("noise", "freelb", "smart", "projected", "mmel_hard", "mmel_soft"),
  }


def test_views_of_one_name_are_numbered():
  text = "kd + mixup + fgsm(weight=2) + mixup(lam=0.2)*3 + mixup"
  method = build_method(text, CLASSES)
  names = [view.name for view in method.views]
  assert names == ["mixup", "fgsm", "mixup_2", "mixup_3"]
  assert method.name == text
  assert [view.weight for view in method.views] == [1.0, 2.0, 1.0, 1.0]


def test_a_weight_may_be_a_ramp():
  method = build_method(
    "kd(label_weight=ramp(1, 0, 10))+mixup(weight=ramp(0, 2, 4))", CLASSES
  )
  assert float(method.clean.terms[0][1](jnp.int32(5))) == 0.5
  assert float(method.views[0].weight(jnp.int32(1))) == 0.5
  assert float(method.views[0].weight(jnp.int32(99))) == 2.0


def test_other_recipes_may_be_given():
  recipe = RECIPES["token_mix"]
  own = {"mine": recipe.__class__(mix_tokens, ("label",), "")}
  method = build_method("kd+mine(lam=0.1, weight=3)", CLASSES, own)
  assert terms_of(method.views[0]) == [("label", 1.0)]
  with pytest.raises(UsageError, match="no view or term is called 'mixup'"):
    build_method("kd+mixup", CLASSES, own)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (
      "mixup+kd",
      "a method must begin with ft or kd, got 'mixup' in 'mixup+kd'.",
    ),
    (
      "kdd+mixup",
      "a method must begin with ft or kd, got 'kdd' in 'kdd+mixup'. Did you "
      "mean 'kd'?",
    ),
    ("kd*2", "the base 'kd' has no copies, got 'kd*2'"),
    (
      "kd+augpro_mx",
      "no view or term is called 'augpro_mx' in 'kd+augpro_mx'. Did you mean "
      "'augpro_mix'? `augdistill methods` lists all of them.",
    ),
    (
      "kd+ft",
      "no view or term is called 'ft' in 'kd+ft'. It is a base and stands "
      "first.",
    ),
    (
      "kd+mmel_hard",
      "view 'mmel_hard' needs view=...",
    ),
    (
      "kd+mmel_hard(view=token_mix*2)",
      "view 'mmel_hard': view must be one view, whose copies are those of "
      "mmel_hard, got token_mix*2",
    ),
    (
      "kd+mmel_hard(view=3)",
      "view 'mmel_hard': view must be one view, whose copies are those of "
      "mmel_hard, got 3",
    ),
    (
      "kd+projected(view=fgsm(weight=2))",
      "view 'projected': weight belongs to the outer view, got "
      "view=fgsm(weight=2)",
    ),
    (
      "kd+projected(view=mmel_hard(view=mixup))*2",
      "view 'projected': view must leave the weights of its copies to "
      "projected, got mmel_hard, which must be the outer view",
    ),
    (
      "kd+projected(view=pkd)",
      "no view or term is called 'pkd' in 'kd+projected(view=pkd)'. It is a "
      "term and stands beside the views.",
    ),
    (
      "kd+projected(view=fgm)",
      "no view or term is called 'fgm' in 'kd+projected(view=fgm)'. Did you "
      "mean 'fgsm'? `augdistill methods` lists all of them.",
    ),
    (
      "kd+mixup(reweight=max)",
      "view 'mixup': reweight must be one of mean, mmel, got max.",
    ),
    (
      "kd+mixup(reweight=mmmel)",
      "view 'mixup': reweight must be one of mean, mmel, got mmmel. Did you "
      "mean 'mmel'?",
    ),
    (
      "kd+mixup(reweight=mmel*2)",
      "view 'mixup': reweight must be one of mean, mmel, got mmel*2. Did you "
      "mean 'mmel'?",
    ),
    (
      "kd+mixup(label_weight=0, teacher_weight=0)",
      "view 'mixup' must be compared by something, but all its weights are 0 "
      "in 'kd+mixup(label_weight=0, teacher_weight=0)'; leave the view out, or "
      "put a term on it",
    ),
    (
      "kd+mixup(reweight=mmel(lambda_p=0))",
      "reweighting 'mmel': lambda_p must be positive and finite, got 0.0",
    ),
    (
      "kd+mixup(teacher_weight=-2)",
      "view 'mixup': a weight must be >= 0, got -2",
    ),
    (
      "ft+hidden_mse",
      "the term 'hidden_mse' compares with a teacher, so it needs the base kd, "
      "got 'ft+hidden_mse'",
    ),
    ("kd+pkd*2", "the term 'pkd' has no copies, got 'kd+pkd*2'"),
    (
      "kd+mixup+pkd(on=fgsm)",
      "term 'pkd': on must be one of all, clean, mixup, got 'fgsm'.",
    ),
    (
      "kd+mixup+pkd(on=mixpu)",
      "term 'pkd': on must be one of all, clean, mixup, got 'mixpu'. Did you "
      "mean 'mixup'?",
    ),
    (
      "kd+pkd(weight=much)",
      "term 'pkd': weight must be a number or a schedule, got 'much'",
    ),
    (
      "kd(clean=false)",
      "a method without its clean batch needs a view: 'kd(clean=false)'",
    ),
    (
      "kd(clean=false)+smart",
      "view 'smart': smoothness compares with the clean batch, which "
      "'kd(clean=false)+smart' does not have",
    ),
    (
      "kd(clean=false)+fgsm",
      "view 'fgsm' begins at the clean batch, which 'kd(clean=false)+fgsm' "
      "does not have",
    ),
    (
      "kd(clean=false)+mmel_hard(view=ad2)",
      "view 'mmel_hard' begins at the clean batch, which "
      "'kd(clean=false)+mmel_hard(view=ad2)' does not have",
    ),
    (
      "ft(temperature=2)",
      "base 'ft' has no parameter 'temperature'; it has weight, clean.",
    ),
    (
      "kd(temprature=2)",
      "base 'kd' has no parameter 'temprature'; it has temperature, "
      "label_weight, teacher_weight, distance, clean. Did you mean "
      "'temperature'?",
    ),
    ("kd(2)", "base 'kd' takes key=value arguments, got 2"),
    (
      "kd(kind=2)",
      "base 'kd' has no parameter 'kind'; it has temperature, "
      "label_weight, teacher_weight, distance, clean.",
    ),
    (
      "kd(temperature=hot)",
      "base 'kd': temperature must be a number, got 'hot'",
    ),
    (
      "kd(distance=mle)",
      "distance must be one of kl, soft_cross_entropy, mse for a task of kind "
      "classes, got 'mle'. Did you mean 'mse'?",
    ),
    ("kd(distance=3)", "base 'kd': distance must be a word or none, got '3'"),
    ("kd(label_weight=-1)", "base 'kd': a weight must be >= 0, got -1"),
    (
      "ft(weight=much)",
      "base 'ft': weight must be a number or a schedule, got 'much'",
    ),
    (
      "kd+mixup(weight=none)",
      "view 'mixup': weight must be a number or a schedule, got 'none'",
    ),
    ("kd+mixup(weight=-0.5)", "view 'mixup': a weight must be >= 0, got -0.5"),
    (
      "kd+mixup(weight=step(1, 2, 3))",
      "view 'mixup': a weight's schedule must read ramp(start, end, steps), "
      "got step(1, 2, 3)",
    ),
    (
      "kd+mixup(weight=ramp(1, 2))",
      "view 'mixup': a weight's schedule must read ramp(start, end, steps), "
      "got ramp(1, 2)",
    ),
    (
      "kd+mixup(weight=ramp(1, 2, 3)*2)",
      "view 'mixup': a weight's schedule must read ramp(start, end, steps), "
      "got ramp(1, 2, 3)*2",
    ),
    (
      "kd+mixup(weight=ramp(1, 2, steps=3))",
      "view 'mixup': a weight's schedule must read ramp(start, end, steps), "
      "got ramp(1, 2, steps=3)",
    ),
    (
      "kd+mixup(weight=ramp(0, 1, 0))",
      "schedule 'ramp': a ramp's steps must be at least 1, got 0",
    ),
    (
      "kd+mixup(weight=ramp(0, 1, 2.5))",
      "schedule 'ramp': steps must be a whole number, got '2.5'",
    ),
    (
      "kd+mixup(weight=ramp(low, 1, 2))",
      "schedule 'ramp': start must be a number, got 'low'",
    ),
    (
      "kd+mixup(weight=ramp(0, -1, 2))",
      "view 'mixup': a weight must be >= 0, got ramp(0, -1, 2)",
    ),
  ],
)
def test_a_wrong_method_gives_one_clear_line(text, message):
  with pytest.raises(UsageError) as error:
    build_method(text, CLASSES)
  assert str(error.value) == message


def test_an_error_of_a_term_names_its_base():
  with pytest.raises(UsageError, match="base 'kd': temperature must be pos"):
    build_method("kd(temperature=0)", CLASSES)
