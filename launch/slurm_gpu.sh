#!/usr/bin/env bash
#
# Runs augdistill on GPUs under SLURM, on any number of nodes, and puts itself
# back into the queue when it was stopped or a node was lost. From the checkout,
# whose .venv is used where there is one:
#
#   sbatch [SBATCH_FLAG ...] launch/slurm_gpu.sh COMMAND ...
#
# for example
#
#   sbatch --nodes 4 launch/slurm_gpu.sh distill --task rte --teacher teacher \
#       --output_dir runs/rte
#
# COMMAND is finetune, distill or pretrain; --output_dir and its other files
# must be on a file system that all nodes share. What stands below are defaults,
# which flags of sbatch override. Under SLURM, JAX takes one process for each
# GPU: so --ntasks-per-node and --gpus-per-node are equal, and a GPU must not be
# bound to a process (no --gpus-per-task, no --gpu-bind).
#
#   bash launch/slurm_gpu.sh --dry_run COMMAND ...
#
# prints what would run, here and without SLURM. $MAX_REQUEUES (20) is how often
# a job may go back. Two minutes before its time ends, or when it is preempted,
# the processes get SIGTERM and save; `scancel` ends the job for good.
#
#SBATCH --job-name=augdistill
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=augdistill-%j.log
set -euo pipefail

# SLURM runs a copy of this file, which has no neighbours to source.
usage_error() {
  printf 'augdistill: error: %s\n' "$1" >&2
  exit 2
}

dry_run=""
case ${1:-} in
  --help)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
    exit 0
    ;;
  --dry_run)
    dry_run=1
    shift
    ;;
esac
case ${1:-} in
  finetune | distill | pretrain) ;;
  *)
    usage_error "finetune, distill or pretrain must come first, got '${1:-}'"
    ;;
esac
case " $* " in
  *" --distributed "* | *" --coordinator"*)
    usage_error "how the processes find each other is added here; leave it out"
    ;;
esac

# Another process ends about 30 s after one was lost. A task that hangs longer
# after the first has ended is ended by srun.
processes=(srun --kill-on-bad-exit=0 --wait=300 augdistill "$@" --distributed)

if [ -n "$dry_run" ]; then
  launch=$(dirname "${BASH_SOURCE[0]}")
  # shellcheck source=launch/steps.sh
  source "$launch/steps.sh"
  printf '%s\n\n# In the job:\n%s\n' "$(quoted sbatch "$0" "$@")" \
    "$(quoted "${processes[@]}")"
  printf '# and after exit code 75, 134, 137 or 143:\n%s\n' \
    "scontrol requeue \"\$SLURM_JOB_ID\""
  exit 0
fi

if [ -z "${SLURM_JOB_ID:-}" ]; then
  usage_error "this is no job of SLURM; submit it: sbatch $0 $*"
fi
PATH=${SLURM_SUBMIT_DIR:-.}/.venv/bin:$PATH
for program in srun scontrol augdistill; do
  command -v "$program" >/dev/null ||
    usage_error "there is no program $program on $(hostname)"
done

code=0
"${processes[@]}" || code=$?
case $code in
  75 | 134 | 137 | 143)
    if [ "${SLURM_RESTART_COUNT:-0}" -lt "${MAX_REQUEUES:-20}" ]; then
      echo "augdistill: stopped or lost ($code); back into the queue" >&2
      scontrol requeue "$SLURM_JOB_ID"
    fi
    ;;
esac
exit "$code"
