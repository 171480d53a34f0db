#!/usr/bin/env bash
# The programs of a TPU VM that on_worker.sh calls, each under its own name; gmma lives the lives of the scenario.

set -euo pipefail

# Under its own name curl is this script.
curl_for_real() { env PATH=/usr/local/bin:/usr/bin:/bin curl --silent --fail --globoff "$1"; }

checkpoint() { mkdir -p "$1/checkpoints/$2"; }

# preempt LIFE: worker 0 announces it once for the slice, when every worker has come to that life.
preempt() {
  local other
  [[ $WORKER == 0 ]] || return 0
  # shellcheck source=/dev/null
  source "$STAND_IN/scenario"
  for ((other = 0; other < WORKERS; other++)); do
    until (($(cat "$STAND_IN/lives_$other" 2>/dev/null || echo 0) >= $1)); do sleep 0.02; done
  done
  touch "$STAND_IN/preempted"
}

# Line n of the file `lives` says what the n-th start of the trainer on this worker does.
live() {
  local count runs_dir='' name='' run_dir word previous='' life name_in_bucket
  count=$(($(cat "$STAND_IN/lives_$WORKER" 2>/dev/null || echo 0) + 1))
  printf '%s|' "$WORKER" "$@" "token=${HF_TOKEN:-}" >>"$STAND_IN/trainer_$WORKER"
  echo >>"$STAND_IN/trainer_$WORKER"
  echo "$count" >"$STAND_IN/lives_$WORKER"
  for word in "$@"; do
    [[ $previous != --runs-dir ]] || runs_dir=${word/#gs:\/\//$STAND_IN/bucket/}
    [[ $previous != --name ]] || name=$word
    previous=$word
  done
  run_dir=$runs_dir/$name
  echo "life $count of worker $WORKER"
  life=$(sed -n "${count}p" "$STAND_IN/lives") name_in_bucket=${run_dir#"$STAND_IN/bucket/my-bucket/"}
  case $life in
    preempted) checkpoint "$run_dir" "${count}0" && preempt "$count" && exit 75 ;;
    vanished) preempt "$count" && exit 134 ;;
    interrupted) checkpoint "$run_dir" "${count}0" && exit 75 ;;
    crashed) echo "ValueError: no such thing" && exit 7 ;;
    one_killed) # by the system, for want of memory say; JAX ends the first of the others, gmma the rest
      case $WORKER in
        0) exit 134 ;;
        1) echo "worker 1 asked for too much" && exit 137 ;;
        *) exit 76 ;;
      esac
      ;;
    until_watched) while (($(grep -c 'on_worker.sh status' "$STAND_IN/calls") < 2)); do sleep 0.05; done ;;
    trained) "$STAND_IN/trainer" "$@" ;;
    trained_until_*) # a checkpoint of that number; then the real trainer is preempted
      local code=0 until=${life#trained_until_}
      "$STAND_IN/trainer" "$@" &
      # shellcheck source=/dev/null
      source "$STAND_IN/scenario"
      until curl_for_real "$EMULATOR/storage/v1/b/my-bucket/o?prefix=${name_in_bucket}/checkpoints/$until/checksums" | grep -q '"name"'; do
        kill -0 $! 2>/dev/null || exit 1
        sleep 0.5
      done
      kill -TERM $!
      wait $! || code=$?
      preempt "$count"
      exit "$code"
      ;;
    sigterm)
      trap 'checkpoint "$run_dir" 10; exit 75' TERM
      echo "$$" >"$STAND_IN/trainer_pid"
      for _ in {1..100}; do sleep 0.05; done
      exit 1
      ;;
  esac
}

case $(basename "$0") in
  curl) echo "$WORKER" ;;
  python3)
    mkdir -p "$HOME/.local/bin"
    cp "$0" "$HOME/.local/bin/uv"
    ;;
  uv)
    printf '%s ' "$@" >>"$STAND_IN/uv_$WORKER"
    mkdir -p "$HOME/gmma-venv/bin"
    cp "$0" "$HOME/gmma-venv/bin/gmma"
    cp "$0" "$HOME/gmma-venv/bin/python"
    ;;
  python) echo "worker $WORKER: 4 of 16 devices" ;;
  gmma)
    [[ ! -x $STAND_IN/before ]] || "$STAND_IN/before" "$@" # what the real one does before it trains
    live "$@"
    ;;
esac
