"""Projection against the plain product, and the certified path against it.

A search that compares queries with all rows takes their product at least, of
which it wants the argmax alone; "naive" is the product and `jnp.argmax` of all
of it. Mixtures are searched among few rows first, in a frozen table: of random
rows, and, where AUGDISTILL_TRAINED=DIR names a run whose vocabulary is large,
of its model's trained ones, with the mixtures of a data set's own batches.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np

from augdistill import prng
from augdistill.augment.mixing import (
  draw_partners,
  exchangeable,
  gather_partners,
)
from augdistill.augment.nearest import nearest_tokens
from augdistill.augment.surroundings import (
  find_surroundings,
  nearest_of_mixtures,
)
from augdistill.cli.parts import as_read_by
from augdistill.cli.trained import Trained
from augdistill.data.batches import train_batches
from augdistill.data.dataset import tokens_of
from augdistill.data.load import DataConfig, load_data
from augdistill.types import Lexicon, Mixture
from tests.benchmarks import real_data
from tests.benchmarks.turns import (
  ROUNDS,
  Bound,
  Figure,
  at_least,
  at_most,
  figure,
  taking_turns,
)

TRAINED = "AUGDISTILL_TRAINED"
VOCAB, WIDTH = 32_128, 512  # T5's, and T5 small's
MANY = 65_536  # queries: 512 rows of 128 tokens
MOST_MB = 64.0


def measure(quick: bool) -> list[Figure]:
  """Time and memory of a search, and what the certified path saves."""
  queries, vocab = (512, 4096) if quick else (4096, VOCAB)
  found = [*search(queries, vocab), memory(), random_mixtures(queries, vocab)]
  if TRAINED in os.environ:
    found.append(trained_mixtures(os.environ[TRAINED], queries))
  return found


def search(count: int, vocab: int) -> list[Figure]:
  """A search against the product and against the naive one."""
  rng = np.random.default_rng(0)
  queries, table = (
    jnp.asarray(rng.normal(size=(n, WIDTH)), jnp.float32)
    for n in (count, vocab)
  )
  allowed = jnp.ones(vocab, bool)
  product = jax.jit(lambda q, t: jnp.einsum("nd,vd->nv", q, t))
  naive = jax.jit(
    lambda q, t: jnp.argmax(
      q @ (t / jnp.linalg.norm(t, axis=-1, keepdims=True)).T, axis=-1
    )
  )
  blocked = jax.jit(nearest_tokens)
  ours, plain, all_of_it = "projection", "product alone", "product and argmax"
  seconds = taking_turns(
    {
      ours: lambda: blocked(queries, table, allowed),
      plain: lambda: product(queries, table),
      all_of_it: lambda: naive(queries, table),
    }
  )
  note = f"{count} queries, {vocab} x {WIDTH}"
  return [
    figure(seconds, ours, plain, bound=at_most(1.05), note=note),
    figure(seconds, ours, all_of_it, note=note),
  ]


def memory() -> Figure:
  """What a search of the paper's batch needs beside its arguments."""

  def temporary(program):
    shapes = (
      jax.ShapeDtypeStruct((MANY, WIDTH), jnp.float32),
      jax.ShapeDtypeStruct((VOCAB, WIDTH), jnp.float32),
      jax.ShapeDtypeStruct((VOCAB,), bool),
    )
    compiled = jax.jit(program).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 1e6

  ours, asked = "projection's own memory", "64 MB"
  naive = temporary(
    lambda q, t, a: jnp.argmax(jnp.where(a[None], q @ t.T, -jnp.inf), axis=-1)
  )
  return figure(
    {ours: [temporary(nearest_tokens)] * ROUNDS, asked: [MOST_MB] * ROUNDS},
    ours,
    asked,
    unit="MB",
    bound=at_most(1),
    note=f"{MANY} queries, {VOCAB} x {WIDTH}; as compiled; the naive one's: "
    f"{naive:.0f} MB",
  )


def random_mixtures(count: int, vocab: int) -> Figure:
  """Mixtures of two rows of a random table, at lambda 0.5."""
  rng = np.random.default_rng(1)
  table = jnp.asarray(rng.normal(size=(vocab, WIDTH)), jnp.float32)
  first, second = rng.integers(0, vocab, (2, 1, 1, count)).astype(np.int32)
  mixture = Mixture(first, second, np.full(first.shape, 0.5, np.float32))
  words = jnp.ones(vocab, bool)
  return _mixtures(mixture, table, Lexicon(words, ~words), "random rows")


def trained_mixtures(run: str, count: int) -> Figure:
  """Mixtures of a data set's batches, in the table of a trained model."""
  trained = Trained.load(run)
  given = DataConfig(train=real_data.train_file("banking77"))
  data = load_data(as_read_by(trained, given))
  table = jnp.asarray(trained.network.table(trained.params))
  lexicon = jax.tree.map(jnp.asarray, data.vocab.lexicon)
  batch_at = train_batches(data.train, 64, seed=0)
  pairs, step = [], 0
  while sum(a.size for a, _ in pairs) < count:
    batch = jax.tree.map(jnp.asarray, batch_at(step))
    key = prng.at_step(prng.run_key(0), jnp.int32(step))
    mixed = gather_partners(batch, draw_partners(key, batch))
    free = np.asarray(exchangeable(mixed, lexicon))
    own = np.broadcast_to(batch.tokens[None], free.shape)
    pairs.append((own[free], np.asarray(mixed.partner.tokens)[free]))
    step += 1
  first, second = (
    np.concatenate(side)[None, None, :count]
    for side in zip(*pairs, strict=True)
  )
  mixture = Mixture(first, second, np.full(first.shape, 0.5, np.float32))
  rows = jnp.asarray(tokens_of(data.train))
  return _mixtures(mixture, table, lexicon, "BANKING77's, trained rows", rows)


def _mixtures(mixture, table, lexicon, name, rows=None) -> Figure:
  """Mixtures by the certified path, against all of them by search.

  Raises:
    AssertionError: if the two do not find the same, ties aside.
  """
  around = find_surroundings(table, lexicon.producible, rows)
  asked = jnp.ones(mixture.first.shape, bool)
  known = lexicon._replace(surroundings=around)
  certified = jax.jit(nearest_of_mixtures)
  found, stages = certified(mixture, asked, table, known)
  shares = {stage: float(where.mean()) for stage, where in stages.items()}
  kinds = lexicon.continues

  @jax.jit
  def search(mixture, table):
    share = mixture.share[..., None]
    queries = share * table[mixture.first] + (1 - share) * table[mixture.second]
    own = None if kinds is None else (kinds[mixture.first], kinds)
    return nearest_tokens(queries, table, lexicon.producible, kinds=own)

  expected, score = search(mixture, table)
  unequal = np.asarray(found != expected)
  row = table[found[unequal]]
  share = mixture.share[..., None]
  query = share * table[mixture.first] + (1 - share) * table[mixture.second]
  its = jnp.sum(query[unequal] * row, -1) / jnp.linalg.norm(row, axis=-1)
  np.testing.assert_allclose(its, score[unequal], rtol=1e-5)
  sure = 1 - shares["by_search"]
  ours, theirs = f"certified, {name}", "search of all rows"
  seconds = taking_turns(
    {
      ours: lambda: certified(mixture, asked, table, known),
      theirs: lambda: search(mixture, table),
    }
  )
  reference, divided = theirs, ours
  told = ", ".join(f"{stage} {share:.2%}" for stage, share in shares.items())
  bound: Bound = at_least(15 if sure >= 0.99 else 5)
  size = "{} x {}".format(*table.shape)
  return figure(
    seconds,
    reference,
    divided,
    bound=bound,
    note=f"{mixture.first.size} mixtures, {size}, k = {around.ids.shape[1]}; "
    f"{told}; {int(unequal.sum())} ties",
  )
