"""The contract of deep terms, on real networks of two depths and widths."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.errors import UsageError
from augdistill.losses import deep
from augdistill.losses.deep import DEEP_TERMS
from augdistill.losses.reweight import mean
from augdistill.losses.terms import kl
from augdistill.models.enct5 import EncT5Config, enct5
from augdistill.models.projected import with_projections
from augdistill.training.step import grads_and_metrics
from augdistill.types import (
  Inputs,
  LossTerm,
  Method,
  Outputs,
  View,
  WeightedView,
)
from tests import toy

SIZES = {
  #           emb_dim, num_layers, num_heads, head_dim
  "student": (8, 2, 2, 3),
  "teacher": (12, 4, 3, 4),
  "twin": (8, 4, 2, 5),  # as wide as the student, with as many heads
}
LENGTHS = np.array([[6, 3, 1], [2, 6, 4]])  # [n, M]
MASK = np.arange(6) < LENGTHS[..., None]
TOKENS = np.random.default_rng(0).integers(
  toy.FIRST_WORD, toy.NO_PIECE, MASK.shape
)


@functools.cache
def network(size):
  emb_dim, num_layers, num_heads, head_dim = SIZES[size]
  made = enct5(
    EncT5Config(
      vocab_size=toy.VOCAB,
      num_outputs=toy.CLASSES,
      emb_dim=emb_dim,
      mlp_dim=12,
      num_layers=num_layers,
      num_heads=num_heads,
      head_dim=head_dim,
      dropout_rate=0.0,
    )
  )
  return with_projections(made, 12) if size == "student" else made


@functools.cache
def forward(size):
  return jax.jit(network(size).forward)


@functools.cache
def parameters(size):
  """Random ones, at which no attention is uniform; faster than `init`."""
  rng = np.random.default_rng(list(SIZES).index(size))
  shapes = jax.eval_shape(network(size).init, jax.random.key(0))
  return jax.tree.map(
    lambda x: jnp.asarray(
      rng.normal(size=x.shape) * x.shape[0] ** -0.5, jnp.float32
    ),
    shapes,
  )


@functools.cache
def outputs(size):
  """What a network of this size makes of the text."""
  inputs = Inputs(mask=jnp.asarray(MASK), tokens=jnp.asarray(TOKENS, jnp.int32))
  return forward(size)(parameters(size), inputs)


def view(mask=MASK, student=None, teacher=None):
  inputs = Inputs(mask=jnp.asarray(mask))
  return View(
    student=student or inputs,
    teacher=teacher or inputs,
    label=None,
    has_label=jnp.zeros(mask.shape[:-1], bool),
    weight=jnp.ones(mask.shape[:-1], jnp.float32),
  )


def losses(term, student, teacher, of=None):
  return term(student, teacher, of or view(), None, None)


# --- what the terms are: formulas of one row, without its padding, in float64


class Row(NamedTuple):
  hidden: list
  attention: list
  values: list
  projected: list


def row_of(made, n, m):
  real = MASK[n, m]

  def at(states, pick):
    return [pick(np.float64(x[n, m])) for x in states]

  return Row(
    at(made.hidden, lambda x: x[real]),
    at(made.attention, lambda x: x[:, real][:, :, real]),
    at(made.values, lambda x: x[real]),
    at(made.projected, lambda x: x[real]),
  )


def mean_square(pairs, of="hidden"):
  def formula(s, t):
    return np.mean(
      [np.mean((getattr(s, of)[i] - t.hidden[j]) ** 2) for i, j in pairs]
    )

  return formula


def mean_of_directions(pairs, of="hidden"):
  def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)

  def formula(s, t):
    return np.mean(
      [
        np.mean(
          np.sum((unit(getattr(s, of)[i]) - unit(t.hidden[j])) ** 2, axis=-1)
        )
        for i, j in pairs
      ]
    )

  return formula


def divergence(p, q):
  return np.mean(np.sum(p * np.log(p / q), axis=-1))


def of_attention(compare, pairs, average=False):
  def formula(s, t):
    # Layer i attends in attention[i - 1].
    matched = [(s.attention[i - 1], t.attention[j - 1]) for i, j in pairs]
    if average:
      matched = [(np.mean(a, 0), np.mean(b, 0)) for a, b in matched]
    return np.mean([compare(b, a) for a, b in matched])

  return formula


def of_relations(pairs, parts, of):
  def relations(x):
    x = x.reshape(len(x), parts, -1)
    logits = np.einsum("qrd,krd->rqk", x, x) / np.sqrt(x.shape[-1])
    odds = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return odds / np.sum(odds, axis=-1, keepdims=True)

  def states(row, i):
    return row.hidden[i] if of == "hidden" else row.values[i - 1]

  def formula(s, t):
    return np.mean(
      [
        divergence(relations(states(t, j)), relations(states(s, i)))
        for i, j in pairs
      ]
    )

  return formula


def square(a, b):
  return np.mean((a - b) ** 2)


UNIFORM, LAST = ((1, 2), (2, 4)), ((2, 4),)


class Member(NamedTuple):
  term: LossTerm
  teacher: str
  formula: object
  reads: tuple = ("hidden",)  # fields of the student's outputs


# A new deep term, or an option of one, adds its line here.
MEMBERS = {
  "hidden_mse": Member(
    deep.hidden_mse(),
    "teacher",
    mean_square(UNIFORM, "projected"),
    ("projected",),
  ),
  "hidden_mse, embeddings": Member(
    deep.hidden_mse("top", embeddings=True),
    "teacher",
    mean_square(((0, 0), (1, 3), (2, 4)), "projected"),
    ("projected",),
  ),
  "hidden_mse, not projected": Member(
    deep.hidden_mse(project=False), "twin", mean_square(UNIFORM)
  ),
  "hidden_mse, pairs": Member(
    deep.hidden_mse("l0_0.l2_3", project=False, embeddings=True),
    "twin",
    mean_square(((0, 0), (2, 3))),
  ),
  "pkd": Member(deep.pkd(), "twin", mean_of_directions(((1, 2),))),
  "pkd, projected": Member(
    deep.pkd("bottom", project=True),
    "teacher",
    mean_of_directions(((1, 1), (2, 2)), "projected"),
    ("projected",),
  ),
  "attention_kl": Member(
    deep.attention_kl(),
    "twin",
    of_attention(divergence, UNIFORM),
    ("attention",),
  ),
  "attention_kl, mean": Member(
    deep.attention_kl("last", heads="mean"),
    "teacher",
    of_attention(divergence, LAST, average=True),
    ("attention",),
  ),
  "attention_mse": Member(
    deep.attention_mse(), "twin", of_attention(square, UNIFORM), ("attention",)
  ),
  "attention_mse, mean": Member(
    deep.attention_mse("l1_3", heads="mean"),
    "teacher",
    of_attention(square, ((1, 3),), average=True),
    ("attention",),
  ),
  "relation_kl": Member(
    deep.relation_kl(),
    "teacher",
    of_relations(LAST, 1, "values"),
    ("values",),
  ),
  "relation_kl, parts": Member(
    deep.relation_kl("uniform", relation_heads=2),
    "teacher",
    of_relations(UNIFORM, 2, "values"),
    ("values",),
  ),
  "relation_kl, hidden": Member(
    deep.relation_kl(relation_heads=4, of="hidden"),
    "teacher",
    of_relations(LAST, 4, "hidden"),
  ),
}
each = pytest.mark.parametrize("name", MEMBERS)


@functools.cache
def compiled(name):
  """(student, teacher, mask) -> d sum by both, losses."""

  def total(student, teacher, mask):
    values = losses(MEMBERS[name].term, student, teacher, view(mask))
    return jnp.sum(values), values

  return jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))


def pull(name, student=None, teacher=None, mask=MASK):
  student = student or outputs("student")
  teacher = teacher or outputs(MEMBERS[name].teacher)
  (by_student, by_teacher), values = compiled(name)(student, teacher, mask)
  return np.asarray(values), by_student, by_teacher


def test_every_deep_term_is_in_the_battery():
  assert {name.split(",")[0] for name in MEMBERS} == set(DEEP_TERMS)
  for name, factory in DEEP_TERMS.items():
    assert factory.__name__ == name


@each
def test_a_term_is_its_formula_row_by_row(name):
  member = MEMBERS[name]
  values, *_ = pull(name)
  assert values.shape == LENGTHS.shape and values.dtype == np.float32
  expected = np.zeros(LENGTHS.shape)
  for n, m in np.ndindex(LENGTHS.shape):
    expected[n, m] = member.formula(
      row_of(outputs("student"), n, m), row_of(outputs(member.teacher), n, m)
    )
  np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)


@each
def test_a_term_is_never_negative_and_tells_the_networks_apart(name):
  values, *_ = pull(name)
  assert np.all(values >= 0)
  # One position attends to itself alone, whatever the network.
  assert np.all(values[LENGTHS > 1] > 1e-6)


def at_padding(made, junk):
  """Outputs with `junk` wherever a query, a key or a state is padding."""
  states, pairs = MASK[..., None], MASK[:, :, None, :, None]
  pairs = pairs & MASK[:, :, None, None]

  def fill(xs, real):
    return tuple(jnp.where(real, x, junk) for x in xs)

  return made._replace(
    hidden=fill(made.hidden, states),
    attention=fill(made.attention, pairs),
    values=fill(made.values, states[..., None]),
    projected=fill(made.projected, states),
  )


@each
@pytest.mark.parametrize("junk", [0.0, 1e30, np.inf, -np.inf, np.nan])
def test_padding_counts_for_nothing_whatever_it_holds(name, junk):
  expected, gradient, _ = pull(name)
  teacher = outputs(MEMBERS[name].teacher)
  values, with_junk, _ = pull(
    name, at_padding(outputs("student"), junk), at_padding(teacher, junk)
  )
  np.testing.assert_array_equal(values, expected)
  jax.tree.map(np.testing.assert_array_equal, with_junk, gradient)
  for x in with_junk.hidden + with_junk.projected + with_junk.values:
    assert np.all(np.asarray(x)[~MASK] == 0)


@each
def test_a_text_may_be_padded_further(name):
  def longer(x, axes):
    return jnp.pad(x, [(0, 2 * (i in axes)) for i in range(x.ndim)])

  def pad(made):
    return made._replace(
      hidden=tuple(longer(x, (2,)) for x in made.hidden),
      attention=tuple(longer(x, (3, 4)) for x in made.attention),
      values=tuple(longer(x, (2,)) for x in made.values),
      projected=tuple(longer(x, (2,)) for x in made.projected),
    )

  teacher = outputs(MEMBERS[name].teacher)
  mask = np.pad(MASK, ((0, 0), (0, 0), (0, 2)))
  values, *_ = pull(name, pad(outputs("student")), pad(teacher), mask)
  np.testing.assert_allclose(values, pull(name)[0], rtol=1e-5, atol=1e-7)


@each
def test_a_row_without_any_text_is_0_with_a_gradient_of_0(name):
  mask = MASK.copy()
  mask[1, 1] = False
  values, gradient, _ = pull(name, mask=mask)
  assert values[1, 1] == 0
  for x in jax.tree.leaves(gradient):
    assert np.all(np.asarray(x)[1, 1] == 0)


@each
def test_a_row_reads_its_own_row_alone(name):
  def swap(made):
    return jax.tree.map(
      lambda x: x[::-1, [1, 2, 0]].at[0, 1].set(x[0, 1]), made
    )

  teacher = outputs(MEMBERS[name].teacher)
  mask = MASK[::-1, [1, 2, 0]].copy()
  mask[0, 1] = MASK[0, 1]
  values, gradient, _ = pull(
    name, swap(outputs("student")), swap(teacher), mask
  )
  expected, expected_gradient, _ = pull(name)
  np.testing.assert_array_equal(values[0, 1], expected[0, 1])
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a[0, 1], b[0, 1]),
    gradient,
    expected_gradient,
  )


@each
def test_the_teacher_is_a_constant_and_the_student_learns(name):
  member = MEMBERS[name]
  _, by_student, by_teacher = pull(name)
  assert all(np.all(x == 0) for x in jax.tree.leaves(by_teacher))
  for field in Outputs._fields:
    learns = any(
      np.any(x != 0) for x in jax.tree.leaves(by_student._asdict()[field])
    )
    assert learns == (field in member.reads), field


@each
def test_a_step_down_its_gradient_lowers_a_term(name):
  values, gradient, _ = pull(name)
  size = sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient))
  step = 1e-3 * values.sum() / size
  lower = jax.tree.map(lambda x, g: x - step * g, outputs("student"), gradient)
  after = pull(name, student=lower)[0].sum()
  # To first order, what the gradient promises.
  np.testing.assert_allclose(values.sum() - after, step * size, rtol=0.1)


SAME = {
  "hidden_mse": deep.hidden_mse(project=False, embeddings=True),
  "pkd": deep.pkd("uniform"),
  "attention_kl": deep.attention_kl(),
  "attention_kl, mean": deep.attention_kl(heads="mean"),
  "attention_mse": deep.attention_mse(),
  "relation_kl": deep.relation_kl("uniform", 2),
  "relation_kl, hidden": deep.relation_kl("l0_0.l1_1", of="hidden"),
}


@functools.cache
def pull_back():
  """A cotangent of the student's outputs -> the gradient of its parameters."""
  inputs = Inputs(mask=jnp.asarray(MASK), tokens=jnp.asarray(TOKENS, jnp.int32))

  def pull_back(cotangent):
    run = functools.partial(network("student").forward, inputs=inputs)
    return jax.vjp(run, parameters("student"))[1](cotangent)[0]

  return jax.jit(pull_back)


@pytest.mark.parametrize("name", SAME)
def test_self_distillation_is_0_and_moves_nothing(name):
  made = outputs("student")

  @jax.jit
  @functools.partial(jax.grad, has_aux=True)
  def learn(student):
    values = losses(SAME[name], student, made)
    return jnp.sum(values), values

  cotangent, values = learn(made)
  np.testing.assert_allclose(values, 0.0, atol=1e-6)
  for x in jax.tree.leaves(pull_back()(cotangent)):
    np.testing.assert_allclose(x, 0.0, atol=1e-5)


@each
def test_halves_of_precision_are_compared_in_float32(name):
  def half(made):
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16), made)

  teacher = outputs(MEMBERS[name].teacher)
  values, gradient, _ = pull(name, half(outputs("student")), half(teacher))
  assert values.dtype == np.float32
  np.testing.assert_allclose(values, pull(name)[0], rtol=0.2, atol=0.02)
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradient))


@each
def test_one_answer_of_the_teacher_serves_every_copy(name):
  member = MEMBERS[name]
  mask = np.repeat(MASK[:1], 2, axis=0)
  first = jax.tree.map(lambda x: x[:1], outputs(member.teacher))
  twice = jax.tree.map(lambda x: jnp.repeat(x, 2, axis=0), first)
  expected = losses(member.term, outputs("student"), twice, view(mask))
  # As a view brings it along that leaves the teacher's text as it is.
  answered = view(mask)._replace(teacher=first)
  got = losses(member.term, outputs("student"), first, answered)
  np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
  "term", [deep.attention_kl(), deep.attention_kl(heads="mean")]
)
def test_attention_that_is_all_on_one_word_is_finite(term):
  def all_on(key):
    a = jnp.zeros((1, 1, 2, 3, 3)).at[..., key].set(1.0)
    return Outputs(jnp.zeros((1, 1, 1)), jnp.zeros((1, 1, 1)), attention=(a,))

  mask = np.ones((1, 1, 3), bool)
  values, gradient = jax.value_and_grad(
    lambda s: jnp.sum(losses(term, s, all_on(0), view(mask)))
  )(all_on(1))
  np.testing.assert_allclose(values, -np.log(1e-30), rtol=1e-5)
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradient))


def test_a_state_of_zeros_has_no_direction_and_a_finite_gradient():
  zeros = jax.tree.map(jnp.zeros_like, outputs("student"))
  term = deep.pkd("bottom")
  values, gradient = jax.value_and_grad(
    lambda s: jnp.sum(losses(term, s, outputs("twin")))
  )(zeros)
  np.testing.assert_allclose(values, LENGTHS.size, rtol=1e-5)
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradient))


# --- views that enter at a layer


@functools.cache
def entered(size, layer):
  """Outputs and inputs of a network that was entered at `layer`."""
  inputs = Inputs(
    mask=jnp.asarray(MASK), hidden=outputs(size).hidden[layer], layer=layer
  )
  return forward(size)(parameters(size), inputs), inputs


@pytest.mark.parametrize("embeddings", [False, True])
def test_a_layer_keeps_its_number_where_a_view_enters_at_another(embeddings):
  """The pair (1, 2) is left out, since the student's layer 1 did not run."""
  student, at_student = entered("student", 2)
  teacher, at_teacher = entered("teacher", 3)
  of = view(student=at_student, teacher=at_teacher)
  got = losses(
    deep.hidden_mse("uniform", embeddings=embeddings), student, teacher, of
  )
  expected = losses(
    deep.hidden_mse("last"), outputs("student"), outputs("teacher")
  )
  np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_the_entry_itself_is_compared_but_has_not_attended():
  student, at_student = entered("student", 1)
  of = view(student=at_student)
  pairs = {"hidden": "l1_2.l2_4", "attention": "l2_4"}
  for factory, field in (
    (functools.partial(deep.hidden_mse, project=False), "hidden"),
    (deep.attention_mse, "attention"),
    (deep.relation_kl, "attention"),
  ):
    got = losses(factory("uniform"), student, outputs("twin"), of)
    expected = losses(
      factory(pairs[field]), outputs("student"), outputs("twin")
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4)


@pytest.mark.parametrize(
  ("term", "student", "teacher", "message"),
  [
    (
      deep.hidden_mse("l1_2"),
      2,
      0,
      r"no pair of layers \(\(1, 2\),\) that ran on this view, which has the "
      "student's from 2 and the teacher's from 0 on",
    ),
    (deep.relation_kl("l1_1"), 0, 3, "student's from 1 and the teacher's fro"),
    (
      deep.attention_kl(heads="mean"),
      2,
      0,
      "attention_kl reads attention of the student, got none: this view enters "
      "at layer 2",
    ),
  ],
)
def test_a_view_that_runs_none_of_the_layers_is_an_error(
  term, student, teacher, message
):
  (student, at_student), (teacher, at_teacher) = (
    entered("student", student),
    entered("teacher", teacher),
  )
  of = view(student=at_student, teacher=at_teacher)
  with pytest.raises(UsageError, match=message):
    losses(term, student, teacher, of)


@pytest.mark.parametrize("name", DEEP_TERMS)
@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_a_view_that_enters_at_the_head_is_an_error(name, whose):
  made = outputs("student")._replace(
    hidden=(), attention=(), values=(), projected=()
  )
  inputs = Inputs(mask=jnp.asarray(MASK), pooled=made.pooled)
  answers = {"student": outputs("student"), "teacher": outputs("twin")}
  message = (
    f"{name} reads .* of the {whose}, got none: this view enters at the head"
  )
  with pytest.raises(UsageError, match=message):
    losses(
      DEEP_TERMS[name](), **answers | {whose: made}, of=view(**{whose: inputs})
    )


# --- other errors


@pytest.mark.parametrize("name", DEEP_TERMS)
def test_without_a_teacher_there_is_nothing_to_compare_with(name):
  with pytest.raises(UsageError, match=f"{name} compares with a teacher, got"):
    losses(DEEP_TERMS[name](), outputs("student"), None)


@pytest.mark.parametrize(
  ("term", "message"),
  [
    (
      deep.hidden_mse(project=False),
      "hidden_mse compares states of one width, got 8 of the student and 12 of "
      "the teacher; set project=true",
    ),
    (deep.pkd(), "pkd compares .* got 8 .* and 12 .*; set project=true"),
    (
      deep.attention_kl(),
      "attention_kl compares head by head, got 2 heads of the student and 3 of "
      "the teacher; set heads=mean",
    ),
    (deep.attention_mse(), "attention_mse compares head .*; set heads=mean"),
    (
      deep.relation_kl(relation_heads=4),
      "relation_heads must divide the width of both networks' values, got 4 "
      "and 6",
    ),
    (
      deep.relation_kl(relation_heads=5, of="hidden"),
      "both networks' hidden, got 5 and 12",
    ),
    (
      deep.hidden_mse("l3_4"),
      "'l3_4' pairs layer 3 of the student with layer 4 of the teacher; the "
      "layers are 2 of the student and 4 of the teacher",
    ),
  ],
)
def test_networks_that_cannot_be_compared_are_an_error(term, message):
  with pytest.raises(UsageError, match=message):
    losses(term, outputs("student"), outputs("teacher"))


def test_depths_are_those_of_the_networks_not_of_what_ran():
  teacher, at_teacher = entered("teacher", 3)
  of = view(teacher=at_teacher)
  with pytest.raises(UsageError, match="2 of the student and 4 of the teacher"):
    losses(deep.relation_kl("l2_5"), outputs("student"), teacher, of)
  with pytest.raises(UsageError, match=r"'top' .* got 4 .* and 2 of the t"):
    losses(deep.relation_kl("top"), outputs("teacher"), outputs("student"))


def test_a_student_without_projections_is_told_so():
  bare = outputs("student")._replace(projected=())
  for term in (deep.hidden_mse(), deep.pkd(project=True)):
    with pytest.raises(UsageError, match="got none: it learns no projections"):
      losses(term, bare, outputs("teacher"))


def test_projections_of_another_width_are_an_error():
  made = outputs("student")
  with pytest.raises(UsageError, match="got 12 of the student and 8 of"):
    losses(deep.hidden_mse(), made, outputs("twin"))


def test_texts_of_two_lengths_cannot_be_compared_position_by_position():
  longer = Inputs(mask=jnp.ones((2, 3, 7), bool))
  with pytest.raises(UsageError, match=r"got 6 positions of .* and 7 of the t"):
    losses(
      deep.hidden_mse(),
      outputs("student"),
      outputs("teacher"),
      view(teacher=longer),
    )


def test_a_position_counts_where_it_is_text_for_both():
  shorter = MASK & (np.arange(6) < 2)
  of = view(teacher=Inputs(mask=jnp.asarray(shorter)))
  term = deep.hidden_mse()
  got = losses(term, outputs("student"), outputs("teacher"), of)
  expected, *_ = pull("hidden_mse", mask=shorter)
  np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: deep.hidden_mse("unifrom"), "Did you mean 'uniform'"),
    (lambda: deep.pkd("2"), "layers must be one of"),
    (lambda: deep.attention_kl("l0_1"), "holds layer 0, the entry"),
    (lambda: deep.attention_mse("l1_0"), "holds layer 0, the entry"),
    (lambda: deep.relation_kl("l0_0"), "holds layer 0, the entry"),
    (lambda: deep.attention_kl(heads="all"), "each or mean, got 'all'"),
    (lambda: deep.attention_mse(heads="all"), "each or mean, got 'all'"),
    (lambda: deep.relation_kl(of="keys"), "values or hidden, got of='keys'"),
    (lambda: deep.relation_kl(relation_heads=0), "at least 1, got 0"),
  ],
)
def test_a_wrong_hyper_parameter_is_an_error_at_once(make, message):
  with pytest.raises(ValueError, match=message):
    make()


# --- in a step


def test_a_step_teaches_the_layers_and_the_projections():
  parts = (
    ("kl", 1.0, kl()),
    ("hidden_mse", 1.0, deep.hidden_mse(embeddings=True)),
    ("attention_kl", 1.0, deep.attention_kl(heads="mean")),
    ("relation_kl", 1.0, deep.relation_kl("uniform")),
  )
  method = Method("kd", WeightedView("clean", None, parts, mean()))
  step = functools.partial(
    grads_and_metrics,
    student=network("student"),
    teacher=network("teacher"),
    method=method,
  )
  grads, metrics = jax.jit(step)(
    parameters("student"),
    parameters("teacher"),
    toy.LEXICON,
    toy.make_batch(),
    jax.random.key(0),
    jnp.int32(0),
  )
  for path, x in jax.tree_util.tree_leaves_with_path(grads):
    assert np.all(np.isfinite(x)) and np.any(x != 0), path
  for name, *_ in parts:
    total, weight = metrics[f"clean/{name}"]
    assert total > 0 and weight == 5
