"""Markdown tables of methods, from the results of their runs.

  python -m tests.benchmarks.methods_table RESULTS [COSTS]
  python -m tests.benchmarks.methods_table --collect RUN ... > RESULTS

RESULTS is a .jsonl file whose lines are the results.json of runs; COSTS is what
launch/bench.sh METHOD ... printed. Rows are sorted by their mean on the test
split.
"""

import collections
import json
import pathlib
import re
import statistics
import sys

# ms/step, ratio, lowest, highest, method
_COST = re.compile(
  r"[\d.]+ +(?P<ratio>[\d.]+) +[\d.]+ +[\d.]+ +(?P<method>\S.*)"
)


def collect(runs: list[str]) -> None:
  """Prints the results of finished runs, one per line."""
  for run in runs:
    results = json.loads((pathlib.Path(run) / "results.json").read_text())
    print(json.dumps(results))


def read_costs(path: str) -> dict[str, float]:
  """Method -> what a step costs, relative to the first method's."""
  costs = {}
  for line in pathlib.Path(path).read_text().splitlines():
    if row := _COST.fullmatch(line.strip()):
      costs[row["method"]] = float(row["ratio"])
  return costs


def print_table(results: str, costs: dict[str, float]) -> None:
  """Prints mean and standard deviation, in percent, of each method."""
  groups = collections.defaultdict(list)
  for line in pathlib.Path(results).read_text().splitlines():
    run = json.loads(line)
    groups[run["method"], run["num_steps"]].append(run)
  usual = collections.Counter(steps for _, steps in groups).most_common(1)

  def percents(runs, split, whose="metrics"):
    metric = next(iter(runs[0]["metrics"][split]))
    return [100 * run[whose][split][metric] for run in runs]

  header = ["method", "runs", "teacher", "validation", "test", "agreement"]
  header += ["a step"] if costs else []
  print("| " + " | ".join(header) + " |")
  print("|---|" + "--:|" * (len(header) - 1))
  order = sorted(
    groups.items(),
    key=lambda item: -statistics.fmean(percents(item[1], "test")),
  )
  for (method, steps), runs in order:
    name = f"`{method}`"
    if steps != usual[0][0]:
      name += f", {steps:,} steps"
    agreement = [100 * r["agreement"] for r in runs if r["agreement"]]
    teacher = statistics.fmean(percents(runs, "test", "teacher_metrics"))
    cells = [
      name,
      str(len(runs)),
      f"{teacher:.1f}",
      *(_spread(percents(runs, split)) for split in ("validation", "test")),
      _spread(agreement),
    ]
    if costs:
      cells.append(f"{costs[method]:.2f}" if method in costs else "")
    print("| " + " | ".join(cells) + " |")


def _spread(values: list[float]) -> str:
  if not values:
    return ""
  mean = f"{statistics.fmean(values):.1f}"
  return (
    mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"
  )


if __name__ == "__main__":
  if sys.argv[1:2] == ["--collect"]:
    collect(sys.argv[2:])
  else:
    print_table(
      sys.argv[1], read_costs(sys.argv[2]) if len(sys.argv) > 2 else {}
    )
