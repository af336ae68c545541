# shellcheck shell=bash
# Sourced by the other scripts here. Makes the checkout's own Python
# environment in .venv, with the versions of constraints.txt, or reuses it.
#
#   prepare_environment        what augdistill needs
#   prepare_environment test   and the tools of the tests
#   prepare_environment bench  and what the benchmarks compare with
#
# Afterwards .venv/bin is first on PATH, and ROOT is the checkout. The
# interpreter is the first suitable one on PATH, or the one named by the
# variable PYTHON. The caller has set -euo pipefail. For bash 3.2 and later.

unset CDPATH
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv

# Pythons for which every pinned package has a wheel.
OLDEST_PYTHON=3.11
NEWEST_PYTHON=3.12
NEEDED_MB=4500

fail() {
  printf 'augdistill: error: %s\n' "$1" >&2
  exit 1
}

# Whether $1 runs and is one of the Pythons above.
is_suitable() {
  "$1" -c '
import sys
oldest, newest = (tuple(map(int, v.split("."))) for v in sys.argv[1:])
raise SystemExit(not oldest <= sys.version_info[:2] <= newest)
' "$OLDEST_PYTHON" "$NEWEST_PYTHON" 2>/dev/null
}

# Sets INTERPRETER to a suitable Python that can make environments.
find_python() {
  local candidate without_venv=""
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.12 python3.11 python; do
    if is_suitable "$candidate"; then
      if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        INTERPRETER=$candidate
        return
      fi
      without_venv=${without_venv:-$candidate}
    fi
    if [ "$candidate" = "${PYTHON:-}" ]; then
      break # The one that was asked for, or none.
    fi
  done
  if [ -n "$without_venv" ]; then
    fail "$without_venv has no pip and venv modules; install them (Debian and\
 Ubuntu: 'sudo apt install python3-venv') and run this again"
  fi
  local asked=${PYTHON:-python3} got
  got=$("$asked" -c 'import platform; print(platform.python_version())' \
    2>/dev/null) || got="not there"
  fail "Python $OLDEST_PYTHON or $NEWEST_PYTHON is needed and $asked is $got;\
 install one, or name it: PYTHON=/path/to/python$NEWEST_PYTHON bash $0"
}

# Prints the MB that are free on the checkout's disk; many, if df cannot say.
free_mb() {
  df -Pm "$ROOT" | awk '
    NR == 2 { for (i = 2; i <= NF; i++) if ($i ~ /%$/) { mb = $(i - 1); exit } }
    END { print mb == "" ? 1000000 : mb }'
}

# Shows the latest line of its input in place, where there is a terminal.
show_progress() {
  local line
  while IFS= read -r line; do
    if [ -t 1 ]; then printf '\r\033[K  %.76s' "$line"; fi
  done
  if [ -t 1 ]; then printf '\r\033[K'; fi
}

# Ends the script with the reason for which pip printed $1.
explain_failure() {
  local reason
  case $1 in
    *"No space left"* | *"Errno 28"* | *"uota exceeded"*) reason=disk ;;
    *"Retry("* | *ProxyError* | *SSLError* | *"imed out"*) reason=network ;;
    *"No matching distribution"* | *ResolutionImpossible*) reason=registry ;;
    *) reason=other ;;
  esac
  if [ "$(free_mb)" -lt 50 ]; then reason=disk; fi
  case $reason in
    disk)
      fail "the disk is full; about $NEEDED_MB MB are needed for $VENV, and\
 some for ${TMPDIR:-/tmp} and pip's cache; free some space and run this again"
      ;;
    network)
      fail "pip cannot reach its package registry; check the network, or pip's\
 settings (index, proxy, certificates), and run this again"
      ;;
    registry)
      fail "pip's registry lacks a version of launch/constraints.txt for this\
 machine ($(uname -sm)), or cannot be reached; check the network and pip's\
 settings (index, proxy, certificates), and run this again"
      ;;
  esac
  fail "the installation failed: $(printf '%s\n' "$1" | grep -i error |
    tail -n 1 | cut -c 1-300)"
}

# Installs into .venv; the arguments are pip's. What pip complains of is kept
# in memory, since a disk may be full.
install() {
  local complaints
  {
    complaints=$({
      "$VENV/bin/python" -m pip --disable-pip-version-check install \
        --progress-bar off --constraint "$ROOT/launch/constraints.txt" "$@" |
        show_progress >&3
    } 2>&1) || explain_failure "$complaints"
  } 3>&1
}

# Names what .venv was made from.
fingerprint() {
  { cat "$ROOT/setup.py" "$ROOT/launch/constraints.txt" && echo "$ROOT"; } |
    cksum
}

# Makes .venv where there is no good one, and installs into it.
make_environment() {
  local extras=$1 complaints
  if ! is_suitable "$VENV/bin/python" ||
    ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
    find_python
    rm -rf "$VENV"
    if [ "$(free_mb)" -lt "$NEEDED_MB" ]; then
      fail "the environment needs $NEEDED_MB MB and the disk of $ROOT has\
 $(free_mb) MB free; free some space and run this again"
    fi
    complaints=$("$INTERPRETER" -m venv "$VENV" 2>&1) ||
      explain_failure "${complaints:-error: $INTERPRETER -m venv $VENV}"
  fi
  rm -f "$VENV/made_from"
  echo "Installing augdistill and what it needs into $VENV (a minute or more)"
  # The build tools first: nothing is built with others than the pinned ones.
  install setuptools wheel
  install --no-build-isolation --editable "$ROOT${extras:+[$extras]}"
}

prepare_environment() {
  local extras=${1:-} current had=""
  current=$(fingerprint):
  if "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
    had=$(cat "$VENV/made_from" 2>/dev/null) || had=""
  fi
  case $had in
    "$current"*) had="${had#"$current"} " ;; # The extras that are there.
    *) had="" ;;
  esac
  if [[ $had != *" $extras "* && (-z $had || -n $extras) ]]; then
    make_environment "$extras"
    echo "$current${had% } $extras" >"$VENV/made_from"
  fi
  export PATH="$VENV/bin:$PATH"
}
