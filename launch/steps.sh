# shellcheck shell=bash
# Sourced by the scripts here that start runs of several processes: saying what
# is done, doing it or only printing it, and what exit codes come to.
#
# The caller has set -euo pipefail. For bash 3.2 and later.

DRY_RUN=""
SAY_TO=2 # The file descriptor.

say() {
  printf 'augdistill: %s\n' "$1" >&"$SAY_TO"
}

# Ends the script with exit code 2: a person can mend it.
usage_error() {
  say "error: $1"
  exit 2
}

# Prints the script's header.
show_help() {
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
}

# Refuses $2, the value of the flag $1, unless it is a whole number.
check_number() {
  case $2 in
    "" | *[!0-9]*) usage_error "$1 must be a whole number, got '$2'" ;;
  esac
}

# Prints words as a shell reads them, so that they can be pasted.
quoted() {
  local word line="" quote="'\\''"
  for word in "$@"; do
    case $word in
      "" | *[!A-Za-z0-9_./:=@%+,-]*) word="'${word//\'/$quote}'" ;;
    esac
    line="$line $word"
  done
  printf '%s' "${line# }"
}

# Runs a command, or only prints it.
run() {
  if [ -n "$DRY_RUN" ]; then
    quoted "$@"
    echo
  else
    "$@"
  fi
}

# Prints what the exit codes of the processes of one run come to: 2 if the
# command is wrong for any; else 75 if any was stopped or lost (interrupted,
# aborted since another was lost, killed, terminated): a rerun goes on from the
# last checkpoint; else 1 if any failed.
verdict() {
  local code result=0
  for code in "$@"; do
    case $code in
      0) ;;
      2)
        result=2
        break
        ;;
      75 | 130 | 134 | 137 | 143) result=75 ;;
      *) [ "$result" = 75 ] || result=1 ;;
    esac
  done
  echo "$result"
}

# Says how a process ended, by its exit code.
ended_by() {
  local signal
  if [ "$1" -gt 128 ] && signal=$(kill -l "$1" 2>/dev/null); then
    echo "was ended by SIG$signal (exit code $1)"
  else
    echo "ended with exit code $1"
  fi
}
