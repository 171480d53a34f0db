#!/usr/bin/env bash
# Deletes the slice with all its VMs, and looks that it is gone. What RUN_ROOT holds is kept.
# Usage: tpu_setup/delete.sh [--dry-run] [--config FILE]

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

main() {
  must_read_slice ready
  if [[ $SLICE == absent ]]; then
    say "there is no slice $TPU_NAME in $TPU_ZONE; nothing to delete"
    return
  fi
  delete_slice
  say "the slice $TPU_NAME is deleted and no longer charged; $RUN_ROOT is kept"
}

parse_options "$@"
main
