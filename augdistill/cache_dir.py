"""Where is kept what can be made again: data, vocabularies, programs."""

import os


def default_cache_dir() -> str:
  """$XDG_CACHE_HOME/augdistill, or ~/.cache/augdistill."""
  cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return os.path.join(cache, "augdistill")
