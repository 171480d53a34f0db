#!/usr/bin/env bash
# Shows the trainer's log on one worker.
# Usage: tpu_setup/logs.sh [--dry-run] [--config FILE] [--worker N] [--lines N] [--follow]

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

main() {
  local worker=0 lines=100 follow=''
  while (($#)); do
    case $1 in
      --worker) worker=${2:-} ;;
      --lines) lines=${2:-} ;;
      --follow) follow=' -F' ;;
      *) fail "$EXIT_USER" "unknown option '$1': see logs.sh --help" ;;
    esac
    [[ $1 == --follow || $# == 1 ]] || shift
    shift
  done
  [[ $worker =~ ^[0-9]+$ && $lines =~ ^[0-9]+$ ]] || fail "$EXIT_USER" "--worker and --lines take a number"
  require_ready_slice
  require_worker "$worker"
  on_workers "$worker" "tail -n $lines$follow gmma-run/train.log"
}

parse_options "$@"
main "${ARGS[@]}"
