#!/usr/bin/env bash
# What each host of a TPU does; launch/tpu_pod.sh copies it there and calls it.
#
#   bash tpu_worker.sh setup WHEEL BUCKET FOLDER   install the wheel that is
#                                                  beside this script; mount
#                                                  gs://BUCKET/FOLDER
#   bash tpu_worker.sh run ID COMMAND ...          run augdistill COMMAND there
#   bash tpu_worker.sh stop                        have it saved and stopped
#
# A run is a process of its own, which goes on when the connection is lost. With
# the same ID, `run` then shows it again and starts nothing, since gcloud sends
# a command again when a connection breaks. The last line tells the exit code; a
# run that is not there any more, as after a reboot, was lost: 137.
#
# Everything is in the folder of this script: venv/, bucket/ (the mount), runs/.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHON=3.11 # launch/constraints.txt is tried with it; TPU images have 3.10.
STOP_SECONDS=${STOP_SECONDS:-120}
export PATH="$HERE/bin:$PATH"

# The line by which tpu_pod.sh knows that this host answered, and what.
tell_code() {
  printf 'augdistill: exit code %s on %s\n' "$1" "$(hostname)"
}

fail() {
  printf 'augdistill: error: %s\n' "$1" >&2
  exit 2
}

# A fresh machine upgrades itself, and holds apt's lock for minutes.
apt_install() {
  sudo apt-get -qq -o DPkg::Lock::Timeout=600 update
  sudo apt-get -qq -o DPkg::Lock::Timeout=600 install -y "$@"
}

install_augdistill() {
  local wheel=$HERE/$1 made_from
  made_from=$(cat "$wheel" "$HERE/constraints.txt" | cksum)
  if [ "$(cat "$HERE/venv/made_from" 2>/dev/null)" = "$made_from" ]; then
    return
  fi
  if ! command -v uv >/dev/null; then
    curl -fsSL https://astral.sh/uv/install.sh |
      env UV_INSTALL_DIR="$HERE/bin" UV_NO_MODIFY_PATH=1 sh -s -- --quiet
  fi
  stop_runs
  rm -rf "$HERE/venv"
  uv --quiet venv --python "$PYTHON" "$HERE/venv"
  uv --quiet pip install --python "$HERE/venv/bin/python" \
    --constraint "$HERE/constraints.txt" "$wheel" "jax[tpu]"
  echo "$made_from" >"$HERE/venv/made_from"
}

install_gcsfuse() {
  local key=/usr/share/keyrings/cloud.google.asc
  local packages=https://packages.cloud.google.com/apt
  if command -v gcsfuse >/dev/null; then return; fi
  curl -fsSL "$packages/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
  echo "deb [signed-by=$key] $packages gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  apt_install gcsfuse
}

# Mounts the bucket without caches of what is there: each host must see at once
# what the first has written.
mount_bucket() {
  local probe
  mkdir -p "$HERE/bucket"
  if ! mountpoint -q "$HERE/bucket"; then
    gcsfuse --implicit-dirs --metadata-cache-ttl-secs 0 \
      --metadata-cache-negative-ttl-secs 0 ${2:+--only-dir "$2"} \
      "$1" "$HERE/bucket" >"$HERE/gcsfuse.log" 2>&1 ||
      fail "gs://$1 cannot be mounted: $(tail -n 3 "$HERE/gcsfuse.log")"
  fi
  probe=$HERE/bucket/.augdistill_$(hostname)
  { echo >"$probe" && rm "$probe"; } 2>/dev/null ||
    fail "gs://$1 cannot be written to; the TPU's service account needs the\
 role Storage Object User there"
}

# The process of a run: leads a process group, and leaves its exit code behind.
lead() {
  local directory=$1 code=0
  shift
  echo $$ >"$directory/pid"
  trap : TERM # Meant for augdistill, whose end is waited for.
  cd "$HERE/bucket"
  "$HERE/venv/bin/augdistill" "$@" || code=$?
  echo "$code" >"$directory/code.tmp"
  mv "$directory/code.tmp" "$directory/code"
}

# Whether the run in directory $1 is under way.
is_alive() {
  [ ! -e "$1/code" ] && [ -e "$1/pid" ] &&
    grep -qsF "$1" "/proc/$(cat "$1/pid")/cmdline"
}

# Asks every run that is under way to stop, and ends what does not.
stop_runs() {
  local directory i
  for directory in "$HERE"/runs/*; do
    if is_alive "$directory"; then
      kill -TERM -- "-$(cat "$directory/pid")" 2>/dev/null || true
    fi
  done
  for directory in "$HERE"/runs/*; do
    for ((i = 0; i < STOP_SECONDS; i++)); do
      if ! is_alive "$directory"; then break; fi
      sleep 1
    done
    if is_alive "$directory"; then
      kill -KILL -- "-$(cat "$directory/pid")" 2>/dev/null || true
    fi
  done
}

run() {
  local directory=$HERE/runs/$1 lines=+1
  shift
  if [ -d "$directory" ]; then
    lines=20
  else
    stop_runs
    mkdir -p "$directory"
    setsid bash "$HERE/tpu_worker.sh" lead "$directory" "$@" \
      </dev/null >"$directory/log" 2>&1 &
    until [ -s "$directory/pid" ]; do sleep 0.1; done
  fi
  if is_alive "$directory"; then
    tail -n "$lines" -f --pid="$(cat "$directory/pid")" "$directory/log"
  else
    tail -n "$lines" "$directory/log"
  fi
  exit "$(cat "$directory/code" 2>/dev/null || echo 137)"
}

verb=${1:-}
[ $# = 0 ] || shift
case $verb in
  setup)
    trap 'tell_code $?' EXIT
    install_augdistill "$1"
    install_gcsfuse
    mount_bucket "$2" "$3"
    ;;
  run)
    trap 'tell_code $?' EXIT
    run "$@"
    ;;
  lead) lead "$@" ;;
  stop) stop_runs ;;
  *)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0" >&2
    exit 2
    ;;
esac
