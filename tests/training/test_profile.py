"""Where the time of a compiled program goes."""

import jax
import jax.numpy as jnp
import pytest

from augdistill.training.flops import part
from augdistill.training.profile import (
  instruction_parts,
  peak_flops,
  time_steps,
)


def test_instructions_belong_to_the_part_that_they_come_from():
  hlo = """
  %fusion.2 = f32[4]{0} fusion(%a), metadata={op_name="jit(f)/clean:student/x"}
  ROOT %dot.1 = f32[4]{0} dot(%a), metadata={op_name="SCOPE/dot" source_line=3}
  %add = f32[4]{0} add(%a, %b), metadata={op_name="jit(f)/add"}
  %no_metadata = f32[4]{0} add(%a, %b)
"""
  hlo = hlo.replace("SCOPE", "jit(f)/transpose(jvp(ad2:view))")
  assert instruction_parts(hlo) == {
    "fusion.2": "clean:student",
    "dot.1": "ad2:view",
    "add": "",
  }


@pytest.mark.parametrize(
  ("kind", "peak"),
  [
    ("TPU v3", 61.5e12),
    ("TPU v4", 275e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5p", 459e12),
    ("TPU v5", 459e12),
    ("TPU v6 lite", 918e12),
    ("NVIDIA H100 80GB HBM3", 989e12),
    ("NVIDIA A100-SXM4-40GB", 312e12),
    ("cpu", None),
  ],
)
def test_peaks_are_found_by_the_names_of_devices(kind, peak):
  assert peak_flops(kind) == peak


def test_time_is_told_by_part(tmp_path):
  def step(x):
    with part("a", "student"):
      for _ in range(4):
        x = jnp.tanh(x @ x)
    with part("b", "view"):
      return x + 1

  x = jnp.ones((300, 300))
  compiled = jax.jit(step).lower(x).compile()
  made = time_steps(compiled, lambda: compiled(x), tmp_path / "t", steps=3)
  assert 0 < made.seconds < 60
  assert made.shares["a:student"] > 0.5
  assert sum(made.shares.values()) == pytest.approx(1.0)
  assert list((tmp_path / "t").rglob("*.xplane.pb"))
