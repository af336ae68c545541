"""Data sets that come with the package, by the names that `--task` takes."""

import importlib.resources

from augdistill.data.files import Table, read_table

EMBEDDED = ("helpdesk",)


def read_embedded(name: str) -> dict[str, Table]:
  """The splits train, validation and test of an embedded data set.

  Args:
    name: one of `EMBEDDED`, a folder of this package with its own README.

  Returns:
    A table per split.
  """
  folder = importlib.resources.files("augdistill.data") / name
  tables = {}
  for split in ("train", "validation", "test"):
    with importlib.resources.as_file(folder / f"{split}.tsv") as path:
      tables[split] = read_table(str(path))
  return tables
