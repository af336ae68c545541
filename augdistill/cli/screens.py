"""What a person reads on the screen when a command is done."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from augdistill.reports.diagnosis import Finding


def show_results(
  output_dir: str,
  results: Mapping[str, Any],
  use: str = "predict --run {run} --input FILE",
) -> None:
  """Prints a run's scores, where they lie, and how to use the model.

  Args:
    output_dir: the run's directory.
    results: what results.json holds.
    use: the command that uses it, with a place for the directory.
  """
  console = Console(highlight=False, soft_wrap=True)
  console.print(
    f"{results['method']} on {results['task']}: {results['num_steps']} steps, "
    f"{results['num_params']['student']:,} parameters, "
    f"{results['train_seconds']:.0f} s",
    markup=False,
  )
  for split, values in results["metrics"].items():
    console.print(f"  {split:<11}{_line(values)}")
    if teacher := results["teacher_metrics"].get(split):
      console.print(f"  {'  teacher':<11}{_line(teacher)}")
  if results["agreement"] is not None:
    console.print(f"  {'agreement':<11}{results['agreement']:.4f}")
  console.print(f"  {'all of it':<11}{output_dir}")
  where = shlex.quote(str(output_dir))
  console.print(f"  {'use it':<11}augdistill {use.format(run=where)}")


def _line(values: Mapping[str, float]) -> str:
  return "  ".join(f"{name} {value:.4f}" for name, value in values.items())


def show_findings(findings: Sequence[Finding]) -> None:
  """Prints what `doctor` found, a line each, and what to do about it."""
  console = Console(highlight=False)
  table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
  table.add_column(no_wrap=True)
  table.add_column(no_wrap=True)
  table.add_column(overflow="fold")
  for finding in findings:
    says = Text(finding.says)
    if finding.remedy:
      says.append(f"\n-> {finding.remedy}", style="italic")
    level = Text(str(finding.level), style=f"bold {finding.level}")
    table.add_row(level, finding.topic, says)
  console.print(table)


def show_samples(rows: list[dict[str, Any]], summary: dict[str, dict]) -> None:
  """Prints what `samples.augmented` returned."""
  console = Console(highlight=False)
  for row in rows:
    console.rule(row["view"], align="left")
    for key in ("text", "partner", "augmented"):
      if key in row:
        console.print(f"[bold]{key:>10}[/bold]  ", end="")
        console.print(row[key], markup=False)
    if "teacher" in row:
      console.print(f"[bold]{'teacher':>10}[/bold]  ", end="")
      console.print(
        f"{_top(row['teacher'])}  ->  {_top(row['teacher_augmented'])}",
        markup=False,
      )
  if not summary:
    console.print("this method has no view that can be read")
    return
  table = Table("view", "shares", title="over the whole file")
  for view, its in summary.items():
    table.add_row(view, ", ".join(map(_share, its, its.values())))
  console.print(table)


def _share(name: str, value: float) -> str:
  """A statistic in percent, but for the one that is a size."""
  name = name.replace("_", " ")
  return f"{name} {value:.3g}" if name == "norm" else f"{name} {value:.1%}"


def _top(answer: dict[str, float] | float, count: int = 2) -> str:
  """The likeliest names with their probabilities, or the value."""
  if not isinstance(answer, dict):
    return f"{answer:.3f}"
  best = sorted(answer.items(), key=lambda item: -item[1])[:count]
  return ", ".join(f"{name} {p:.2f}" for name, p in best)
