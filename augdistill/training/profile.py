"""How fast a compiled step runs, and which of its parts takes the time."""

import os
import pathlib
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from augdistill.training.chips import CHIPS
from augdistill.training.flops import part_of

# Dense bfloat16 products per second of one JAX device, as their makers publish.
# Of v2 and A100: Google Cloud TPU's documentation (a device is one of a chip's
# two cores) and NVIDIA's data sheet.
PEAK_FLOPS = (
  (r"TPU v2", 22.5e12),
  (r"A100", 312e12),
  *((chip.pattern, chip.bfloat16) for chip in CHIPS.values()),
)
# Instructions that hold others, which are counted themselves.
_HOLDERS = re.compile(r"^(while|call|conditional|async)")


class Timing(NamedTuple):
  """What a few steps took.

  Attributes:
    seconds: of a step, the median.
    shares: part -> its share of the devices' busy time; "" for what belongs
      to no part. Empty where the trace does not tell.
    trace: the directory of the trace.
  """

  seconds: float
  shares: dict[str, float]
  trace: str


def peak_flops(device_kind: str) -> float | None:
  """A device's published peak in FLOP/s; None for one that is not listed.

  Args:
    device_kind: as `jax.Device.device_kind` says.
  """
  for pattern, peak in PEAK_FLOPS:
    if re.search(pattern, device_kind, re.IGNORECASE):
      return peak
  return None


def time_steps(
  compiled: jax.stages.Compiled,
  run: Callable[[], Any],
  trace: str | os.PathLike,
  steps: int = 10,
) -> Timing:
  """Runs a compiled step a few times under JAX's profiler.

  Args:
    compiled: the program, which says where its instructions come from.
    run: runs it once and returns its outputs.
    trace: the directory where the trace goes; TensorBoard and Perfetto
      read it.
    steps: how often it runs, after a first time that is not counted.

  Returns:
    The timing.
  """
  jax.block_until_ready(run())
  seconds = []
  with jax.profiler.trace(trace):
    for _ in range(steps):
      start = time.perf_counter()
      jax.block_until_ready(run())
      seconds.append(time.perf_counter() - start)
  shares = _shares(_busy_time(trace), instruction_parts(compiled.as_text()))
  return Timing(statistics.median(seconds), shares, str(trace))


def instruction_parts(hlo: str) -> dict[str, str]:
  """The part that each instruction of a compiled program belongs to.

  Args:
    hlo: the program as text.

  Returns:
    Instruction -> part.
  """
  pattern = r'^\s*(?:ROOT )?%?([\w.-]+) = .*op_name="([^"]*)"'
  return {
    name: part_of(scope)
    for name, scope in re.findall(pattern, hlo, re.MULTILINE)
  }


def _busy_time(trace: str | os.PathLike) -> Counter[str]:
  """Instruction -> nanoseconds, over all devices, of the newest trace."""
  files = sorted(pathlib.Path(trace).rglob("*.xplane.pb"), key=os.path.getmtime)
  busy: Counter[str] = Counter()
  if not files:
    return busy
  for plane in jax.profiler.ProfileData.from_file(str(files[-1])).planes:
    for line in plane.lines:
      for event in line.events:
        name = dict(event.stats).get("hlo_op")
        if name and not _HOLDERS.match(str(name)):
          busy[str(name)] += round(event.duration_ns)
  return busy


def _shares(busy: Counter[str], parts: dict[str, str]) -> dict[str, float]:
  total: Counter[str] = Counter()
  for name, duration in busy.items():
    total[parts.get(name, "")] += duration
  return {name: its / total.total() for name, its in total.items()}
