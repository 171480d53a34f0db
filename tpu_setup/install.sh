#!/usr/bin/env bash
# Installs gmma on every worker of the slice: copies this project, then Python 3.11 and the pinned packages.
# Usage: tpu_setup/install.sh [--dry-run] [--config FILE]
# Run it again after a change of code, while no training runs. It takes away nothing that it did not bring.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

main() {
  local setup="rm -rf $REMOTE.new && mkdir $REMOTE.new && tar -xzf gmma.tar.gz -C $REMOTE.new && bash $REMOTE.new/tpu_setup/on_worker.sh install"
  require_ready_slice
  if [[ -n $DATA_DISK ]]; then
    ((WORKERS == 1)) || fail "$EXIT_USER" "DATA_DISK can be written by one host only, and $TPU_NAME has $WORKERS: use a gs:// RUN_ROOT"
    setup+=" $DATA_DEVICE $RUN_ROOT"
  fi
  pack_project
  on_all "copying the project" copy_to_workers "$WORK_DIR/gmma.tar.gz" gmma.tar.gz
  [[ -z $SECRETS_FILE ]] || on_all "copying the secrets" copy_to_workers "$SECRETS_FILE" gmma-secrets.env
  on_all "installing" on_workers all "$setup"
  on_all "counting the chips" on_workers all "$ON_WORKER check"
  say "gmma is installed on $WORKERS workers"
}

pack_project() {
  perform tar -C "$PROJECT_DIR" "${UNSHIPPED[@]}" -czf "$WORK_DIR/gmma.tar.gz" "${SHIPPED[@]}"
}

# on_all WORDS COMMAND...
on_all() {
  local words=$1
  shift
  say "$words, on $WORKERS workers"
  "$@" && return
  fail_if_unreachable
  fail 1 "$words failed on a worker: see the messages above"
}

parse_options "$@"
main
