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


def show_export(output: str, report: Mapping[str, Any]) -> None:
  """Prints what was exported, and how large and fast it is.

  Args:
    output: its directory.
    report: what export.json holds.
  """
  console = Console(highlight=False, soft_wrap=True)
  compared, scores = report["compared"], report["scores"]
  if not report["finished"]:
    console.print(
      f"the run has not finished; this is its step {report['step']}"
    )
  console.print(
    f"{compared['rows']} {compared['split']} rows of {compared['shortest']} to "
    f"{compared['longest']} tokens: logits differ from the run's by at most "
    f"{compared['largest_difference']:.1g}",
    markup=False,
  )
  if report["weights"] != "float32":
    console.print(f"{report['weights']} against float32:", markup=False)
    for name, value in scores.get("before", {}).items():
      console.print(
        f"  {name} {value:.4f} -> {scores['after'][name]:.4f} "
        f"({scores['rows']} {scores['split']} rows)",
        markup=False,
      )
    console.print(
      f"  agreement {scores['agreement']:.4f}, largest change of a logit "
      f"{scores['largest_change']:.2g}"
    )
  console.print(_sizes_and_speeds(report))
  times = report["latency"]
  runs = [
    latency["runs"]
    for name in ("student", "export", "teacher")
    for latency in times.get(name, {}).values()
  ]
  console.print(
    "bytes of weights in float32, and of the export's model, vocabulary and "
    "code"
  )
  console.print(
    f"ms of a batch of 1 and of 32 rows, {times['tokens']['1']} and "
    f"{times['tokens']['32']} tokens long, median / 95th percentile of "
    f"{min(runs)} to {max(runs)} runs on {times['device']}, "
    f"{times['cpu_cores']} CPU cores",
    markup=False,
  )
  if report["no_teacher"]:
    console.print(f"no teacher: {report['no_teacher']}", markup=False)
  console.print(f"{output}/README.md says how to use it", markup=False)


def _sizes_and_speeds(report: Mapping[str, Any]) -> Table:
  table = Table("", "parameters", "bytes", "ms, batch 1", "ms, batch 32")
  params, times = report["num_params"], report["latency"]
  rows = [
    ("student", params["student"], 4 * params["student"], "student"),
    ("as exported", params["student"], sum(report["bytes"].values()), "export"),
  ]
  if params["teacher"]:
    size = 4 * params["teacher"]
    rows.append(("teacher", params["teacher"], size, "teacher"))
  for name, number, size, key in rows:
    spelled = (
      f"{times[key][b]['p50_ms']:.3g} / {times[key][b]['p95_ms']:.3g}"
      for b in ("1", "32")
    )
    table.add_row(name, f"{number:,}", f"{size:,}", *spelled)
  return table


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


def show_plan(plan: Mapping[str, Any]) -> None:
  """Prints what `planning.plan` returned."""
  console = Console(highlight=False, soft_wrap=True)

  def say(text):
    console.print(text, markup=False)

  devices, memory = plan["devices"], plan["memory"]
  on = f"{devices['count']} x {devices['kind']}"
  cut = plan["num_microbatches"]
  say(
    f"{plan['method']}: {plan['batch_size']} rows of {plan['length']} tokens"
    + (f" in {cut} microbatches" if cut > 1 else "")
    + f" on {on} ({_axes(devices['mesh'])})"
  )
  console.print(_planned_models(plan))
  console.print(_planned_flops(plan["flops_per_step"]))
  console.print(_planned_memory(memory))
  say(_fits(memory))
  its = plan["time"]
  say(
    f"{its['seconds_per_step']:.3g} s a step, limited by {its['limited_by']}, "
    f"at {its['utilisation']:.0%} of the peaks that the maker publishes "
    "(an assumption)"
  )
  say(
    f"{its['minutes_per_1000_steps']:.3g} minutes per 1,000 steps, "
    f"{its['hours']:.3g} hours for {plan['num_steps']:,} steps"
  )
  if its["price"] is not None:
    say(
      f"{its['price']:,.2f} for the run, at "
      f"{its['price_per_hour']:,.2f} an hour for {on} together"
    )


def _axes(mesh: Mapping[str, int]) -> str:
  return ", ".join(f"{name} {size}" for name, size in mesh.items())


def _planned_models(plan: Mapping[str, Any]) -> Table:
  columns = {
    "parameters": "parameters",
    "num_layers": "layers",
    "vocab_size": "vocabulary",
    "num_outputs": "outputs",
  }
  table = Table("", *columns.values(), "type", "dropout")
  for name in ("student", "teacher"):
    if its := plan[name]:
      numbers = (f"{its[column]:,}" for column in columns)
      rate = f"{its['dropout_rate']:g}"
      table.add_row(name, *numbers, its["dtype"], rate)
  return table


def _planned_flops(flops: Mapping[str, int]) -> Table:
  table = Table("part of a step", "TFLOP", "of all")
  whole = sum(flops.values())
  for name, number in flops.items():
    label = name.replace(":", ", ") or "the rest"
    table.add_row(label, f"{number / 1e12:.3g}", f"{number / whole:.1%}")
  table.add_section()
  table.add_row("all", f"{whole / 1e12:.4g}", "")
  return table


def _planned_memory(memory: Mapping[str, Any]) -> Table:
  table = Table("on a device", "GB")
  for name, size in memory["bytes_per_device"].items():
    table.add_row(name, f"{size / 1e9:.3g}")
  if memory["compiled_for"] is None:
    table.add_row("activations and gradients", "?")
  table.add_section()
  table.add_row("all", f"{memory['total'] / 1e9:.3g}")
  return table


def _fits(memory: Mapping[str, Any]) -> str:
  """A sentence about memory, and what to do where there is too little."""
  there = f"the {memory['of_a_device'] / 1e9:.3g} GB of a device"
  if memory["fits"] is None:
    return f"whether it fits {there} shows without --no_compile"
  says = f"fits {there}"
  if not memory["fits"]:
    says = (
      f"does not fit {there}: take more --devices, a smaller --batch_size or "
      "--gin.RunConfig.num_microbatches=2"
    )
  how = {None: "", "cpu": " (an estimate: as compiled for CPUs)"}
  return says + how.get(memory["compiled_for"], " (as compiled for it)")


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
