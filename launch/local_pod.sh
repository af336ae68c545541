#!/usr/bin/env bash
# Runs a command as the N processes of a pod, on this machine, each with M fake
# CPU devices: the same code as on a pod, and what goes wrong there goes wrong
# here, for nothing.
#
#   bash launch/local_pod.sh N M [FLAG ...] -- COMMAND ...
#
#   --retries K      run again up to K times what was stopped or lost (0)
#   --wait SECONDS   how long the others may take to end, once one of them has
#                    ended otherwise than done (60)
#   --dry_run        print the commands, and run none
#
# for example
#
#   bash launch/local_pod.sh 2 4 -- augdistill finetune --task helpdesk \
#       --model micro --num_steps 100 --output_dir runs/pod
#
# COMMAND gets --coordinator, --num_processes and --process_id. What the first
# process says is shown, and every process has a log. SIGTERM and SIGINT are
# passed on to all; a second one ends them at once.
#
# Exit codes: 0 all are done; 2 wrong usage or data; 75 a process was stopped or
# lost (75, SIGABRT, SIGKILL, SIGTERM, SIGINT): run it again and it goes on;
# else 1. The others end because one did, so the first decides.
set -euo pipefail

launch=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=launch/steps.sh
source "$launch/steps.sh"

POLL_SECONDS=0.2

retries=0
patience=60
sizes=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in
    --help)
      show_help
      exit 0
      ;;
    --dry_run) DRY_RUN=1 ;;
    --retries | --wait)
      [ $# -gt 1 ] || usage_error "$1 needs a number"
      check_number "$1" "$2"
      if [ "$1" = --wait ]; then patience=$2; else retries=$2; fi
      shift
      ;;
    -*) usage_error "there is no flag $1. See bash $0 --help" ;;
    *) sizes+=("$1") ;;
  esac
  shift
done
if [ "${#sizes[@]}" != 2 ] || [ $# -lt 2 ]; then
  usage_error "the numbers of processes and of devices, and behind -- the\
 command are needed. See bash $0 --help"
fi
shift
check_number "N" "${sizes[0]}"
check_number "M" "${sizes[1]}"
count=$((10#${sizes[0]}))
devices=$((10#${sizes[1]}))
if [ "$count" = 0 ] || [ "$devices" = 0 ]; then
  usage_error "there must be at least one process and one device"
fi
if ! command -v "$1" >/dev/null; then
  PATH=$(cd "$launch/.." && pwd)/.venv/bin:$PATH
  if ! command -v "$1" >/dev/null && [ -z "$DRY_RUN" ]; then
    usage_error "there is no program $1; bash launch/quickstart.sh makes an\
 environment that has augdistill"
  fi
fi

# Prints a port that nobody listens to.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    if ! (exec 3<>"/dev/tcp/localhost/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
}

# Sets `process` to the command of process $1 of those that meet at port $2.
make_process() {
  local index=$1 port=$2
  shift 2
  process=(env JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=$devices" "$@"
    --coordinator "localhost:$port" --num_processes "$count"
    --process_id "$index")
}

# Sends signal $1 to every process that has not ended; the others hear it, too.
stopped=""
# shellcheck disable=SC2329 # Called by traps.
pass_on() {
  local i signal=$1
  if [ -n "$stopped" ]; then signal=KILL; fi
  stopped=1
  deadline=$((SECONDS + patience))
  for ((i = 0; i < ${#pids[@]}; i++)); do
    if [ -n "${codes[i]}" ]; then continue; fi
    # At the end, what a process has started in turn must go, too.
    if [ "$signal" = KILL ]; then
      kill -KILL -- "-${pids[i]}" 2>/dev/null || true
    else
      kill -"$signal" "${pids[i]}" 2>/dev/null || true
    fi
  done
}

# Ends those that still run, since they have had their time.
end_others() {
  local i
  for ((i = 0; i < count; i++)); do
    if [ -n "${codes[i]}" ]; then continue; fi
    say "process $i has not ended $patience s later and is killed"
    kill -KILL -- "-${pids[i]}" 2>/dev/null || true
    wait "${pids[i]}" 2>/dev/null || true
    codes[i]=killed
  done
}

# Looks which processes have ended; adds to `first` the codes of those that
# were the first to end otherwise than done, and any 2.
collect() {
  local i code earlier=${#first[@]}
  running=0
  for ((i = 0; i < count; i++)); do
    if [ -n "${codes[i]}" ]; then continue; fi
    if kill -0 "${pids[i]}" 2>/dev/null; then
      running=$((running + 1))
      continue
    fi
    code=0
    wait "${pids[i]}" 2>/dev/null || code=$?
    codes[i]=$code
    if [ "$code" = 0 ]; then continue; fi
    say "process $i $(ended_by "$code"); its log is $logs/process$i.log"
    if [ "$earlier" = 0 ] || [ "$code" = 2 ]; then first+=("$code"); fi
    if [ -z "$deadline" ]; then deadline=$((SECONDS + patience)); fi
  done
}

# Runs all processes once; sets `result`.
run_once() {
  local i port
  port=$(free_port)
  pids=() codes=() first=() deadline=""
  mkdir -p "$logs"
  exec 3<>"$logs/process0.log"
  for ((i = 0; i < count; i++)); do
    make_process "$i" "$port" "$@"
    # Each is the leader of a process group of its own: a signal from the
    # terminal comes once, through us.
    set -m
    "${process[@]}" </dev/null >>"$logs/process$i.log" 2>&1 3>&- 4>&- &
    set +m
    pids[i]=$! codes[i]=""
  done
  running=$count
  while [ "$running" -gt 0 ]; do
    sleep "$POLL_SECONDS"
    collect
    cat <&3
    if [ -n "$deadline" ] && [ "$SECONDS" -ge "$deadline" ]; then
      end_others
      running=0
    fi
  done 2>/dev/null # Bash's own words on who was killed; `say` goes elsewhere.
  cat <&3
  exec 3<&-
  # Without a first one, those that had to be killed hung when told to stop.
  if [[ ${#first[@]} = 0 && ${codes[*]} == *killed* ]]; then first=(137); fi
  result=$(verdict ${first[@]+"${first[@]}"})
}

if [ -n "$DRY_RUN" ]; then
  port=$(free_port)
  for ((i = 0; i < count; i++)); do
    make_process "$i" "$port" "$@"
    printf '%s &\n' "$(run "${process[@]}")"
  done
  echo wait
  exit 0
fi

pids=() codes=()
exec 4>&2
SAY_TO=4
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT
trap 'pass_on TERM' HUP
trap 'stopped=1; pass_on KILL' EXIT
directory=$(mktemp -d "${TMPDIR:-/tmp}/augdistill_pod.XXXXXX")
say "the logs of the $count processes are in $directory"
for ((attempt = 0; ; attempt++)); do
  logs=$directory/run$attempt
  run_once "$@"
  if [ "$result" != 75 ] || [ -n "$stopped" ]; then break; fi
  if [ "$attempt" -ge "$retries" ]; then break; fi
  say "running again, $((attempt + 1)) of $retries"
done
if [ "$result" = 75 ]; then
  say "stopped; run the same command again to go on from the last checkpoint"
fi
exit "$result"
