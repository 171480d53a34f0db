#!/usr/bin/env bash
# Runs a command on every worker, or on one: in gmma's folder and environment, with its secrets, as the trainer runs.
# Usage: tpu_setup/exec.sh [--dry-run] [--config FILE] [--worker N] -- COMMAND
# Each line of its output begins with the worker's number. For pipes and the like: -- bash -c 'df -h | tail -n 1'

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

main() {
  local worker=all command code=0
  if [[ ${1:-} == --worker ]]; then
    worker=${2:-}
    [[ $worker =~ ^[0-9]+$ ]] || fail "$EXIT_USER" "--worker takes a number"
    shift 2
  fi
  (($#)) || fail "$EXIT_USER" "no command: see exec.sh --help"
  require_ready_slice
  [[ $worker == all ]] || require_worker "$worker"
  printf -v command '%q ' "$@"
  on_workers "$worker" "$ON_WORKER perform ${command% }" || code=$?
  ((code == 0)) || fail_if_unreachable
  return "$code"
}

parse_options "$@"
main "${ARGS[@]}"
