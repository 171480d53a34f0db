#!/usr/bin/env bash
# Copies a run to this machine: config, metrics, samples, evaluations, and the workers' logs while the slice is up.
# Usage: tpu_setup/fetch.sh [--dry-run] [--config FILE] EXPERIMENT FOLDER [--checkpoints]
# Checkpoints are left out unless asked for; a run on a DATA_DISK is copied whole, and needs the slice.
# `gmma report FOLDER` then makes one HTML page of it.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

main() {
  (($# == 2 || $# == 3)) && [[ ${3:---checkpoints} == --checkpoints ]] ||
    fail "$EXIT_USER" "give the experiment and a folder to copy to: see fetch.sh --help"
  local folder=$2 skip=(--exclude='^checkpoints/.*')
  [[ ${3:-} == --checkpoints ]] && skip=()
  perform mkdir -p "$folder/logs"
  must_read_slice ready
  if [[ $RUN_ROOT == gs://* ]]; then
    perform gcloud storage rsync --recursive "${skip[@]}" "$(run_dir "$1")" "$folder"
  else
    require_ready_slice
    perform gcloud compute tpus tpu-vm scp --recurse "$TPU_NAME:$(run_dir "$1")/." "$folder" \
      "${LOCATION[@]}" "${SSH_FLAGS[@]}" --quiet --worker=0
  fi
  [[ $SLICE != ready ]] || fetch_logs "$folder/logs"
  say "copied $(run_dir "$1") to $folder"
}

fetch_logs() {
  local worker
  for ((worker = 0; worker < WORKERS; worker++)); do
    on_workers "$worker" "cat gmma-run/train.log" >"$WORK_DIR/log" || fail_if_unreachable
    perform cp "$WORK_DIR/log" "$1/worker_$worker.log"
  done
}

parse_options "$@"
main "${ARGS[@]}"
