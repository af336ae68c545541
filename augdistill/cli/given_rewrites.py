"""Other texts of a run's training rows: read from a file, or made."""

from augdistill.augment.grammar import Call, parse
from augdistill.cache_dir import default_cache_dir
from augdistill.cli.config import RunConfig
from augdistill.cli.pretrained import Pretrained
from augdistill.cli.rewriting import cached_rewrites
from augdistill.data.dataset import Examples
from augdistill.data.load import Data
from augdistill.data.rewrites import Rewrites, join_rewrites, read_rewrites
from augdistill.errors import UsageError


def check_rewrites(config: RunConfig) -> None:
  """Raises UsageError where rewrites are asked for and not given, or twice."""
  if config.rewrites and config.generator:
    raise UsageError(
      "give --rewrites FILE or --generator DIR, to make them, but not both"
    )
  asked = reads_rewrites(config.method)
  if asked and not (config.rewrites or config.generator):
    raise UsageError(
      f"the method {config.method!r} has a view of rewrites: give --rewrites "
      "FILE, or --generator DIR to make them"
    )


def reads_rewrites(method: str) -> bool:
  """Whether a method names the view `rewrites`, be it inside of another."""

  def names(value):
    if isinstance(value, Call):
      inside = (*value.args, *value.kwargs.values())
      return value.name == "rewrites" or any(map(names, inside))
    return value == "rewrites"

  return any(map(names, parse(method)))


def training_rewrites(
  config: RunConfig, data: Data, train: Examples
) -> Rewrites | None:
  """Other texts of the training rows, read or made; says how many there are.

  Raises:
    UsageError: if what is given is none of them.
  """
  path = source = config.rewrites
  if config.generator:
    source = f"the generator {config.generator}"
    path = cached_rewrites(
      Pretrained.load(config.generator),
      train.texts,
      config.rewriting,
      config.data.cache_dir or default_cache_dir(),
    )
  if path is None:
    return None
  found = read_rewrites(path, data.task.pair)
  rewrites, note = join_rewrites(
    train.texts, found, source, data.vocab, config.data.max_length
  )
  print(note)
  if not reads_rewrites(config.method):
    print(f"no view of {config.method} is called rewrites: nothing reads them")
  return rewrites
