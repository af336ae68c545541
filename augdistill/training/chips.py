"""What the makers of accelerators publish of one JAX device.

Dense products: NVIDIA's pages give those with sparsity, twice as many. JAX
multiplies float32 in bfloat16 on TPUs and in TF32 on such GPUs, unless it is
told otherwise (docs.jax.dev/en/latest/201/precision.html), so that TPUs are as
fast in float32 as in bfloat16, and these GPUs half as fast.
"""

from typing import NamedTuple

GB, GIB = 10**9, 2**30


class Chip(NamedTuple):
  """One device of a kind.

  Attributes:
    pattern: what the names of such devices match, as
      `jax.Device.device_kind` says them.
    bfloat16: products and sums of bfloat16 per second.
    float32: of float32, as JAX computes them.
    memory: bytes.
    bandwidth: bytes per second between memory and cores.
    source: where its maker says so.
    axes: of the grid in which the chips of a slice lie; 0 for no TPU.
    per_chip: devices of a chip.
  """

  pattern: str
  bfloat16: float
  float32: float
  memory: int
  bandwidth: float
  source: str
  axes: int = 0
  per_chip: int = 1

  def peak(self, dtype: str) -> float:
    """Operations per second on factors of this type."""
    return self.bfloat16 if dtype == "bfloat16" else self.float32


def _tpu(
  pattern: str, flops: float, memory: int, bandwidth: float, *rest
) -> Chip:
  return Chip(pattern, flops, flops, memory, bandwidth, *rest)


CHIPS = {
  # A chip has 123 TFLOP/s, 32 GiB, 900 GB/s and two cores; a device is a core,
  # and a v3-8 has eight.
  "v3": _tpu(
    *(r"TPU v3", 123e12 / 2, 16 * GIB, 900e9 / 2),
    *("https://cloud.google.com/tpu/docs/v3", 2, 2),
  ),
  # From here on a device is a chip.
  "v4": _tpu(
    *(r"TPU v4", 275e12, 32 * GIB, 1200e9),
    *("https://cloud.google.com/tpu/docs/v4", 3),
  ),
  "v5e": _tpu(
    *(r"TPU v5 ?(lite|e)", 197e12, 16 * GB, 819e9),
    *("https://cloud.google.com/tpu/docs/v5e", 2),
  ),
  "v5p": _tpu(
    *(r"TPU v5", 459e12, 95 * GB, 2765e9),
    *("https://cloud.google.com/tpu/docs/v5p", 3),
  ),
  "v6e": _tpu(
    *(r"TPU v6 ?(lite|e)", 918e12, 32 * GB, 1638e9),
    *("https://cloud.google.com/tpu/docs/v6e", 2),
  ),
  # SXM.
  "h100": Chip(
    *(r"H100", 989e12, 989e12 / 2, 80 * GB, 3.35e12),
    "https://www.nvidia.com/en-us/data-center/h100/",
  ),
  "h200": Chip(
    *(r"H200", 989e12, 989e12 / 2, 141 * GB, 4.8e12),
    "https://www.nvidia.com/en-us/data-center/h200/",
  ),
}


def grid_of(kind: str, devices: int) -> tuple[int, ...] | None:
  """How the chips of a slice of TPUs lie that has so many devices.

  Args:
    kind: a key of `CHIPS`.
    devices: of the slice.

  Returns:
    The sides of their grid, such as (2, 4), as near to a square or a cube as
    powers of two can be; sides of 1 come last. None where there is no such
    slice.
  """
  chip = CHIPS[kind]
  chips, rest = divmod(devices, chip.per_chip)
  if not chip.axes or rest or chips.bit_count() != 1:
    return None
  powers = chips.bit_length() - 1
  sides = [2 ** ((powers + axis) // chip.axes) for axis in range(chip.axes)]
  return tuple(sorted(sides, key=lambda side: side == 1))
