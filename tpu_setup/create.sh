#!/usr/bin/env bash
# Brings the slice up: asks for it, waits until it is ready, and leaves nothing behind if it is refused.
# Usage: tpu_setup/create.sh [--dry-run] [--config FILE] [EXPERIMENT [-- FIELDS OF gmma train]]
# Looks first whether the paths in buckets are there: RUN_ROOT, and what the experiment reads, if one is given.
# Run twice, it creates nothing twice: a slice that is up or queued is kept, one that was preempted is replaced.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

main() {
  local experiment=${1:-}
  [[ -z $experiment ]] || { find_experiment "$experiment" && shift; }
  [[ ${PLACES_CHECKED:-no} == yes ]] || check_places "$@"
  must_read_slice absent
  case $SLICE in
    ready)
      say "the slice $TPU_NAME is up already ($WORKERS workers); nothing was created"
      return
      ;;
    waiting) say "$TPU_NAME is asked for already ($SLICE_WORDS); nothing was created" ;;
    dead)
      say "$TPU_NAME cannot be used any more ($SLICE_WORDS); replacing it"
      delete_slice
      request_slice
      ;;
    absent) request_slice ;;
  esac
  wait_until_ready
  say "the slice $TPU_NAME is up: $ACCELERATOR_TYPE, $WORKERS workers, charged until delete.sh"
}

request_slice() {
  local reply flags=(--node-id="$TPU_NAME" --accelerator-type="$ACCELERATOR_TYPE"
    --runtime-version="$RUNTIME_VERSION" --valid-until-duration="$((WAIT_MINUTES * 60))s")
  [[ $SPOT == yes ]] && flags+=(--spot)
  [[ -n $SERVICE_ACCOUNT ]] && flags+=(--service-account="$SERVICE_ACCOUNT"
    --scopes=https://www.googleapis.com/auth/cloud-platform)
  [[ -n $DATA_DISK ]] && flags+=(--data-disk="source=$DATA_DISK,mode=read-write")
  reply=$(perform gcloud compute tpus queued-resources create "$TPU_NAME" "${LOCATION[@]}" \
    "${flags[@]}" "${CREATE_FLAGS[@]}" --quiet 2>&1) && return
  # Someone was faster, this script in another window perhaps: theirs is not ours to delete.
  if grep -qiE 'ALREADY_EXISTS|already exists' <<<"$reply"; then
    say "$TPU_NAME is asked for already; nothing was created"
  else
    refuse "$EXIT_USER" "$reply"
  fi
}

wait_until_ready() {
  local end=$((SECONDS + WAIT_MINUTES * 60)) told=
  while must_read_slice ready; do
    case $SLICE in
      ready) return ;;
      dead | absent) refuse "$EXIT_LOST" "$(failure_reason)" ;;
    esac
    [[ $told == "$SLICE_WORDS" ]] || say "waiting for $TPU_NAME: $SLICE_WORDS"
    told=$SLICE_WORDS
    if ((SECONDS >= end)); then
      delete_slice
      fail "$EXIT_NO_SLICE" "no $ACCELERATOR_TYPE in $TPU_ZONE within $WAIT_MINUTES minutes; the request is deleted. Try another zone or size, or a larger WAIT_MINUTES"
    fi
    pause
  done
}

failure_reason() {
  gcloud compute tpus queued-resources describe "$TPU_NAME" "${LOCATION[@]}" \
    --format='value(state.state,state.failedData.error.message)' 2>&1 || true
}

# refuse CODE WORDS, the code where quota is not the reason.
# A refused request can stay in the list, where it counts against the quota: it is deleted in every case.
refuse() {
  must_read_slice absent
  [[ $SLICE == absent ]] || delete_slice
  if grep -qi quota <<<"$2"; then
    fail "$EXIT_QUOTA" "quota refused $ACCELERATOR_TYPE (spot: $SPOT) in $TPU_ZONE; nothing is left behind.
Google's words: $2
Ask for more of this quota (README, step 3), or choose another ACCELERATOR_TYPE or TPU_ZONE"
  fi
  fail "$1" "$TPU_NAME did not come up; nothing is left behind. Google's words: $2"
}

parse_options "$@"
trap 'say "stopped waiting; what is asked for stays asked for, and is charged once it is granted: delete.sh withdraws it"; exit 130' INT
main "${ARGS[@]}"
