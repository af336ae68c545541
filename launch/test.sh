#!/usr/bin/env bash
# Everything that is checked before a change is pushed: lint, format, import
# contracts, shell scripts, tests. Made for a fresh clone; .ci/run calls it.
#
#   bash launch/test.sh [PYTEST_ARGUMENT...]
#
# for example `bash launch/test.sh tests/data -k vocabulary`, or `-m slow` for
# the tests that are left out here. Two processes, with eight CPU devices each.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

prepare_environment test
cd "$ROOT"
ruff check .
ruff format --check .
lint-imports
shellcheck --external-sources launch/*.sh .ci/run
# By file: what a file prepares is prepared once.
pytest --numprocesses 2 --dist loadfile -m "not slow" "$@"
