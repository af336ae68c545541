"""Makes JAX strict before anything imports it, and checks shapes at run time.

Eight fake CPU devices, so that sharding is tested wherever the tests run.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Most of a test's time is compilation; what is compiled hardly runs. The older
# emitters of fused loops compile in half the time. Processes that tests start
# inherit both: their bits are compared.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
os.environ["XLA_FLAGS"] = " ".join(
  (
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    "--xla_cpu_use_fusion_emitters=false",
  )
)

from jaxtyping import install_import_hook

# Shapes in annotations are checked in the tests only.
install_import_hook("augdistill", "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def shared_data():
  """The folder of real data sets, where there is one."""
  root = os.environ.get("AUGDISTILL_SHARED")
  if not root:
    pytest.skip("set AUGDISTILL_SHARED to the folder of real data sets")
  return root
