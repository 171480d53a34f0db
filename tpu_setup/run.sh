#!/usr/bin/env bash
# Trains on the slice, and brings the run back after each preemption until it is finished.
# Usage: tpu_setup/run.sh [--dry-run] [--config FILE] [--delete-after] EXPERIMENT [-- FIELDS OF gmma train]
# EXPERIMENT is a file of this project, or one of yours anywhere, which is sent with the modules beside it.
# The trainer runs detached: this script may be stopped, and started again, at any moment.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Looks in a row without an answer, before it is called an error. ssh itself tries for minutes each time.
readonly WORKER_POLLS=3 GCLOUD_POLLS=60

main() {
  local tries code
  for ((tries = 0; tries <= MAX_RESTARTS; tries++)); do
    code=0
    { bring_up && start_trainer && watch_trainer; } || code=$?
    ((code == CODE_PREEMPTED)) || break
    say "interrupted; restart $((tries + 1)) of at most $MAX_RESTARTS"
  done
  ((code != CODE_PREEMPTED)) || fail "$CODE_PREEMPTED" \
    "still interrupted after $MAX_RESTARTS restarts: run.sh goes on from the last checkpoint, delete.sh stops the charges"
  ((code == 0)) || exit "$code"
  say "finished: $RUN_DIR"
  [[ $DELETE_AFTER == no ]] || verb delete
}

verb() {
  local flags=(--config "$CONFIG_FILE")
  [[ $DRY_RUN == no ]] || flags+=(--dry-run)
  bash "$SETUP_DIR/$1.sh" "${flags[@]}"
}

# Leaves a healthy slice alone; creates and installs anew where it is absent or was lost.
bring_up() {
  local code=0
  must_read_slice ready
  [[ $SLICE != ready ]] || return 0
  { verb create && { verb install || verb install; }; } || code=$? # a package index may have hiccups
  case $code in
    0) must_read_slice ready ;;
    "$EXIT_LOST") return "$CODE_PREEMPTED" ;;
    "$EXIT_USER" | "$EXIT_QUOTA" | "$EXIT_NO_SLICE") return "$code" ;;
    *) preempted_or "$code" ;;
  esac
}

# preempted_or CODE: the code stands only if the slice does.
preempted_or() {
  must_read_slice ready
  [[ $SLICE == ready ]] && return "$1"
  return "$CODE_PREEMPTED"
}

# Always with --resume: it starts anew where there is no checkpoint yet, and without it a run that was preempted
# before its first checkpoint would be refused, as one that must not be written over.
start_trainer() {
  local command
  printf -v command '%q ' "$RUN_DIR" "$EXPERIMENT_THERE" --resume "${FIELDS[@]}"
  say "starting $EXPERIMENT, or going on with it, in $RUN_DIR"
  { send_own && on_workers all "$ON_WORKER start ${command% }"; } && return
  must_read_slice ready
  [[ $SLICE == ready ]] || return "$CODE_PREEMPTED"
  fail_if_unreachable
  fail 1 "the trainer did not start on a worker: see the messages above"
}

# Packed once, when this script starts: a change at home reaches no run that is under way.
send_own() {
  [[ -z $OWN_PACK ]] || copy_to_workers "$OWN_PACK" gmma-own.tar.gz
}

# 0 when finished, CODE_PREEMPTED when it can go on from a checkpoint, else what is wrong.
watch_trainer() {
  local verdict told='' missed=0
  while pause; do
    verdict=$(look) || return
    [[ $verdict == "$told" ]] || say "$verdict"
    told=$verdict
    [[ $verdict == *silent ]] || missed=0
    case $verdict in
      finished) return 0 ;;
      interrupted | lost*) return "$CODE_PREEMPTED" ;;
      failed*) report_failure "$verdict" || return ;;
      'gcloud silent') ((++missed < GCLOUD_POLLS)) || fail 1 "gcloud has not answered $missed times in a row" ;;
      'worker silent') ((++missed < WORKER_POLLS)) || report_silence || return ;;
    esac
  done
}

# One look at slice and workers, in one word.
look() {
  if ! read_slice ready; then
    echo 'gcloud silent'
  elif [[ $SLICE != ready ]]; then
    echo "lost: $SLICE_WORDS"
  else
    ask_workers | judge
  fi
}

ask_workers() {
  if [[ $DRY_RUN == yes ]]; then
    on_workers all "$ON_WORKER status"
    echo 'gmma-worker 0 exited 0'
  else
    on_workers all "$ON_WORKER status" 2>&1 || true
  fi
}

# The workers' lines "gmma-worker NUMBER running|gone|exited CODE" in one word.
# One preempted worker takes its peers down with other codes: its own outranks theirs. So does the code of one that failed.
judge() {
  local mark worker word code answers=0 verdict=finished
  while read -r mark worker word code; do
    [[ $mark == gmma-worker ]] || continue
    ((++answers))
    case "$verdict $word ${code:-}" in
      *" running "*) verdict=running ;;
      running*) ;;
      *" gone "* | *" exited $CODE_PREEMPTED") verdict=interrupted ;;
      interrupted* | *" exited 0") ;;
      finished* | failed*" $CODE_HOST_LOST exited "* | failed*" $CODE_ABORTED exited "*) verdict="failed $worker $code" ;;
    esac
  done
  ((answers == WORKERS)) || verdict='worker silent'
  echo "$verdict"
}

report_silence() {
  must_read_slice ready
  [[ $SLICE == ready ]] || return "$CODE_PREEMPTED"
  fail_if_unreachable
  fail 1 "the workers answer ssh, but on_worker.sh does not say what the trainer does: look with logs.sh"
}

# A failure on a slice that is about to vanish is a preemption: look once more before believing it.
report_failure() {
  local worker code
  read -r _ worker code <<<"$1"
  pause
  preempted_or "$code" || code=$?
  ((code == CODE_PREEMPTED)) && return "$code"
  say "gmma train exited with $code on worker $worker; the end of its log:"
  on_workers "$worker" "tail -n 30 gmma-run/train.log" >&2 || true
  say "the slice $TPU_NAME is still up and charged: correct and run again, or delete.sh"
  return "$code"
}

parse_command() {
  local word rest=()
  DELETE_AFTER=no
  for word in "$@"; do
    if [[ $word == --delete-after ]]; then DELETE_AFTER=yes; else rest+=("$word"); fi
  done
  EXPERIMENT=${rest[0]:-}
  FIELDS=("${rest[@]:1}")
  find_experiment "$EXPERIMENT"
  RUN_DIR=$(run_dir "$EXPERIMENT")
}

parse_options "$@"
parse_command "${ARGS[@]}"
pack_own
check_places "${FIELDS[@]}"
export PLACES_CHECKED=yes # a run of days asks once: one answer that fails later must not end it
trap 'say "stopped watching; what runs goes on, and is charged: run.sh watches again, delete.sh ends it"; exit 130' INT
main
