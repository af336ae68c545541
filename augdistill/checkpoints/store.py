"""A directory of checkpoints that survives a kill at any moment.

A save is asynchronous: orbax copies the arrays, then writes them in the
background into a temporary directory, which is renamed when it is complete,
and only then are checkpoints deleted that are neither among the newest nor the
best. So at every moment a complete checkpoint exists as soon as one has.

A state is stored flat, one array per leaf, named by the leaf's path, such as
`params/encoder/layers_0/mlp/wi/kernel`. Whatever the containers are made of,
the names say what is there, and the parameters can be read without knowing
the optimizer. Metrics lie beside them as JSON.

Reading never writes, so a run can be evaluated while it is being trained.
"""

import contextlib
import json
import logging
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from augdistill import errors
from augdistill.checkpoints import flat, saved
from augdistill.checkpoints.folder import LOG_IN, first_line, is_in_bucket

_LOG = logging.getLogger(__name__)
_ITEM = "state"
_STEPS = ocp.path.step.standard_name_format()


def _not_from_orbax(record: logging.LogRecord) -> bool:
  """False for what orbax logs: its failures reach us as exceptions."""
  return "/orbax/" not in record.pathname


logging.getLogger("absl").addFilter(_not_from_orbax)


class Store:
  """The checkpoints of one run.

  Args:
    directory: where they lie, one directory per step; gs://BUCKET/DIRECTORY,
      or of this machine.
    keep: how many of the newest are kept.
    best_metric: the metric whose best checkpoint is kept, too; None for none.
    higher: whether the higher metric is the better one.

  Example:
    with Store(path, keep=3, best_metric="accuracy") as store:
      if store.latest_step() is not None:
        state = store.restore(template=state)
      ...
      store.save(step, state, {"accuracy": 0.9})
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    keep: int = 3,
    best_metric: str | None = None,
    higher: bool = True,
  ):
    if keep < 1:
      raise ValueError(f"keep must be at least 1, got {keep}")
    self._directory: Any = pathlib.Path(directory).absolute()
    if is_in_bucket(directory):
      self._directory = epath.Path(directory)
    self._keep = keep
    self._best_metric = best_metric
    self._sign = 1 if higher else -1
    self._manager: ocp.CheckpointManager | None = None
    self._metrics: dict[int, Mapping[str, float]] = {}
    self._torn: set[int] = set()

  def steps(self) -> list[int]:
    """The steps of the complete checkpoints on disk, ascending.

    Raises:
      UsageError: if they are in a bucket that cannot be read.
    """
    try:
      found = {m.step for m in _STEPS.find_all(self._directory)}
    except Exception as error:  # Of whichever library speaks to the bucket.
      if not is_in_bucket(self._directory):
        raise
      raise errors.UsageError(
        f"cannot read {self._directory}: {_first_line(error)}. {LOG_IN}"
      ) from error
    return sorted(found - self._torn)

  def latest_step(self) -> int | None:
    """The newest step on disk, or None. A save under way does not count."""
    return max(self.steps(), default=None)

  def best_step(self) -> int | None:
    """The step with the best `best_metric`, the newest at a tie, or None."""
    return self._best({step: self.metrics(step) for step in self.steps()})

  def metrics(self, step: int) -> dict[str, float]:
    """What was given to `save` as metrics; {} where nothing was."""
    path = self._directory / str(step) / "_CHECKPOINT_METADATA"
    try:
      return json.loads(path.read_text()).get("custom_metadata") or {}
    except Exception:  # torn: `restore` says so, with its remedy
      return {}

  def save(
    self,
    step: int,
    state: Any,
    metrics: Mapping[str, SupportsFloat] | None = None,
  ) -> None:
    """Saves `state` as the checkpoint of `step`, in the background.

    When it returns, `state` may be donated or overwritten. A step that is on
    disk already is left as it is. Checkpoints after `step`, which a run that
    was rewound has left behind, are deleted.

    Args:
      step: how many steps have been taken.
      state: a tree of arrays.
      metrics: name -> number.

    Raises:
      RunError: if this or the previous save fails, for example on a full disk.
      ValueError: if metrics are given, but not `best_metric`.
    """
    metrics = {name: float(value) for name, value in (metrics or {}).items()}
    if metrics and self._best_metric not in {None, *metrics}:
      raise ValueError(f"no {self._best_metric!r} among metrics {[*metrics]}")
    arrays = {
      name: leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
      for name, leaf in flat.named_leaves(state)
    }
    with self._failures_named():
      manager = self._writer()
      manager.wait_until_finished()
      for stale in manager.all_steps():
        if stale > step or stale in self._torn:
          manager.delete(stale)
      self._torn.clear()
      if step in manager.all_steps():
        return
      self._metrics[step] = metrics
      manager.save(
        step,
        args=ocp.args.Composite(**{_ITEM: ocp.args.PyTreeSave(arrays)}),
        custom_metadata=metrics,
        force=True,
      )

  def restore(self, template: Any, step: int | None = None) -> Any:
    """Reads a state back, bit for bit.

    Args:
      template: a tree like the saved one, of arrays or `ShapeDtypeStruct`s.
        Each leaf is put where its template is (`sharding`).
      step: which one; None for the newest that can be read. A torn one is
        skipped with a warning.

    Returns:
      A tree like `template`, of jax arrays.

    Raises:
      RunError: if there is no such checkpoint, or it does not fit `template`.
    """
    names, leaves = zip(*flat.named_leaves(template), strict=True)
    templates = dict(zip(names, leaves, strict=True))

    def read(step: int) -> Any:
      path = self._arrays(step)
      saved.check_fit(path, templates)
      arrays = saved.read(
        path, {n: flat.sharding(t) for n, t in templates.items()}
      )
      treedef = jax.tree.structure(template)
      return jax.tree.unflatten(
        treedef, [jnp.asarray(arrays[n]) for n in names]
      )

    return self._newest_readable(read, step)

  def restore_params(self, step: int | None = None) -> dict[str, Any]:
    """Reads the parameters alone, for those who have no optimizer.

    Args:
      step: as in `restore`.

    Returns:
      Nested dicts of NumPy arrays, to be put on any device.

    Raises:
      RunError: if there is no such checkpoint, or it has no parameters.
    """

    def read(step: int) -> dict[str, Any]:
      path = self._arrays(step)
      names = [n for n in saved.shapes(path) if n.startswith("params/")]
      if not names:
        raise errors.RunError(f"checkpoint {path} holds no parameters")
      return flat.nested(saved.read(path, dict.fromkeys(names)))["params"]

    return self._newest_readable(read, step)

  def wait(self) -> None:
    """Blocks until the save under way, if any, is complete on disk.

    Raises:
      RunError: if it fails.
    """
    if self._manager is not None:
      with self._failures_named():
        self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits for the save under way and ends the background threads.

    Raises:
      RunError: if that save fails.
    """
    if self._manager is not None:
      with self._failures_named():
        self._manager.close()
        self._manager = None

  def __enter__(self) -> "Store":
    return self

  def __exit__(self, *exception) -> None:
    self.close()

  def _writer(self) -> ocp.CheckpointManager:
    """Opens the directory for writing, which removes half-written saves."""
    if self._manager is None:
      self._manager = ocp.CheckpointManager(
        self._directory,
        item_handlers={_ITEM: ocp.PyTreeCheckpointHandler()},
        options=ocp.CheckpointManagerOptions(
          preservation_policy=self, cleanup_tmp_directories=True
        ),
      )
      self._metrics = {s: self.metrics(s) for s in self._manager.all_steps()}
    return self._manager

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Orbax's `PreservationPolicy`: the newest and the best."""
    del context
    steps = [c.step for c in checkpoints]
    best = self._best({s: self._metrics.get(s, {}) for s in steps})
    wanted = {*steps[-self._keep :], best}
    return [step in wanted for step in steps]

  def _best(self, metrics: Mapping[int, Mapping[str, float]]) -> int | None:
    values = {s: m.get(self._best_metric, math.nan) for s, m in metrics.items()}
    ranked = [(self._sign * v, s) for s, v in values.items() if v == v]
    return max(ranked)[1] if ranked else None

  def _arrays(self, step: int) -> os.PathLike:
    return self._directory / str(step) / _ITEM

  @contextlib.contextmanager
  def _failures_named(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:
      raise errors.RunError(
        f"a checkpoint could not be saved in {self._directory}: "
        f"{_first_line(error)} (the checkpoints before it are intact: make room"
        " or mend the directory, then run the same command again)"
      ) from error

  def _newest_readable(self, read, step: int | None) -> Any:
    """`read(step)`, or of the newest step for which it works."""
    candidates = self.steps()
    if step is not None:
      candidates = [s for s in candidates if s == step]
    for candidate in reversed(candidates):
      try:
        return read(candidate)
      except errors.RunError:
        raise
      except Exception as error:  # tensorstore, JSON, OS: all mean unreadable
        self._torn.add(candidate)
        _LOG.warning(
          "checkpoint %s cannot be read and is skipped: %s",
          self._directory / str(candidate),
          _first_line(error),
        )
    which = "" if step is None else f" of step {step}"
    known = errors.listing(map(str, self.steps()))
    raise errors.RunError(
      f"no readable checkpoint{which} in {self._directory}; there are: {known}."
      " Remove the directory to start anew"
    )


def _first_line(error: Exception) -> str:
  return first_line(error).partition(" [tensorstore_spec=")[0]
