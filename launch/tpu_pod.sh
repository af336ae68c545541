#!/usr/bin/env bash
# Runs augdistill on a Cloud TPU, of one host or a pod: makes the TPU, installs
# augdistill on its hosts, shows the run, makes the TPU again where it was
# preempted, and deletes it at the end, after errors, too.
#
#   bash launch/tpu_pod.sh --name NAME --type TYPE [FLAG ...] -- COMMAND ...
#
#   --name NAME           the TPU's, and that of its queued resource
#   --type TYPE           v3-8, v4-32, v5litepod-16, ...
#   --project P           else $PROJECT
#   --zone Z              else $ZONE; one that has TPUs of the type
#   --bucket gs://B[/D]   else $BUCKET; all hosts' working directory
#   --copy FILE           copy a file or a folder there first, under the same
#                         name; repeatable
#   --runtime_version V   of the TPU's image; known for the types v2 to v6e
#   --spot                cheaper, and may be preempted at any time
#   --queued              wait in the queue until there is such a TPU
#   --keep                do not delete the TPU at the end
#   --retries K           run again up to K times what was stopped or lost (5)
#   --dry_run             print the commands, and run none
#
# COMMAND is one of augdistill, with --output_dir relative to the bucket:
#
#   bash launch/tpu_pod.sh --name rte --project mine --zone us-central2-b \
#       --type v4-32 --bucket gs://mine --copy t5.model --spot --queued -- \
#       finetune --gin_file papers/augpro/table1_teacher.gin --task rte \
#       --vocab t5.model --output_dir runs/augpro/rte/table1_teacher
#
# Before the first run: `gcloud auth login`; a bucket with folders, in the TPU's
# region (`gcloud storage buckets create gs://B --location R
# --uniform-bucket-level-access --enable-hierarchical-namespace`), to which the
# TPU's service account may write; and, for several hosts, the key that gcloud
# makes in an agent (`ssh-add ~/.ssh/google_compute_engine`).
#
# --dry_run costs nothing and needs no account: it checks flags, names and
# files, and shows every command. It cannot tell whether there is quota.
# Otherwise a TPU costs money from the moment that it is READY until it is
# deleted. SIGINT and SIGTERM stop the run, save it and delete the TPU. Should
# this machine die, the run goes on and the TPU stays: call this again to go on
# with it, or delete it by the command that is shown at the beginning.
#
# Exit codes: 0 done; 1 failed; 2 wrong usage or data; 75 stopped or lost too
# often: run it again and it goes on from the last checkpoint.
set -euo pipefail

launch=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=launch/steps.sh
source "$launch/steps.sh"
ROOT=$(cd "$launch/.." && pwd)

POLL_SECONDS=${POLL_SECONDS:-15}   # between looks at a TPU that is not ready
RETRY_SECONDS=${RETRY_SECONDS:-60} # before a run is tried again
FOLDER=augdistill                  # on the hosts, in the home directory
LABEL=made_by=augdistill

name="" type="" version="" spot="" queued="" keep="" retries=5
project=${PROJECT:-} zone=${ZONE:-} bucket=${BUCKET:-}
copies=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in
    --help)
      show_help
      exit 0
      ;;
    --dry_run) DRY_RUN=1 ;;
    --spot) spot=--spot ;;
    --queued) queued=1 ;;
    --keep) keep=1 ;;
    --name | --type | --project | --zone | --bucket | --copy | \
      --runtime_version | --retries)
      [ $# -gt 1 ] || usage_error "$1 needs a value"
      case $1 in
        --name) name=$2 ;;
        --type) type=$2 ;;
        --project) project=$2 ;;
        --zone) zone=$2 ;;
        --bucket) bucket=$2 ;;
        --copy) copies+=("$2") ;;
        --runtime_version) version=$2 ;;
        --retries)
          check_number "$1" "$2"
          retries=$2
          ;;
      esac
      shift
      ;;
    *) usage_error "there is no flag $1. See bash $0 --help" ;;
  esac
  shift
done
[ $# = 0 ] || shift
command=("$@")

# --- what can be told without asking anybody ---------------------------------

check_flags() {
  local file
  [[ $name =~ ^[a-z]([a-z0-9-]{0,60}[a-z0-9])?$ ]] ||
    usage_error "--name must be of a-z, 0-9 and -, got '$name'"
  [ -n "$type" ] || usage_error "--type is needed, such as v4-32"
  [ -n "$project" ] || usage_error "--project or \$PROJECT is needed"
  [ -n "$zone" ] || usage_error "--zone or \$ZONE is needed"
  [[ $bucket =~ ^gs://[a-z0-9._-]+(/.*)?$ ]] ||
    usage_error "--bucket or \$BUCKET must be gs://NAME or gs://NAME/FOLDER,\
 got '$bucket'"
  bucket=${bucket%/}
  for file in ${copies[@]+"${copies[@]}"}; do
    check_inside --copy "$file"
    [ -e "$file" ] || usage_error "--copy $file: there is no such file"
  done
  if [ -z "$version" ]; then choose_version; fi
}

# A path must be the same here, in the bucket, and on the hosts.
check_inside() {
  case $2 in
    gs://* | /* | .. | ../* | */.. | */../*)
      usage_error "$1 must be relative, and inside of the current folder here\
 and of the bucket there, got '$2'"
      ;;
  esac
}

choose_version() {
  case $type in
    v2-* | v3-* | v4-*) version=tpu-ubuntu2204-base ;;
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    *) usage_error "--runtime_version is needed for the type '$type'" ;;
  esac
}

check_command() {
  local i word output=""
  case ${command[0]:-} in
    finetune | distill | pretrain) ;;
    *)
      usage_error "behind -- finetune, distill or pretrain must come, got\
 '${command[0]:-}'"
      ;;
  esac
  for ((i = 1; i < ${#command[@]}; i++)); do
    word=${command[i]}
    case $word in
      --output_dir) output=${command[i + 1]:-} ;;
      --output_dir=*) output=${word#*=} ;;
      --distributed | --coordinator*)
        usage_error "$word is added here; leave it out"
        ;;
    esac
  done
  [ -n "$output" ] || usage_error "the command needs --output_dir"
  check_inside --output_dir "$output"
}

# --- the TPU -----------------------------------------------------------------

# Sets `state` to the TPU's, "" where there is none. The states of a queued
# resource are those of the queue.
state="" ours=""
look() {
  local answer
  state=""
  if [ -n "$DRY_RUN" ]; then
    run "${describe[@]}"
  elif answer=$("${describe[@]}" 2>"$scratch/complaint"); then
    state=${answer%%$'\t'*}
    if [[ $answer != *$'\t'augdistill ]]; then
      usage_error "there is a TPU $name that this script has not made; choose\
 another --name"
    fi
    ours=1
  elif ! grep -q NOT_FOUND "$scratch/complaint"; then
    cat "$scratch/complaint" >&2
    say "error: gcloud cannot tell about $name in $zone (see above)"
    return "$lost"
  fi
}

# Waits until the TPU is ready, and makes it where there is none.
prepare_tpu() {
  local before="" made=""
  while :; do
    look || return
    if [ -n "$state" ] && [ "$state" != "$before" ]; then
      say "$name is $state"
      before=$state
    fi
    case $state in
      READY | ACTIVE) return ;;
      "")
        if [ -n "$made" ]; then return 75; fi # It has gone again.
        ours=1 made=1
        run "${create[@]}" || return "$lost"
        if [ -n "$DRY_RUN" ]; then return; fi
        ;;
      FAILED | PREEMPTED | SUSPENDED | STOPPED | TERMINATED)
        run "${delete[@]}" || return "$lost"
        if [ -n "$made" ]; then return 75; fi
        ;;
      *) pause "$POLL_SECONDS" ;;
    esac
  done
}

pause() {
  sleep "$1" &
  wait $! # Unlike `sleep`, it ends at once when a signal comes.
}

# --- the run -----------------------------------------------------------------

# Makes the folder that is copied to the hosts.
build() {
  local python=${PYTHON:-python3} source=$scratch/source isolation=()
  if [ -z "${PYTHON:-}" ] && [ -x "$ROOT/.venv/bin/python" ]; then
    python=$ROOT/.venv/bin/python
    isolation=(--no-build-isolation) # It has the build tools.
  fi
  # A copy, since building leaves files behind.
  run mkdir -p "$source" "$scratch/$FOLDER"
  run cp -R "$ROOT/augdistill" "$ROOT/configs" "$ROOT/setup.py" \
    "$ROOT/pyproject.toml" "$ROOT/LICENSE" "$ROOT/README.md" "$source"
  run "$python" -m pip --quiet wheel --no-deps \
    ${isolation[@]+"${isolation[@]}"} --wheel-dir "$scratch/$FOLDER" "$source"
  run cp "$ROOT/launch/constraints.txt" "$ROOT/launch/tpu_worker.sh" \
    "$scratch/$FOLDER"
}

# A run's directory is renamed as a whole when a checkpoint is complete, which
# a bucket without folders cannot do.
check_bucket() {
  local answer words=(gcloud storage buckets describe "gs://$bucket_name" --raw
    --format "value(hierarchicalNamespace.enabled)")
  if [ -n "$DRY_RUN" ]; then
    run "${words[@]}"
    return
  fi
  answer=$("${words[@]}") ||
    usage_error "the bucket gs://$bucket_name cannot be seen (see above)"
  [ "$answer" = True ] ||
    usage_error "the bucket gs://$bucket_name must have folders (hierarchical\
 namespace); make one: gcloud storage buckets create gs://B --location REGION\
 --uniform-bucket-level-access --enable-hierarchical-namespace"
}

copy_files() {
  local file
  for file in ${copies[@]+"${copies[@]}"}; do
    if [ -d "$file" ]; then
      run gcloud storage rsync --recursive "$file" "$bucket/${file%/}"
    else
      run gcloud storage cp "$file" "$bucket/$file"
    fi
  done
}

# Installs on all hosts what is not there yet.
prepare_hosts() {
  [ -n "$DRY_RUN" ] || : >"$scratch/said"
  run gcloud compute tpus tpu-vm scp --recurse "$scratch/$FOLDER" "$name:" \
    --worker all "${place[@]}" --strict-host-key-checking no --quiet &&
    on_hosts "$(quoted bash "$FOLDER/tpu_worker.sh" setup "$wheel" \
      "$bucket_name" "$bucket_folder")"
}

# Has all hosts run a command, and shows what they say, as long as it takes.
child=""
on_hosts() {
  local code=0 words=(gcloud compute tpus tpu-vm ssh "$name" --worker all
    "${place[@]}" "${ssh[@]}" --command "$1")
  if [ -n "$DRY_RUN" ]; then
    run "${words[@]}"
    return
  fi
  : >"$scratch/said" # Before both sides open it: the reader starts at 0.
  "${words[@]}" </dev/null >>"$scratch/said" 2>&1 &
  child=$!
  exec 3<"$scratch/said"
  while kill -0 "$child" 2>/dev/null; do
    cat <&3
    sleep 0.2
  done
  cat <&3
  exec 3<&-
  wait "$child" || code=$?
  child=""
  return "$code"
}

# Sets `result` to what the hosts have told; 75 where none did, since gcloud's
# own 1 and ssh's 255 say nothing about the run.
judge() {
  local line codes=()
  while IFS= read -r line; do
    codes+=("$line")
  done < <(sed -n 's/^augdistill: exit code \([0-9]*\) on .*/\1/p' \
    "$scratch/said")
  result=$(verdict ${codes[@]+"${codes[@]}"})
  if [ "$result" = 0 ]; then result=75; fi
}

# Makes ready what is not, and runs the command once; sets `result`.
lost=1 # What fails before anything has worked will fail again.
try_once() {
  local id
  result=0
  prepare_tpu || result=$?
  if [ "$result" != 0 ]; then return; fi
  if ! prepare_hosts; then
    judge
    if [ "$result" = 75 ] && [ "$lost" = 1 ]; then
      say "error: not all hosts answer; is gcloud's key in the agent (ssh-add)?"
      result=1
    fi
    return
  fi
  lost=75
  # The same command sent again, by gcloud, is the same run.
  id=$(date +%Y%m%d-%H%M%S)-$$-$attempt
  on_hosts "$(quoted bash "$FOLDER/tpu_worker.sh" run "$id" "${command[@]}" \
    --distributed)" || judge
}

# shellcheck disable=SC2329 # Called by the next one.
remove_tpu() {
  if look && [ -z "$state" ] && [ -z "$DRY_RUN" ]; then return; fi
  if ! run "${delete[@]}"; then
    say "error: $name is not deleted and costs money; try again:\
 $(quoted "${delete[@]}")"
    return 1
  fi
}

# At the end, whatever it is.
# shellcheck disable=SC2329 # Called by a trap.
finish() {
  local code=$?
  trap - EXIT
  trap '' INT TERM HUP
  if [ -n "$child" ]; then
    kill "$child" 2>/dev/null || true
    child=""
    say "stopping the run, which saves it"
    on_hosts "bash $FOLDER/tpu_worker.sh stop" || true
  fi
  if [ -n "$ours" ] && [ -n "$keep" ]; then
    say "$name is kept and costs money until: $(quoted "${delete[@]}")"
  elif [ -n "$ours" ]; then
    remove_tpu || code=$((code == 0 ? 1 : code))
  fi
  [ -n "$DRY_RUN" ] || rm -rf "$scratch"
  if [ "$code" = 75 ]; then
    say "stopped; run the same command again to go on from the last checkpoint"
  fi
  exit "$code"
}

check_flags
check_command
if [ -z "$DRY_RUN" ]; then
  command -v gcloud >/dev/null || usage_error "gcloud is needed: install it\
 from https://cloud.google.com/sdk/docs/install"
fi

bucket_name=${bucket#gs://}
bucket_folder=""
if [[ $bucket_name == */* ]]; then bucket_folder=${bucket_name#*/}; fi
bucket_name=${bucket_name%%/*}
wheel=augdistill-$(sed -n 's/^ *version="\(.*\)",$/\1/p' "$ROOT/setup.py")
wheel=$wheel-py3-none-any.whl
place=(--project "$project" --zone "$zone")
# A connection that is dead must not look like a long step.
ssh=(--strict-host-key-checking no --quiet --ssh-flag=-oConnectTimeout=30
  --ssh-flag=-oServerAliveInterval=30)
if [ -n "$queued" ]; then
  tpus=(gcloud compute tpus queued-resources)
  describe=("${tpus[@]}" describe "$name" "${place[@]}" --format
    "value(state.state,tpu.nodeSpec[0].node.labels.made_by)")
  create=("${tpus[@]}" create "$name" --node-id "$name" "${place[@]}"
    --accelerator-type "$type" --runtime-version "$version" --labels "$LABEL")
  delete=("${tpus[@]}" delete "$name" "${place[@]}" --force --quiet)
else
  tpus=(gcloud compute tpus tpu-vm)
  describe=("${tpus[@]}" describe "$name" "${place[@]}" --format
    "value(state,labels.made_by)")
  create=("${tpus[@]}" create "$name" "${place[@]}"
    --accelerator-type "$type" --version "$version" --labels "$LABEL")
  delete=("${tpus[@]}" delete "$name" "${place[@]}" --quiet)
fi
[ -z "$spot" ] || create+=("$spot")

if [ -n "$DRY_RUN" ]; then
  scratch=${TMPDIR:-/tmp}/augdistill_tpu
else
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/augdistill_tpu.XXXXXX")
fi
trap finish EXIT
trap 'exit 75' INT TERM HUP

check_bucket
build
copy_files
say "by hand, the TPU is deleted by: $(quoted "${delete[@]}")"
for ((attempt = 0; ; attempt++)); do
  try_once
  if [ "$result" != 75 ] || [ "$attempt" -ge "$retries" ]; then break; fi
  say "stopped or lost; running again, $((attempt + 1)) of $retries"
  pause "$RETRY_SECONDS"
done
exit "$result"
