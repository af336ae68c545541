#!/usr/bin/env bash
# What is fast and what is not, as ratios: a table and a JSON file in runs/bench.
#
#   bash launch/bench.sh [--quick] [--out DIR] [BENCHMARK ...]
#   bash launch/bench.sh [--rounds N] METHOD ...
#
# All benchmarks take about an hour, --quick some minutes; --help names them. Of
# methods it prints what a step costs, relative to the first one's.
# AUGDISTILL_SHARED=DIR names a folder with data/, for those on real data.
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

prepare_environment bench
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
exec python -m tests.benchmarks.run "$@"
