"""EDA: what each operation changes, how often, and what it leaves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from augdistill.augment.edits import OPERATIONS, edit_tokens
from augdistill.augment.grammar import parse
from augdistill.augment.replacement import nearest_neighbours
from augdistill.training import mesh as meshes
from tests import toy

ROWS, LENGTH, K = 300, 24, 4


def make_batch(longest=LENGTH - 9, same=False):
  """Pairs and single texts, some without a word; two end as they come.

  Every word of a row is another one, so that it shows where it went; `same`
  makes all rows one text of ten words.
  """
  rng = np.random.default_rng(0)
  texts = []
  for i in range(ROWS):
    size = rng.integers(0, longest) if i > 2 else 0
    words = rng.permutation(np.arange(toy.UNKNOWN, toy.NO_PIECE))[:size]
    text = [*words, toy.EOS]
    if i % 3:
      text.insert(rng.integers(0, size + 1), toy.EOS)
    texts.append(text if not same else [*range(5, 15), toy.EOS])
  if not same:
    texts[3], texts[4] = [5, 6, 7, 8], [9]
  return toy.batch_of(texts, LENGTH)


BATCH = make_batch()
PLAIN = make_batch(same=True)
WORDS = BATCH.mask & (BATCH.tokens != toy.EOS)
COUNT = WORDS.sum(-1)
maker = functools.cache(functools.partial(edit_tokens, k=K))


def edited(rate, operations="all", seed=0, batch=BATCH):
  view = toy.view_of(maker(rate, operations), batch, seed)
  return view, view.student.tokens[0], view.student.mask[0]


def rows_of(tokens, mask):
  """The texts, padding cut off."""
  return [row[real].tolist() for row, real in zip(tokens, mask, strict=True)]


def segments(text):
  """The words between ends of sentences, as lists."""
  parts = [[]]
  for token in text:
    if token == toy.EOS:
      parts.append([])
    else:
      parts[-1].append(token)
  return parts


OLD = rows_of(BATCH.tokens, BATCH.mask)


def times(rate, count):
  """How often a row of so many words is edited."""
  return np.minimum(np.maximum(np.floor(rate * count), 1), count)


@functools.cache
def neighbours():
  """The k nearest of every word, in the teacher's table."""
  found, _ = nearest_neighbours(
    jnp.arange(toy.VOCAB, dtype=jnp.int32),
    toy.TEACHER_PARAMS["table"],
    jnp.asarray(toy.LEXICON.producible),
    K,
  )
  return np.asarray(found)


@pytest.mark.parametrize("operations", ["all", *OPERATIONS])
@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_what_is_protected_stays_in_its_order_and_rows_stay_whole(
  operations, rate
):
  _, tokens, mask = edited(rate, operations)
  assert (np.diff(mask.astype(int)) <= 0).all()
  assert ((tokens == toy.PAD) == ~mask).all()
  for new, old in zip(rows_of(tokens, mask), OLD, strict=True):
    assert len(segments(new)) == len(segments(old))
    # As many segments without a word as before.
    empty = [not part for part in segments(new)]
    assert empty == [not part for part in segments(old)]


def test_a_row_gets_one_operation_at_random_among_those_asked_for():
  def kind(new, old):
    if len(new) != len(old):
      return "insert" if len(new) > len(old) else "delete"
    if new == old:
      return "none"
    return "swap" if sorted(new) == sorted(old) else "synonym"

  old = rows_of(PLAIN.tokens, PLAIN.mask)

  def shares(operations):
    _, tokens, mask = edited(0.3, operations, batch=PLAIN)
    kinds = list(map(kind, rows_of(tokens, mask), old))
    return {k: kinds.count(k) / ROWS for k in set(kinds)}

  chance = pytest.approx(1 / 4, abs=0.08)
  found = shares("all")
  # Some rows of ten words lose none of them.
  found["delete"] += found.pop("none")
  assert found == dict.fromkeys(OPERATIONS, chance)
  half = pytest.approx(1 / 2, abs=0.1)
  assert shares("insert.swap") == {"insert": half, "swap": half}


def test_the_operation_says_nothing_about_the_place():
  text = [*range(5, 15), toy.EOS]
  batch = toy.batch_of([text] * 4000, LENGTH)
  batch = batch._replace(example_id=np.arange(4000, dtype=np.int32))
  _, tokens, mask = edited(0.1, batch=batch)
  rows = rows_of(tokens, mask)
  changed = (tokens != batch.tokens)[[len(row) == 11 for row in rows], :10]
  count = changed.sum(-1)
  # Some 1,000 rows each, and 650 that lose a word; four standard deviations.
  np.testing.assert_allclose(changed[count == 1].mean(0), 0.1, atol=0.04)
  np.testing.assert_allclose(changed[count == 2].mean(0), 0.2, atol=0.053)
  gone = [without(text, row) for row in rows if len(row) < 11]
  share = np.bincount(np.concatenate(gone), minlength=15)[5:] / len(gone)
  np.testing.assert_allclose(share, share.mean(), atol=0.058)


@pytest.mark.parametrize("rate", [0.05, 0.25, 1.0])
def test_a_synonym_is_a_near_word_in_the_same_place(rate):
  view, tokens, mask = edited(rate, "synonym")
  np.testing.assert_array_equal(mask, BATCH.mask)
  changed = tokens != BATCH.tokens
  np.testing.assert_array_equal(changed.sum(-1), times(rate, COUNT))
  assert not changed[~WORDS].any()
  near = neighbours()[BATCH.tokens[changed]]
  assert (near == tokens[changed][:, None]).any(-1).all()
  assert stats_of(view) == {"synonym": (changed.sum(), COUNT.sum())}


def stats_of(view):
  return {name: tuple(map(float, pair)) for name, pair in view.stats.items()}


@pytest.mark.parametrize("rate", [0.05, 0.25])
def test_an_insertion_is_a_near_word_anywhere_in_a_segment(rate):
  view, tokens, mask = edited(rate, "insert")
  wanted = times(rate, COUNT)
  np.testing.assert_array_equal(mask.sum(-1), BATCH.mask.sum(-1) + wanted)
  for new, old in zip(rows_of(tokens, mask), OLD, strict=True):
    inserted = without(new, old)
    near = neighbours()[[t for t in old if t != toy.EOS]]
    assert all(token in near for token in inserted)
  assert stats_of(view) == {
    "insert": (wanted.sum(), COUNT.sum()),
    "no_room": (0, wanted.sum()),
  }


def without(new, old):
  """What `new` has besides `old`, which it has in order."""
  rest, inserted = list(old), []
  # Words of a row differ, so an equal one is the old one or a neighbour that
  # is the next old one, which is the same.
  for token in new:
    if rest and token == rest[0]:
      rest.pop(0)
    else:
      inserted.append(token)
  assert not rest
  return inserted


def test_every_gap_is_as_likely_and_every_word_lends_a_neighbour():
  ids = np.arange(2000, dtype=np.int32)
  text = [2, 4, 6, toy.EOS, 8, 10, toy.EOS]
  batch = toy.batch_of([text] * 2000)._replace(example_id=ids)
  _, tokens, mask = edited(0.1, "insert", batch=toy.pad(batch, 1))
  number = np.zeros((len(text) + 1, toy.VOCAB))
  for row in rows_of(tokens, mask):
    (token,) = without(row, text)
    where = {i for i in range(8) if [*text[:i], token, *text[i:]] == row}
    for gap in where:
      number[gap, token] += 1 / len(where)
  gaps, lenders = number.sum(1), number.sum(0)
  # Before and after every word, but never behind the last end.
  np.testing.assert_allclose(gaps[:7] / 2000, 1 / 7, atol=0.05)
  assert gaps[7] == 0
  expected = np.bincount(neighbours()[[2, 4, 6, 8, 10]].ravel(), minlength=24)
  np.testing.assert_allclose(lenders / 2000, expected / 20, atol=0.04)
  # Whichever word lends one, it goes anywhere.
  others = ~np.isin(np.arange(toy.VOCAB), text)  # whose gap is known
  joint = np.outer(gaps, lenders) / 2000
  np.testing.assert_allclose(number[:, others], joint[:, others], atol=25)


def test_insertions_without_room_are_left_out_and_counted():
  # Rows of 22, 23 and 24 tokens, of which at rate 0.2 four more are wanted.
  text = [*range(3, 20), *range(3, 10)]
  rows = [[*text[:size], toy.EOS] for size in (21, 22, 23, 23)]
  batch = toy.batch_of(rows, LENGTH)
  batch.weight[3] = 0
  view, tokens, mask = edited(0.2, "insert", batch=batch)
  assert mask.sum(-1).tolist() == [24] * 4
  assert (tokens[:, -1] == toy.EOS).all()
  np.testing.assert_array_equal(tokens[2:], batch.tokens[2:])
  assert times(0.2, np.array([21, 22, 23])).tolist() == [4, 4, 4]
  assert stats_of(view) == {"insert": (3, 66), "no_room": (2 + 3 + 4, 12)}


@pytest.mark.parametrize("rate", [0.05, 0.25, 1.0])
def test_swaps_are_of_pairs_of_words_of_one_segment(rate):
  view, tokens, mask = edited(rate, "swap")
  np.testing.assert_array_equal(mask, BATCH.mask)
  moved = tokens != BATCH.tokens
  pairs = np.array([sum(len(p) // 2 for p in segments(old)) for old in OLD])
  np.testing.assert_array_equal(
    moved.sum(-1), 2 * np.minimum(times(rate, COUNT), pairs)
  )
  for new, old in zip(rows_of(tokens, mask), OLD, strict=True):
    for ours, theirs in zip(segments(new), segments(old), strict=True):
      # Where one went, the other came from.
      assert all(
        ours[theirs.index(w)] == v for v, w in zip(theirs, ours, strict=True)
      )
  assert stats_of(view) == {"swap": (moved.sum(), COUNT.sum())}


def test_every_pair_of_words_is_as_likely_to_be_swapped():
  text = [3, 4, 5, 6, 7, toy.EOS]
  batch = toy.batch_of([text] * 3000)
  _, tokens, _ = edited(0.1, "swap", batch=batch)
  moved = tokens[:, :5] != batch.tokens[:, :5]
  which = moved @ (1 << np.arange(5))
  found, number = np.unique(which, return_counts=True)
  assert len(found) == 10  # pairs of five
  np.testing.assert_allclose(number / 3000, 1 / 10, atol=0.03)


def test_the_pairs_of_a_long_segment_are_no_likelier_than_those_of_a_short():
  # Of three pairs one is swapped; one of the three is in the short segment.
  text = [3, 4, toy.EOS, 5, 6, 7, 8, toy.EOS]
  batch = toy.batch_of([text] * 3000)
  _, tokens, _ = edited(0.1, "swap", batch=batch)
  moved = tokens != batch.tokens
  assert (moved.sum(-1) == 2).all()
  # Four standard deviations.
  assert moved[:, 0].mean() == pytest.approx(1 / 3, abs=0.035)


@pytest.mark.parametrize("rate", [0.1, 0.25])
def test_every_word_is_deleted_at_the_rate(rate):
  view, tokens, mask = edited(rate, "delete")
  deleted = COUNT - (mask & (tokens != toy.EOS)).sum(-1)
  for new, old in zip(rows_of(tokens, mask), OLD, strict=True):
    without(old, new)  # what is left is in its order
  long = np.array([min(map(len, segments(o)[:-1]), default=0) > 5 for o in OLD])
  mean = deleted[long].sum() / COUNT[long].sum()
  assert mean == pytest.approx(rate, abs=0.05)
  assert len(set(deleted[long])) > 2
  assert stats_of(view) == {"delete": (deleted.sum(), COUNT.sum())}


def test_one_word_of_each_segment_is_left_whichever():
  text = [3, 4, 5, 6, toy.EOS, 7, 8, toy.EOS]
  batch = toy.batch_of([text] * 2000)
  _, tokens, mask = edited(1.0, "delete", batch=batch)
  left = rows_of(tokens, mask)
  assert {len(row) for row in left} == {4}
  for place, words in ((0, [3, 4, 5, 6]), (2, [7, 8])):
    number = np.bincount([row[place] for row in left], minlength=9)[words]
    np.testing.assert_allclose(number / 2000, 1 / len(words), atol=0.05)


def test_a_row_without_words_stays_and_a_single_word_is_not_deleted():
  for operations in ("all", *OPERATIONS):
    _, tokens, mask = edited(0.25, operations)
    for i in np.flatnonzero(COUNT == 0):
      np.testing.assert_array_equal(tokens[i], BATCH.tokens[i])
      np.testing.assert_array_equal(mask[i], BATCH.mask[i])
  assert edited(1.0, "delete")[1][4].tolist()[:2] == [9, toy.PAD]


@pytest.mark.parametrize("operations", ["all", *OPERATIONS])
def test_edits_depend_neither_on_the_padding_nor_on_the_other_rows(operations):
  # Where there is room: no more may be inserted than fits.
  rows = np.random.default_rng(0).permutation(ROWS)[:50]
  _, tokens, mask = edited(0.25, operations)
  few = toy.pad(toy.take_rows(BATCH, rows), 9)
  view, *part = edited(0.25, operations, batch=few)
  for got, expected in zip(part, (tokens[rows], mask[rows]), strict=True):
    np.testing.assert_array_equal(got[:, :LENGTH], expected)
    assert not got[:, LENGTH:].any()
  # The statistics, too, are those of these rows alone.
  weight = np.isin(np.arange(ROWS), rows).astype(np.float32)
  of_all, *_ = edited(0.25, operations, batch=BATCH._replace(weight=weight))
  assert stats_of(view) == stats_of(of_all)


def test_the_statistics_are_those_of_rows_that_count():
  weight = (np.arange(ROWS) % 2).astype(np.float32)
  view, tokens, mask = edited(
    0.25, "delete", batch=BATCH._replace(weight=weight)
  )
  deleted = COUNT - (mask & (tokens != toy.EOS)).sum(-1)
  expected = ((weight * deleted).sum(), (weight * COUNT).sum())
  assert stats_of(view) == {"delete": expected}
  assert edited(0.3)[0].stats.keys() == {*OPERATIONS, "no_room"}


def test_the_label_is_the_rows_own():
  view, *_ = edited(0.3)
  np.testing.assert_array_equal(view.label[0], BATCH.label)
  np.testing.assert_array_equal(view.weight[0], BATCH.weight)
  assert toy.view_of(maker(0.3), BATCH, with_teacher=False).teacher is None


def test_no_device_waits_for_the_rows_of_another():
  rows = NamedSharding(meshes.make_mesh(), PartitionSpec("data"))

  def tokens(batch):
    key, models = jax.random.key(0), toy.make_models()
    view = maker(0.3).make(key, batch, None, models, jnp.int32(0))
    return view.student.tokens[0]

  function = jax.jit(tokens, in_shardings=rows, out_shardings=rows)
  compiled = function.lower(toy.make_batch()).compile().as_text()
  assert "all-gather" not in compiled


def test_a_method_can_hold_several_operations():
  _, call = parse("kd+eda(operations=swap.delete)")
  view, *_ = edited(0.3, call.kwargs["operations"])
  assert view.stats.keys() == {"swap", "delete"}


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((1.5,), r"rate must be in \[0, 1\], got 1.5"),
    (
      (0.1, "swop"),
      "operations must be all or some of synonym, insert, swap, delete, each "
      "once and joined by dots, got 'swop'",
    ),
    ((0.1, "swap."), r"got 'swap\.'"),
    ((0.1, "swap.delete.swap"), r"each once .* got 'swap\.delete\.swap'"),
    ((0.1, "all", 0), "k must be at least 1, got 0"),
  ],
)
def test_the_factory_rejects_what_cannot_be(arguments, message):
  with pytest.raises(ValueError, match=message):
    edit_tokens(*arguments)
