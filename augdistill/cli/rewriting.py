"""Texts rewritten by a pretrained masked language model, a file at a time."""

import dataclasses
import functools
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from rich.console import Console
from rich.progress import track

from augdistill import atomic, prng
from augdistill.augment.generation import (
  Generate,
  fill_in_by_beam,
  fill_in_greedily,
)
from augdistill.cli.pretrained import Pretrained
from augdistill.cli.rewrite_options import RewriteOptions
from augdistill.data.batches import eval_batches
from augdistill.data.dataset import take
from augdistill.data.rewrites import Text, rewrite_lines
from augdistill.data.texts import decode_row, encode_rows
from augdistill.errors import RunError
from augdistill.training import mesh
from augdistill.types import MaskedLM

_FORMAT = 1  # of what is kept in the cache; to be raised when it changes
_FILL_IN: dict[str, Callable[[MaskedLM, RewriteOptions], Generate]] = {
  "greedy": lambda generator, options: fill_in_greedily(
    generator, options.copies, options.rate, options.own_positions
  ),
  "beam": lambda generator, options: fill_in_by_beam(
    generator, options.copies, options.rate
  ),
}


@dataclasses.dataclass(frozen=True)
class Rewritten:
  """What came out.

  Attributes:
    texts: text -> its rewrites, in the order of the texts.
    seconds: how long it took, compilation included.
    changed: the share of tokens that are not the text's own.
    unchanged: the share of rewrites that say the text again.
  """

  texts: Mapping[Text, Sequence[Text]]
  seconds: float
  changed: float
  unchanged: float

  @property
  def count(self) -> int:
    """How many rewrites there are."""
    return sum(map(len, self.texts.values()))

  def summary(self) -> str:
    """One line for a person."""
    speed = self.count / max(self.seconds, 1e-9)
    return (
      f"{self.count:,} rewrites of {len(self.texts):,} texts in "
      f"{self.seconds:.0f} s ({speed:.0f} a second); {self.changed:.1%} of "
      f"tokens changed, {self.unchanged:.1%} of rewrites say the text again"
    )


def rewrite_texts(
  generator: Pretrained, texts: Sequence[Text], options: RewriteOptions
) -> Rewritten:
  """Rewrites texts; what a text becomes does not depend on the others.

  Args:
    generator: fills in.
    texts: one text each, or two for pairs; the same one is rewritten once.
      What is beyond the generator's `max_length` tokens is cut.
    options: how.

  Returns:
    The rewrites, spelt as the generator's vocabulary spells.
  """
  begin = time.perf_counter()
  texts = list(dict.fromkeys(texts))
  units = texts
  if options.pairs == "separate":
    units = list(dict.fromkeys((part,) for text in texts for part in text))
  new, changed, unchanged = _rewrite_units(generator, units, options)
  if options.pairs == "separate":
    new = {text: _side_by_side(text, new) for text in texts}
  seconds = time.perf_counter() - begin
  return Rewritten(new, seconds, changed, unchanged)


def _side_by_side(text: Text, new: Mapping[Text, Sequence[Text]]) -> list[Text]:
  """The i-th rewrites of all parts as one; a part without one stays."""
  parts = [[part for (part,) in new[(part,)]] for part in text]
  count = max(map(len, parts))
  parts = [
    [*its, *[part] * (count - len(its))]
    for part, its in zip(text, parts, strict=True)
  ]
  return list(zip(*parts, strict=True))


def _rewrite_units(
  generator: Pretrained, units: Sequence[Text], options: RewriteOptions
) -> tuple[dict[Text, list[Text]], float, float]:
  """The rewrites of different texts, each a row; and the two shares."""
  vocab, found = generator.vocab, dict.fromkeys(units)
  changed = free = unchanged = 0
  for which, batch, new, score in _generated(generator, units, options):
    own = batch.mask & ~vocab.lexicon.protected[batch.tokens]
    for row, unit in enumerate(which):
      copies = [
        tokens
        for tokens, real in zip(new[:, row], score[:, row], strict=True)
        if real > -np.inf
      ]
      decoded = (decode_row(tokens, vocab) for tokens in copies)
      kept = [text for text in decoded if all(part.strip() for part in text)]
      found[units[unit]] = kept
      differ = [(tokens != batch.tokens[row]).sum() for tokens in copies]
      changed += sum(differ)
      free += len(copies) * own[row].sum()
      unchanged += differ.count(0)
  count = sum(len(its) for its in found.values())
  return found, float(changed / max(free, 1)), unchanged / max(count, 1)


def _generated(generator, units, options, batch_size: int = 64):
  """(numbers of units, batch, tokens, scores), units of like length together.

  A unit's draws are keyed by its wording.
  """
  devices, vocab = mesh.make_mesh(), generator.vocab
  rows = encode_rows(units, vocab, generator.served.max_length, num_outputs=1)
  ids = [zlib.crc32("\n".join(unit).encode()) & 0x7FFFFFFF for unit in units]
  rows = dataclasses.replace(rows, example_id=np.array(ids, np.int32))
  order = np.argsort(rows.lengths, kind="stable")
  size = mesh.round_up_rows(batch_size, devices)
  batches = list(eval_batches(take(rows, order), size))
  whole = mesh.replicated(devices)
  lexicon = jax.device_put(vocab.lexicon, whole)
  key = jax.device_put(
    prng.stream(prng.run_key(options.seed), "rewrite"), whole
  )
  params = jax.device_put(
    generator.params, mesh.param_shardings(generator.network, devices)
  )
  generate = _compiled(generator.network, dataclasses.replace(options, seed=0))
  console = Console(stderr=True)
  for number, batch in track(
    list(enumerate(batches)),
    "rewriting",
    console=console,
    disable=not console.is_terminal,
    transient=True,
  ):
    which = order[number * size : (number + 1) * size]
    made = generate(key, mesh.place_batch(batch, devices), lexicon, params)
    yield which, batch, *map(np.asarray, made)


@functools.cache
def _compiled(network: MaskedLM, options: RewriteOptions) -> Generate:
  return jax.jit(_FILL_IN[options.search](network, options))


def cached_rewrites(
  generator: Pretrained,
  texts: Sequence[Text],
  options: RewriteOptions,
  cache_dir: str | os.PathLike,
) -> str:
  """A file of rewrites, made once for the same texts, generator and options.

  Args:
    generator: fills in.
    texts: what is rewritten.
    options: how.
    cache_dir: where the file is kept.

  Returns:
    The path of a file for `data.rewrites.read_rewrites`.

  Raises:
    RunError: if it cannot be written.
  """
  content = [
    _FORMAT,
    generator.fingerprint,
    dataclasses.asdict(options),
    sorted(set(texts)),
  ]
  key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
  path = os.path.join(cache_dir, f"rewrites-{key}.jsonl")
  if os.path.exists(path):
    return path
  print(f"rewriting {len(set(texts)):,} texts, once: {path} keeps them")
  done = rewrite_texts(generator, texts, options)
  print(done.summary())
  try:
    with atomic.replacing(path) as file:
      file.writelines(rewrite_lines(done.texts.items()))
  except OSError as error:
    raise RunError(
      f"cannot write to the data cache {cache_dir}: {error.strerror}."
    ) from None
  return path
