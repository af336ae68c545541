"""Texts that take some of their tokens from a partner."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augdistill.augment.masks import take_spans
from augdistill.augment.token_mixing import (
  mix_pieces,
  mix_spans,
  mix_tokens,
  take_from_partner,
)
from tests import toy
from tests.reference import fmix as reference

ROWS, LENGTH = 400, 20
PARTNERS = np.arange(ROWS) ^ 1
# One maker for the same arguments, which is compiled once.
tokens_of, spans_of, pieces_of = map(
  functools.cache, (mix_tokens, mix_spans, mix_pieces)
)
MAKERS = {"token_mix": tokens_of(), "cutmix": spans_of(), "fmix": pieces_of()}
# Those that keep to lambda within one token.
EXACT = {"cutmix": spans_of, "fmix": pieces_of}


def two_kinds(seed=0):
  """Pairs of texts that share no word: 3 ... 10 and 11 ... 19; all end.

  Every third position or so of the first kind is an end of sentence, too.
  """
  rng = np.random.default_rng(seed)
  texts = []
  for i in range(ROWS):
    size = rng.integers(6, LENGTH)
    text = (
      rng.integers(3, 11, size) if i % 2 == 0 else rng.integers(11, 20, size)
    )
    if i % 2 == 0:
      text[rng.integers(1, size)] = toy.EOS
    texts.append([*text, toy.EOS])
  batch = toy.batch_of(texts, LENGTH)
  # Labels that name the kind: the share of a text is read off its label.
  kind = np.arange(ROWS) % 2
  return batch._replace(label=np.eye(3, dtype=np.float32)[kind])


BATCH = two_kinds()
WORDS = BATCH.mask & (BATCH.tokens != toy.EOS)
FREE = WORDS & WORDS[PARTNERS]


def mixed(maker, batch=BATCH, seed=0):
  """The view, where its tokens are the partner's, and the partner's share."""
  view = toy.view_of(maker, batch, seed, np.arange(len(batch.tokens)) ^ 1)
  tokens, own = view.student.tokens[0], np.arange(len(batch.tokens)) % 2
  of_b = np.where(own[:, None] == 0, tokens > 10, (tokens > 2) & (tokens < 11))
  other = view.label[0, np.arange(len(tokens)), 1 - own]
  return view, of_b, other


@pytest.mark.parametrize("name", MAKERS)
def test_every_token_is_that_of_a_parent_at_its_place(name):
  view, of_b, _ = mixed(MAKERS[name])
  partner = BATCH.tokens[PARTNERS]
  expected = reference.mix(BATCH.tokens, partner, ~of_b, FREE)
  np.testing.assert_array_equal(view.student.tokens[0], expected)
  assert not of_b[~FREE].any()
  assert 0.3 < of_b[FREE].mean() < 0.7
  np.testing.assert_array_equal(view.student.mask[0], BATCH.mask)


@pytest.mark.parametrize("name", MAKERS)
def test_the_label_is_mixed_by_the_share_of_words_really_taken(name):
  view, of_b, other = mixed(MAKERS[name])
  share = of_b.sum(-1) / WORDS.sum(-1)
  np.testing.assert_allclose(other, share, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(view.label.sum(-1), 1.0, rtol=1e-6)
  # Texts of unequal lengths: not the share of the positions of both.
  assert (np.abs(share - of_b.sum(-1) / FREE.sum(-1)) > 0.1).any()


@pytest.mark.parametrize("name", MAKERS)
def test_a_token_that_may_not_be_produced_is_not_taken_from_a_partner(name):
  unknown = BATCH.tokens == 12
  batch = BATCH._replace(
    tokens=np.where(unknown, np.int32(toy.UNKNOWN), BATCH.tokens)
  )
  assert (unknown[PARTNERS] & FREE).sum() > 50
  view, of_b, _ = mixed(MAKERS[name], batch)
  tokens = np.asarray(view.student.tokens[0])
  own = batch.tokens == toy.UNKNOWN
  assert ((tokens == toy.UNKNOWN) <= own).all()
  # It may be replaced where it stands.
  assert (own & of_b).any()


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("lam", [0.25, 0.5, 0.8])
def test_a_fixed_lambda_is_kept_to_one_token_of_those_that_may_change(
  name, lam
):
  _, of_b, _ = mixed(EXACT[name](lam))
  free = FREE.sum(-1)
  assert (np.abs(of_b.sum(-1) - (1 - lam) * free) < 1).all()
  assert of_b.sum() == pytest.approx((1 - lam) * free.sum(), rel=0.03)


@pytest.mark.parametrize("name", EXACT)
def test_lambda_is_uniform_by_default_and_beta_distributed_on_request(name):
  for arguments, variance in (
    ({}, 1 / 12),
    ({"alpha": 0.2}, 1 / (4 * 1.4)),
    ({"lam": 0.2, "alpha": 0.2}, 1 / (4 * 1.4)),
  ):
    _, of_b, _ = mixed(EXACT[name](**arguments))
    share = of_b.sum(-1)[FREE.sum(-1) > 0] / FREE.sum(-1)[FREE.sum(-1) > 0]
    assert share.mean() == pytest.approx(0.5, abs=0.06)
    # Rounding to whole tokens adds a little.
    assert share.var() == pytest.approx(variance, abs=0.03)


def test_a_span_is_one_run_of_the_positions_that_may_change():
  _, of_b, _ = mixed(MAKERS["cutmix"])
  for row, free in zip(of_b, FREE, strict=True):
    taken = np.flatnonzero(row[free])
    assert len(taken) == 0 or np.ptp(taken) == len(taken) - 1
  # It leaps over an end of sentence inside of a text.
  assert any(np.ptp(np.flatnonzero(r)) + 1 > r.sum() for r in of_b if r.any())


def test_pieces_are_more_than_one_and_fewer_than_chance_makes():
  def pieces(maker):
    _, of_b, _ = mixed(maker)
    begun = [
      np.sum(np.diff(row[free].astype(int), prepend=0) == 1)
      for row, free in zip(of_b, FREE, strict=True)
    ]
    return np.mean(begun)

  one, some, rough, chance = map(
    pieces,
    (
      spans_of(0.5),
      pieces_of(0.5),
      pieces_of(0.5, decay=0.0),
      tokens_of(0.5),
    ),
  )
  assert one == 1 < some < 0.8 * chance
  assert rough == pytest.approx(chance, rel=0.1)


@pytest.mark.parametrize("name", ["token_mix", "cutmix"])
def test_a_mixture_does_not_depend_on_the_padding(name):
  view, *_ = mixed(MAKERS[name])
  longer, *_ = mixed(MAKERS[name], toy.pad(BATCH, 13))
  np.testing.assert_array_equal(
    longer.student.tokens[..., :LENGTH], view.student.tokens
  )
  np.testing.assert_array_equal(longer.label, view.label)


def test_of_pieces_their_share_does_not_depend_on_the_padding():
  view, *_ = mixed(MAKERS["fmix"])
  longer, *_ = mixed(MAKERS["fmix"], toy.pad(BATCH, 13))
  np.testing.assert_array_equal(longer.label, view.label)


@pytest.mark.parametrize("name", MAKERS)
def test_a_microbatch_is_mixed_as_in_the_whole_batch(name):
  view, *_ = mixed(MAKERS[name])
  rows = np.arange(ROWS)[(np.arange(ROWS) // 2) % 4 == 1]  # pairs stay
  part, *_ = mixed(MAKERS[name], toy.take_rows(BATCH, rows))
  np.testing.assert_array_equal(
    part.student.tokens[0], view.student.tokens[0, rows]
  )


def test_any_mask_of_a_row_makes_a_view():
  same = take_from_partner(take_spans, 0.5, 1.0)
  np.testing.assert_array_equal(
    mixed(same)[0].student.tokens, mixed(MAKERS["cutmix"])[0].student.tokens
  )


@pytest.mark.parametrize("name", MAKERS)
def test_without_a_teacher_there_is_none(name):
  alone = toy.make_models()._replace(teacher=None, teacher_params=None)
  partners = jax.tree.map(lambda x: x[None], toy.take_rows(BATCH, PARTNERS))
  teachers = []  # Of a view of which nothing is computed.

  def make(key, batch):
    view = MAKERS[name].make(key, batch, None, alone, jnp.int32(0))
    teachers.append(view.teacher)

  jax.eval_shape(make, jax.random.key(0), BATCH._replace(partner=partners))
  assert teachers == [None]


@pytest.mark.parametrize(
  ("factory", "arguments", "message"),
  [
    (mix_spans, (1.5,), r"lambda must be in \[0, 1\], got 1.5"),
    (mix_spans, (None, -1.0), "alpha must be positive and finite, got -1.0"),
    (mix_pieces, (-0.1,), r"lambda must be in \[0, 1\], got -0.1"),
    (mix_pieces, (0.5, 0.0), "alpha must be positive and finite, got 0.0"),
    (mix_pieces, (0.5, None, -1.0), "decay must be a number >= 0, got -1.0"),
  ],
)
def test_factories_reject_what_cannot_be(factory, arguments, message):
  with pytest.raises(ValueError, match=message):
    factory(*arguments)
