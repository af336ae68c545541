"""What a person reads when a run is over."""

import shlex
from collections.abc import Mapping
from typing import Any

from rich.console import Console


def show_results(output_dir: str, results: Mapping[str, Any]) -> None:
  """Prints a run's scores, where they lie, and how to use the model."""
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
  console.print(
    f"  {'use it':<11}augdistill predict --run {where} --input FILE"
  )


def _line(values: Mapping[str, float]) -> str:
  return "  ".join(f"{name} {value:.4f}" for name, value in values.items())
