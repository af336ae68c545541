"""What every view maker promises, on one list of them all.

A new view is one line here.
"""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill import prng
from augdistill.augment.adversarial import perturb_at_random, perturb_by_sign
from augdistill.augment.ascent import (
  ascend_freely,
  ascend_from_noise,
  ascend_in_ball,
)
from augdistill.augment.copies import repeat
from augdistill.augment.edits import edit_tokens
from augdistill.augment.embedding_pieces import mix_embedding_pieces
from augdistill.augment.mixing import gather_partners, mix_embeddings
from augdistill.augment.projection import project_to_tokens, projected
from augdistill.augment.replacement import (
  replace_at_random,
  replace_by_neighbours,
)
from augdistill.augment.rewriting import take_rewrites
from augdistill.augment.token_mixing import mix_pieces, mix_spans, mix_tokens
from augdistill.losses.terms import cross_entropy, kl, mse
from augdistill.training import mesh as meshes
from augdistill.types import Batch, Inputs
from tests import toy

ROLES = {"teacher": kl(), "label": cross_entropy(), "smoothness": mse()}
# Name -> maker, copies, whether it draws anything besides partners.
MAKERS = {
  "mix": (mix_embeddings(0.3), 1, False),
  "mix_beta": (mix_embeddings(alpha=0.4), 1, True),
  "sign": (perturb_by_sign(0.5), 1, False),
  "sign_descent": (perturb_by_sign(0.5, "descent", relative=False), 1, False),
  "sign_random": (perturb_by_sign(0.5, "random"), 1, True),
  "tokens": (mix_tokens(0.5), 1, True),
  "projected_mix": (project_to_tokens(mix_embeddings(0.4)), 1, False),
  "projected_sign": (project_to_tokens(perturb_by_sign(1.5)), 1, False),
  "projected_random": (
    project_to_tokens(perturb_by_sign(1.5, "random")),
    1,
    True,
  ),
  "noise": (perturb_at_random(0.5), 1, True),
  "ascent": (ascend_in_ball(ROLES, epsilon=0.5), 1, False),
  "ascent_steps": (
    ascend_in_ball(ROLES, 3, 0.5, 0.2, target="label"),
    1,
    False,
  ),
  "ascent_signs": (ascend_in_ball(ROLES, epsilon=0.5, norm="linf"), 1, False),
  "ascent_freely": (ascend_freely(ROLES, epsilon=0.5), 3, True),
  "ascent_from_noise": (ascend_from_noise(ROLES, epsilon=0.5), 1, True),
  "projected_ascent": (projected(ascend_freely(ROLES, 2, 6.0)), 2, True),
  "two_tokens": (repeat(mix_tokens(0.3), 2), 2, True),
  "two_signs": (repeat(perturb_by_sign(1.0, "random"), 2), 2, True),
  "spans": (mix_spans(), 1, True),
  "pieces": (mix_pieces(0.4), 1, True),
  "embedding_pieces": (mix_embedding_pieces(0.4), 1, True),
  "neighbours": (replace_by_neighbours(0.3, k=5), 1, True),
  "random_tokens": (replace_at_random(0.5), 1, True),
  "edits": (edit_tokens(0.3), 1, True),
  "synonym": (edit_tokens(0.3, "synonym"), 1, True),
  "insert": (edit_tokens(0.3, "insert"), 1, True),
  "swap": (edit_tokens(0.3, "swap"), 1, True),
  "delete": (edit_tokens(0.3, "delete"), 1, True),
  "rewrites": (take_rewrites(2), 2, True),
}
# Those that keep neither a row's length nor a token's place, and those that
# count other things than changed tokens: what they do has its own tests.
MOVES = {"edits", "insert", "swap", "delete", "rewrites"}
COUNTS_OTHERS = MOVES | {"synonym"}
# Variants of others, each some seconds of compiling.
SLOW = {
  *("sign_descent", "projected_random", "two_signs", "projected_ascent"),
  *("ascent_steps", "ascent_signs", "synonym", "insert", "swap", "delete"),
}
# The same makers where they must do nothing at all.
IDENTITIES = {
  "mix": mix_embeddings(1.0),
  "sign": perturb_by_sign(0.0),
  "sign_random": perturb_by_sign(0.0, "random"),
  "tokens": mix_tokens(1.0),
  "projected_mix": project_to_tokens(mix_embeddings(1.0)),
  "projected_sign": project_to_tokens(perturb_by_sign(0.0)),
  "noise": perturb_at_random(0.0),
  "ascent": ascend_in_ball(ROLES, epsilon=0.0),
  "ascent_steps": ascend_in_ball(ROLES, 3, 0.0, 0.2),
  "ascent_freely": ascend_freely(ROLES, epsilon=0.0),
  "ascent_from_noise": ascend_from_noise(ROLES, epsilon=0.0),
  "two_tokens": repeat(mix_tokens(1.0), 2),
  "spans": mix_spans(1.0),
  "pieces": mix_pieces(1.0),
  "embedding_pieces": mix_embedding_pieces(1.0),
  "neighbours": replace_by_neighbours(0.0),
  "random_tokens": replace_at_random(0.0),
  "edits": edit_tokens(0.0),
  "synonym": edit_tokens(0.0, "synonym"),
  "insert": edit_tokens(0.0, "insert"),
  "swap": edit_tokens(0.0, "swap"),
  "delete": edit_tokens(0.0, "delete"),
}
REAL = toy.make_batch().weight > 0


def rewrites_of(batch):
  """Three other texts of every row, each a function of the row's own."""
  number = toy.NO_PIECE - toy.FIRST_WORD
  word = batch.tokens >= toy.FIRST_WORD

  def rewrite(shift):
    other = (batch.tokens - toy.FIRST_WORD + shift) % number + toy.FIRST_WORD
    return batch._replace(tokens=jnp.where(word, other, batch.tokens))

  texts = [rewrite(shift) for shift in (3, 5, 9)]
  return jax.tree.map(lambda *xs: jnp.stack(xs), *texts)


def make_with(maker, key, partner_key, batch, student_params, teacher_params):
  """A view and the partners that it was made with."""
  batch = batch._replace(rewrites=rewrites_of(batch))
  if maker.partners:
    partners = maker.partners(prng.stream(partner_key, "partners"), batch)
    batch = gather_partners(batch, partners)
  models = toy.make_models(student_params, teacher_params)
  clean = toy.clean_of(models, batch)
  return maker.make(key, batch, clean, models, jnp.int32(3)), batch.partner


@pytest.fixture(
  scope="module",
  params=[
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in MAKERS
  ],
)
def made(request):
  maker, copies, draws = MAKERS[request.param]
  traces = []

  @jax.jit
  def function(*arguments):
    traces.append(1)
    return make_with(maker, *arguments)

  def call(seed=0, batch=None, params=None, partner_seed=None):
    view, partner = function(
      jax.random.key(seed),
      jax.random.key(seed if partner_seed is None else partner_seed),
      toy.make_batch() if batch is None else batch,
      *(params or (toy.STUDENT_PARAMS, toy.TEACHER_PARAMS)),
    )
    return view, jax.device_get(partner)

  first, partner = call()
  return types.SimpleNamespace(
    name=request.param,
    call=call,
    traces=traces,
    view=first,
    partner=partner,
    copies=copies,
    draws=draws,
    maker=maker,
  )


def enters_at_tokens(view):
  return view.student.tokens is not None


def content(view):
  """What a view is made of, without what its statistics sum up."""
  return view._replace(stats={}), enters_at_tokens(view)


def assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


def assert_close(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def differ(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return any(np.any(x != y) for x, y in pairs)


def test_shapes_and_dtypes_are_kept(made):
  n, view = made.copies, made.view
  shape = (n, toy.ROWS, toy.LENGTH)

  def is_array(x, dtype, *shape):
    assert (x.dtype, x.shape) == (dtype, shape)

  def are_inputs(inputs, emb_dim):
    is_array(inputs.mask, bool, *shape)
    assert (inputs.tokens is None) != (inputs.embeddings is None)
    assert inputs.hidden is None
    if inputs.tokens is not None:
      is_array(inputs.tokens, np.int32, *shape)
    else:
      is_array(inputs.embeddings, np.float32, *shape, emb_dim)

  are_inputs(view.student, 6)
  if isinstance(view.teacher, Inputs):
    are_inputs(view.teacher, 7)
    np.testing.assert_array_equal(view.teacher.mask, view.student.mask)
  else:
    is_array(view.teacher.logits, np.float32, *shape[:2], toy.CLASSES)
  is_array(view.label, np.float32, *shape[:2], toy.CLASSES)
  is_array(view.has_label, bool, *shape[:2])
  is_array(view.weight, np.float32, *shape[:2])
  for total, weight in view.stats.values():
    is_array(total, np.float32)
    is_array(weight, np.float32)


def test_embeddings_are_of_the_text_that_their_tokens_are_of(made):
  if enters_at_tokens(made.view):
    return
  batch, partner = toy.make_batch(), made.partner
  tokens = np.broadcast_to(batch.tokens, made.view.student.mask.shape)
  if partner is not None:  # Past the anchor's end they are the partner's.
    tokens = np.where(batch.mask, tokens, partner.tokens)
  for inputs in (made.view.student, made.view.teacher):
    if isinstance(inputs, Inputs):
      np.testing.assert_array_equal(inputs.segment_ids, tokens % 2)


def test_both_models_read_the_same_tokens(made):
  if enters_at_tokens(made.view):
    assert_equal(made.view.student, made.view.teacher)


def test_a_view_is_a_function_of_its_key(made):
  assert_equal(made.call(), (made.view, made.partner))
  other = made.call(seed=1)
  moves = made.draws or made.maker.partners is not None
  assert differ(other[0].student, made.view.student) == moves


def test_a_view_that_draws_draws_anew_for_every_key(made):
  # With the very same partners, so that only the view's own draw moves it.
  view, partner = made.call(seed=1, partner_seed=0)
  assert_equal(partner, made.partner)
  assert differ(view.student, made.view.student) == made.draws


def test_a_view_does_not_depend_on_how_its_rows_are_sharded(made):
  mesh = meshes.make_mesh()
  assert mesh.shape["data"] == 8
  placed = meshes.place_batch(toy.make_batch(), mesh)
  whole = meshes.replicated(mesh)
  params = jax.device_put((toy.STUDENT_PARAMS, toy.TEACHER_PARAMS), whole)
  view, partner = made.call(0, placed, params)
  assert_equal(partner, made.partner)
  if enters_at_tokens(view):
    assert_equal(view.student, made.view.student)
  assert_close(view, made.view)


def test_a_view_does_not_depend_on_the_order_of_the_rows(made):
  order = np.array([6, 3, 0, 7, 2, 5, 1, 4])
  view, partner = made.call(batch=toy.take_rows(toy.make_batch(), order))
  # Rows that only fill the shape may be anything.
  real = REAL[order]
  expected = toy.take_rows(content(made.view)[0], order[real], axis=1)
  assert_close(toy.take_rows(content(view)[0], real.nonzero()[0], 1), expected)
  if partner is not None:
    np.testing.assert_array_equal(
      partner.example_id[:, real], made.partner.example_id[:, order[real]]
    )
  assert_close(view.stats, made.view.stats)


def test_padding_and_protected_tokens_stay(made):
  batch, view = toy.make_batch(), made.view
  if made.name in MOVES:  # In their order, that is, and behind every text.
    tokens, mask = np.asarray(view.student.tokens), view.student.mask
    ends = [[row[row == toy.EOS] for row in copy] for copy in tokens]
    assert_equal(
      ends, [[row[row == toy.EOS] for row in batch.tokens]] * len(ends)
    )
    assert (np.diff(mask.astype(int)) <= 0).all()
  elif enters_at_tokens(view):
    fixed = ~batch.mask | toy.LEXICON.protected[batch.tokens]
    for copy in range(made.copies):
      np.testing.assert_array_equal(view.student.mask[copy], batch.mask)
      np.testing.assert_array_equal(
        view.student.tokens[copy][fixed], batch.tokens[fixed]
      )
  elif made.partner is None:
    words = np.asarray(toy.STUDENT_PARAMS["table"])[batch.tokens]
    for copy in range(made.copies):
      np.testing.assert_array_equal(view.student.mask[copy], batch.mask)
      np.testing.assert_array_equal(
        view.student.embeddings[copy][~batch.mask], words[~batch.mask]
      )
  else:
    either = batch.mask[None] | made.partner.mask
    np.testing.assert_array_equal(view.student.mask, either)


def test_only_producible_tokens_or_those_of_a_parent_result(made):
  if not enters_at_tokens(made.view):
    return
  batch, tokens = toy.make_batch(), np.asarray(made.view.student.tokens)
  fine = toy.LEXICON.producible[tokens] | (tokens == batch.tokens)
  if made.partner is not None and "changed" in made.view.stats:
    fine |= tokens == made.partner.tokens
  if made.name in MOVES:
    fine |= (tokens[..., None] == batch.tokens[:, None]).any(-1)
    fine |= ~made.view.student.mask
  assert fine.all()
  assert (tokens != batch.tokens)[:, REAL].any()
  # Nothing of the vocabulary's end, and no padding inside a text.
  assert (tokens < toy.NO_PIECE).all()
  assert ((tokens == toy.PAD) == ~made.view.student.mask).all()


def test_new_values_do_not_trace_again(made):
  before = len(made.traces)
  double = jax.tree.map(lambda x: 2 * x, toy.STUDENT_PARAMS)
  made.call(9, toy.make_batch(5), (double, toy.TEACHER_PARAMS))
  assert len(made.traces) == before


@pytest.fixture(scope="module")
def identities():
  """All of them, from one compilation."""

  @jax.jit
  def function(*arguments):
    return {k: make_with(m, *arguments)[0] for k, m in IDENTITIES.items()}

  key = jax.random.key(0)
  batch = toy.make_batch()
  return function(key, key, batch, toy.STUDENT_PARAMS, toy.TEACHER_PARAMS)


@pytest.mark.parametrize("name", IDENTITIES)
def test_at_rate_zero_a_view_is_the_batch_itself(name, identities):
  batch, view = toy.make_batch(), identities[name]
  for copy in range(view.weight.shape[0]):
    np.testing.assert_array_equal(view.student.mask[copy], batch.mask)
    if enters_at_tokens(view):
      np.testing.assert_array_equal(view.student.tokens[copy], batch.tokens)
    else:
      words = np.asarray(toy.STUDENT_PARAMS["table"])[batch.tokens]
      embeddings = np.asarray(view.student.embeddings[copy])
      np.testing.assert_array_equal(embeddings[batch.mask], words[batch.mask])
    np.testing.assert_array_equal(view.label[copy], batch.label)


def test_rows_of_weight_zero_are_partners_of_none(made):
  if made.partner is None:
    return
  assert (made.partner.weight[:, REAL] == 1).all()
  for ids in made.partner.example_id[:, REAL]:
    assert set(ids) == set(toy.make_batch().example_id[REAL])
    assert (ids != toy.make_batch().example_id[REAL]).all()


def test_rows_of_weight_zero_count_for_nothing(made):
  batch = toy.make_batch()
  view, _ = made.call(batch=toy.other_junk(batch))
  real = REAL.nonzero()[0]
  assert_equal(view.weight, np.tile(batch.weight, (made.copies, 1)))
  assert_equal(
    toy.take_rows(content(view)[0], real, 1),
    toy.take_rows(content(made.view)[0], real, 1),
  )
  assert_equal(view.stats, made.view.stats)


def test_copies_differ(made):
  if made.copies == 1:
    return
  one, two = (
    toy.take_rows(made.view.student, np.array([i]), 0) for i in range(2)
  )
  assert differ(one, two)
  if made.partner is not None:
    assert differ(made.partner.example_id[0], made.partner.example_id[1])


def test_a_row_has_a_label_where_all_its_parents_have_one(made):
  expected = np.tile(toy.make_batch().has_label, (made.copies, 1))
  if made.partner is not None:
    expected &= made.partner.has_label
  np.testing.assert_array_equal(made.view.has_label, expected)
  np.testing.assert_allclose(made.view.label.sum(-1), 1.0, rtol=1e-6)


def test_the_counts_of_tokens_are_true(made):
  if not enters_at_tokens(made.view):
    assert set(made.view.stats) <= {"norm", "replaced"}
    return
  if made.name in COUNTS_OTHERS:
    return
  batch, tokens = toy.make_batch(), np.asarray(made.view.student.tokens)
  free = batch.mask & ~toy.LEXICON.protected[batch.tokens] & REAL[:, None]
  free = np.tile(free, (made.copies, 1, 1))
  changed = tokens != batch.tokens
  expected = {"changed": changed}
  if made.partner is not None:
    free &= made.partner.mask & ~toy.LEXICON.protected[made.partner.tokens]
    from_b = changed & (tokens == made.partner.tokens)
    expected |= {"from_b": from_b, "from_neither": changed & ~from_b}
  assert made.view.stats.keys() - {"norm", "replaced"} == expected.keys()
  for name, where in expected.items():
    total, weight = map(float, made.view.stats[name])
    assert (total, weight) == ((free & where).sum(), free.sum())


def test_the_battery_covers_a_batch_with_every_oddity():
  batch = toy.make_batch()
  assert isinstance(batch, Batch)
  assert (batch.tokens == toy.UNKNOWN).any()
  assert 0 < REAL.sum() < toy.ROWS
  assert not batch.has_label[REAL].all()
  assert len(set(batch.mask.sum(-1))) > 3
