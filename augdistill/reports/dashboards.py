"""Where a run can be watched: TensorBoard, and Weights & Biases if asked for.

Numbers and texts are named `distill/...`, beside those of others.
"""

import importlib.util
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from augdistill import atomic
from augdistill.errors import UsageError
from augdistill.reports.rendering import markdown_table

# It warns of numbers that are not finite; a run says so itself, and fails.
logging.getLogger("tensorboardX").setLevel(logging.ERROR)


@runtime_checkable
class Dashboard(Protocol):
  """Somewhere that shows a run as it goes."""

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Shows numbers of a step, by name."""

  def table(
    self, step: int, name: str, header: Sequence[str], rows: list[list[str]]
  ) -> None:
    """Shows texts of a step."""

  def close(self) -> None:
    """Nothing comes after it."""


class TensorBoard:
  """Event files, which TensorBoard reads.

  Args:
    path: their directory.
    start: steps done before; what was shown of later ones is void.
  """

  def __init__(self, path: str | os.PathLike, start: int):
    import tensorboardX  # Where nothing is trained it is not needed.

    self._events = tensorboardX.SummaryWriter(
      str(path), purge_step=start + 1, filename_suffix=f".{start}"
    )

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """As of `Dashboard`."""
    for name, value in values.items():
      self._events.add_scalar(f"distill/{name}", value, step)

  def table(
    self, step: int, name: str, header: Sequence[str], rows: list[list[str]]
  ) -> None:
    """As of `Dashboard`."""
    text = markdown_table(rows, list(header))
    self._events.add_text(f"distill/{name}", text, step)

  def close(self) -> None:
    """As of `Dashboard`."""
    self._events.close()


class WeightsAndBiases:
  """A run of Weights & Biases; a start that goes on with a run goes on there.

  Args:
    project: where it is shown.
    path: the run's directory.
    config: the run's settings, to be compared and sorted by.
    name: the run's name there; by default its directory.

  Raises:
    UsageError: if it cannot be begun.
  """

  def __init__(
    self,
    project: str,
    path: pathlib.Path,
    config: Mapping[str, Any],
    name: str | None = None,
  ):
    check_wandb()
    import wandb

    self._wandb = wandb
    file_of_id = path / "wandb_run.txt"
    try:
      before = file_of_id.read_text(encoding="utf-8").strip()
    except OSError:
      before = None
    try:
      self._run = wandb.init(
        project=project,
        name=name or os.fspath(path),
        dir=os.fspath(path),
        id=before,
        resume="allow" if before else None,
        config=dict(config),
      )
    except wandb.errors.Error as error:
      raise UsageError(
        f"Weights & Biases must take the run, but says: {error}. Log in with "
        "wandb login, set WANDB_MODE=offline, or leave out --wandb"
      ) from error
    with atomic.replacing(file_of_id) as file:
      file.write(f"{self._run.id}\n")

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """As of `Dashboard`."""
    named = {f"distill/{name}": value for name, value in values.items()}
    self._run.log(named, step=step)

  def table(
    self, step: int, name: str, header: Sequence[str], rows: list[list[str]]
  ) -> None:
    """As of `Dashboard`."""
    table = self._wandb.Table(columns=list(header), data=rows)
    self._run.log({f"distill/{name}": table}, step=step)

  def close(self) -> None:
    """As of `Dashboard`."""
    self._run.finish()


def check_wandb() -> None:
  """Raises UsageError unless Weights & Biases is installed."""
  if importlib.util.find_spec("wandb") is None:
    raise UsageError(
      "--wandb needs the package wandb, which is not installed: pip install "
      "'augdistill[wandb]'"
    )
