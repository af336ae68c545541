"""What a step's parts cost: operations counted, time measured."""

import pathlib
from collections import Counter

import jax
from rich.console import Console
from rich.table import Table

from augdistill.cli import fit
from augdistill.cli.answering import with_stand_ins
from augdistill.cli.parts import Experiment
from augdistill.cli.trained import count
from augdistill.training.flops import count_flops
from augdistill.training.profile import Timing, peak_flops, time_steps
from augdistill.types import Params

# Steps whose batches are looked at for the longest.
_SEEN_STEPS = 100


def profile(experiment: Experiment, directory: pathlib.Path) -> None:
  """Runs some steps of the longest batch under the profiler, and tells.

  The trace goes to DIRECTORY/profile. The run itself begins as if nothing
  had been.

  Args:
    experiment: the run's parts.
    directory: its own.
  """
  experiment = with_stand_ins(experiment)
  training = fit.training(experiment)
  state, step = training.initial_state(), training.make_step()
  for chosen, method in enumerate(experiment.policy.methods):
    numbers = [n for n in range(_SEEN_STEPS) if step.choose(n) == chosen]
    batches = map(training.batch_at, numbers)
    batch = max(batches, key=lambda batch: batch.tokens.shape[-1])
    arguments = step.arguments(state, batch)
    flops = count_flops(step.compiled[chosen], *arguments)
    compiled = step.compiled[chosen].lower(*arguments).compile()
    trace = directory / "profile" / str(chosen)

    def run(compiled=compiled, batch=batch):
      nonlocal state
      state, metrics = compiled(*step.arguments(state, batch))
      return metrics

    timing = time_steps(compiled, run, trace)
    rows, length = batch.tokens.shape
    model = model_flops(experiment, flops, rows * length)
    show(method.name, flops, timing, model, f"{rows} rows of {length} tokens")


def model_flops(
  experiment: Experiment, flops: Counter[str], tokens: int
) -> float:
  """What the models must do at the least: 6 P per token and pass, and 2 P.

  6 P for each pass of the student that learns, 2 P for each of the teacher; P
  without the table of embeddings, of which a token reads one row. What views
  do on top, above all the projection, is counted as it is. What is computed
  again, or for nothing, does not count. (EncT5's decoder reads one latent
  query per text and not every token, so 6 P is more than it takes.)

  Args:
    experiment: the run's parts.
    flops: of a step, by part.
    tokens: of a batch, padding included.
  """
  passes = Counter(name.partition(":")[2] for name in flops)
  views = sum(n for name, n in flops.items() if name.endswith(":view"))
  student = jax.eval_shape(experiment.student.init, jax.random.key(0))
  total = 6 * passes["student"] * _without_table(student) * tokens + views
  if experiment.teacher:
    params = _without_table(experiment.teacher.params)
    total += 2 * passes["teacher"] * params * tokens
  return float(total)


def _without_table(params: Params) -> int:
  """P: all numbers but those of the table of embeddings."""
  return count(params) - max(leaf.size for leaf in jax.tree.leaves(params))


def show(
  method: str,
  flops: Counter[str],
  timing: Timing,
  model: float,
  batch: str,
) -> None:
  """Prints what was counted and measured."""
  table = Table("part", "GFLOP", "of all", "of the time")
  whole = flops.total()
  for name in sorted({*flops, *timing.shares}, key=lambda n: -flops[n]):
    time = f"{timing.shares.get(name, 0):.0%}" if timing.shares else ""
    share = f"{flops[name] / whole:.0%}" if whole else ""
    label = name.replace(":", ", ") or "the rest, optimizer included"
    table.add_row(label, f"{flops[name] / 1e9:.3g}", share, time)
  console = Console(highlight=False)
  console.print(f"{method}: {batch}", markup=False)
  console.print(table)
  devices = jax.devices()
  speed, model_speed = whole / timing.seconds, model / timing.seconds
  said = (
    f"{timing.seconds:.3g} s a step, {speed / 1e9:.4g} GFLOP/s on "
    f"{len(devices)} x {devices[0].device_kind}"
  )
  if peak := peak_flops(devices[0].device_kind):
    used = model_speed / (peak * len(devices))
    said += f"; model FLOP utilisation {used:.1%} of the published peak"
  else:
    said += (
      f"; models alone {model_speed / 1e9:.4g} GFLOP/s (no published peak to "
      "compare with)"
    )
  console.print(said, markup=False)
  console.print(f"trace: {timing.trace}", markup=False)
