"""The processes of a run, one per host of a pod: all of it JAX's own.

`jax.distributed` connects them. Its coordination service ends the others when
one dies, and when one is told to stop, by SIGTERM or the notice of a TPU's
maintenance, its preemption service makes all agree on the step to stop after.
"""

import hashlib

import jax
import numpy as np
from jax.experimental import multihost_utils

# Seconds without a sign of life after which a process counts as dead, and that
# one which is done waits for the others.
HEARTBEAT_SECONDS = 30


def join(
  coordinator: str | None = None,
  count: int | None = None,
  index: int | None = None,
) -> None:
  """Connects this process with the others; before JAX looks for devices.

  Args:
    coordinator: HOST:PORT of the first process.
    count: how many processes there are.
    index: the number of this one. What is None is found from the environment
      of a TPU, SLURM, Open MPI or Kubernetes.

  Raises:
    ValueError: if it is not found there.
    RuntimeError: if the others are not there in time.
  """
  jax.distributed.initialize(
    coordinator,
    count,
    index,
    heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    shutdown_timeout_seconds=HEARTBEAT_SECONDS,
  )
  # Until it is asked for the first time, the service forgets who is stopped.
  all_stop_after(0)


def leave() -> None:
  """Waits until all are done, and disconnects."""
  jax.distributed.shutdown()


def are_several() -> bool:
  """Whether this process has joined others; does not look for devices."""
  return jax.distributed.is_initialized()


def are_on_tpu() -> bool:
  """Whether the devices are TPUs."""
  return jax.default_backend() == "tpu"


def is_first() -> bool:
  """Whether this process speaks and writes for all."""
  return jax.process_index() == 0


def wait_for_all(what: str) -> None:
  """Returns when every process has come here.

  Args:
    what: a name of the place, the same in all.
  """
  if are_several():
    multihost_utils.sync_global_devices(what)


def as_first(array: np.ndarray) -> np.ndarray:
  """What the first process has; to be called by every process."""
  if not are_several():
    return array
  return np.asarray(multihost_utils.broadcast_one_to_all(array))


def are_alike(content: bytes) -> bool:
  """Whether all processes have the same; to be called by every process."""
  if not are_several():
    return True
  digest = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
  every = multihost_utils.process_allgather(digest)
  return bool(np.all(every == every[0]))


def all_stop_after(step: int) -> bool:
  """Whether all processes agreed to stop after this step.

  To be asked by every process after every step, none left out: they agree on
  the step behind the last one of which any of them has asked.
  """
  return multihost_utils.reached_preemption_sync_point(step)


def all_stop_before(step: int) -> bool:
  """Whether one was asked to stop while all began, to go on from a step.

  To be asked by every process, once, before `all_stop_after`.
  """
  return any(all_stop_after(earlier) for earlier in range(1, step + 1))
