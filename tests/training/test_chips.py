"""What is published of devices."""

import pytest

from augdistill.training.chips import CHIPS, grid_of
from augdistill.training.profile import peak_flops


@pytest.mark.parametrize("kind", CHIPS)
def test_every_kind_has_positive_numbers_and_a_source_of_its_maker(kind):
  chip = CHIPS[kind]
  numbers = chip.bfloat16, chip.float32, chip.memory, chip.bandwidth
  assert min(numbers) > 0
  assert chip.float32 <= chip.bfloat16
  maker = "cloud.google.com/tpu" if chip.axes else "www.nvidia.com"
  assert chip.source.startswith(f"https://{maker}")


def test_a_peak_is_that_of_the_type():
  assert CHIPS["v3"].peak("float32") == CHIPS["v3"].peak("bfloat16")
  assert CHIPS["h200"].peak("float32") == CHIPS["h200"].peak("bfloat16") / 2


def test_a_v3_8_has_the_peak_and_the_memory_of_four_chips():
  device = CHIPS["v3"]
  assert 8 * device.bfloat16 == 4 * 123e12
  assert 8 * device.memory == 4 * 32 * 2**30
  assert peak_flops("TPU v3") == device.bfloat16


@pytest.mark.parametrize(
  ("kind", "devices", "grid"),
  [
    ("v3", 8, (2, 2)),
    ("v5e", 1, (1, 1)),
    ("v5e", 8, (2, 4)),
    ("v6e", 16, (4, 4)),
    ("v5p", 4, (2, 2, 1)),
    ("v4", 32, (2, 4, 4)),
    ("v3", 3, None),
    ("v5e", 6, None),
    ("h200", 8, None),
  ],
)
def test_a_slice_is_a_grid_of_chips(kind, devices, grid):
  assert grid_of(kind, devices) == grid
