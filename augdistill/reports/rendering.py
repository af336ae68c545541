"""Text from templates and tables."""

import jinja2
from tabulate import tabulate


def environment() -> jinja2.Environment:
  """The package's templates; what stands in HTML is escaped."""
  return jinja2.Environment(
    loader=jinja2.PackageLoader("augdistill.reports"),
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )


def markdown_table(rows: list[list[str]], header: list[str]) -> str:
  """Cells as a table of Markdown."""
  escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
  return tabulate(escaped, header, "pipe", disable_numparse=True)
