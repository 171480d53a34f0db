#!/usr/bin/env bash
# What happens on a worker: install, check, start, train, status, perform. The verbs call it over ssh.
# Usage: on_worker.sh install [DEVICE FOLDER] | check | start RUN_DIR EXPERIMENT [FIELDS] | status | perform COMMAND

set -euo pipefail

readonly PROJECT=$HOME/gmma ENVIRONMENT=$HOME/gmma-venv STATE=$HOME/gmma-run SECRETS=$HOME/gmma-secrets.env
readonly OWN=$HOME/gmma-own # the user's own experiments and modules, last on Python's path
readonly UV=$HOME/.local/bin/uv

install() {
  mkdir -p "$STATE"
  if training; then
    echo "training runs on worker $(worker_number): its code is not replaced under it" >&2
    exit 1
  fi
  (($# == 0)) || mount_disk "$@"
  bring "$PROJECT.new" "$PROJECT"
  # Ubuntu 22.04 has Python 3.10; uv brings 3.11 without touching the system's.
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv
  "$UV" venv --quiet --allow-existing --python 3.11 "$ENVIRONMENT"
  "$UV" pip install --quiet --python "$ENVIRONMENT/bin/python" \
    --requirements "$PROJECT/tpu_setup/requirements.txt" --editable "$PROJECT"
  # At the end of the path, so that no library takes a user's module for one of Python's.
  mkdir -p "$OWN" "$ENVIRONMENT/lib/python3.11/site-packages"
  echo "$OWN" >"$ENVIRONMENT/lib/python3.11/site-packages/gmma_own.pth"
}

# bring NEW FOLDER: puts the files of NEW into FOLDER, takes out those that only the time before brought, removes NEW.
# Whatever else lies in FOLDER is not touched: records, models, files of the user's. One of theirs that stands where a new
# one goes is kept beside it, as NAME.kept.
bring() {
  local list path
  list=$STATE/brought_$(basename "$2")
  mkdir -p "$2"
  touch "$list"
  find "$1" ! -type d -printf '%P\n' | LC_ALL=C sort >"$list.new"
  LC_ALL=C comm -13 "$list" "$list.new" | while IFS= read -r path; do
    [[ ! -e $2/$path ]] || cmp --quiet "$1/$path" "$2/$path" || mv --backup=numbered "$2/$path" "$2/$path.kept"
  done
  LC_ALL=C comm -23 "$list" "$list.new" | while IFS= read -r path; do
    (take_out "$2" "$path")
  done
  # Both lists until all is there: an interruption forgets nothing that was brought.
  LC_ALL=C sort --unique "$list" "$list.new" >"$list.both" && mv "$list.both" "$list"
  find "$1" -mindepth 1 -type d -empty -delete # whose modules are gone at home
  cp -a "$1/." "$2"
  mv "$list.new" "$list"
  rm -rf "$1"
}

# take_out FOLDER PATH: a file with what Python compiled of it, then the folders that are empty without them.
take_out() {
  local folder
  folder=$(dirname "$2")
  [[ -d $1/$folder ]] || return 0
  cd "$1"
  rm -f "$2" "$folder/__pycache__/$(basename "$2" .py)".*.pyc
  [[ ! -d $folder/__pycache__ ]] || rmdir --ignore-fail-on-non-empty "$folder/__pycache__"
  [[ $folder == . ]] || rmdir --parents --ignore-fail-on-non-empty "$folder"
}

# mount_disk DEVICE FOLDER; only a disk with no file system at all is formatted.
mount_disk() {
  echo "$2/cache" >"$STATE/cache" # with the disk, what was copied from a bucket outlives the slice, too
  mountpoint --quiet "$2" && return
  [[ -b $1 ]] || { echo "there is no disk at $1: set DATA_DEVICE to what lsblk shows" >&2 && exit 1; }
  sudo blkid "$1" || sudo mkfs.ext4 -q -m 0 "$1"
  sudo mkdir -p "$2"
  sudo mount -o discard,defaults "$1" "$2"
  sudo chown "$(id -u):$(id -g)" "$2"
}

# Every worker has to be asked at once: the chips of a slice come up together.
check() {
  "$ENVIRONMENT/bin/python" -c '
import jax
jax.distributed.initialize()
print(f"worker {jax.process_index()}: {jax.local_device_count()} of {jax.device_count()} devices,",
      jax.devices()[0].device_kind, "jax", jax.__version__)'
}

# The lock is held as long as the trainer lives, by whoever inherited it: no stale process numbers.
training() {
  local code=0
  flock --nonblock --conflict-exit-code 9 "$STATE/lock" true 2>/dev/null || code=$?
  ((code == 9))
}

start() {
  mkdir -p "$STATE"
  [[ -x $ENVIRONMENT/bin/gmma ]] || { echo "gmma is not installed on worker $(worker_number): run install.sh" >&2 && exit 1; }
  exec 9>"$STATE/lock"
  if ! flock --timeout 1 9; then # a trainer that has just ended may hold it for a moment longer
    [[ $(cat "$STATE/run_dir") == "$1" ]] && echo "worker $(worker_number): training already" && return
    echo "worker $(worker_number) trains another run, $(cat "$STATE/run_dir"): run delete.sh or wait" >&2
    exit 1
  fi
  take_own
  rm -f "$STATE/exit_code"
  echo "$1" >"$STATE/run_dir"
  nohup setsid bash "$PROJECT/tpu_setup/on_worker.sh" train "$@" </dev/null >>"$STATE/train.log" 2>&1 &
}

# Not before the lock is held: no code is replaced under a trainer that runs.
take_own() {
  [[ -f $OWN.tar.gz ]] || return 0
  rm -rf "$OWN.new" && mkdir "$OWN.new"
  tar -xzf "$OWN.tar.gz" -C "$OWN.new"
  bring "$OWN.new" "$OWN"
  rm "$OWN.tar.gz"
}

# What the trainer and `perform` have in common: the folder, the programs, the secrets, the place of copies from buckets.
enter() {
  cd "$PROJECT"
  export PATH=$ENVIRONMENT/bin:$PATH
  if [[ -f $STATE/cache ]]; then
    GMMA_CACHE=$(cat "$STATE/cache")
    export GMMA_CACHE
  fi
  if [[ -f $SECRETS ]]; then
    set -a
    # shellcheck source=/dev/null
    source "$SECRETS"
    set +a
  fi
}

# perform COMMAND: each line that it prints says which worker printed it.
perform() {
  local words
  words="worker $(worker_number): "
  enter
  "$@" </dev/null 2>&1 | sed --unbuffered "s/^/$words/"
}

# train RUN_DIR EXPERIMENT [FIELDS]
train() {
  local run_dir=$1 code=0
  shift
  trap : TERM # on shutdown, live long enough to note what the trainer exits with
  enter
  # JAX asks the VM for the slice's other workers, of which there may be none.
  "$ENVIRONMENT/bin/gmma" train "$@" --runs-dir "$(dirname "$run_dir")" --name "$(basename "$run_dir")" \
    --hosts.join slice 9>&- || code=$?
  echo "$code" >"$STATE/exit_code.new"
  mv "$STATE/exit_code.new" "$STATE/exit_code"
}

status() {
  local word=gone # neither running nor finished: the VM was restarted
  # In this order: a trainer notes its code before it lets go of the lock.
  if training; then
    word=running
  elif [[ -f $STATE/exit_code ]]; then
    word="exited $(cat "$STATE/exit_code")"
  fi
  echo "gmma-worker $(worker_number) $word"
}

worker_number() {
  curl --silent --fail --max-time 10 --header 'Metadata-Flavor: Google' \
    http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number || echo '?'
}

case ${1:-} in
  install | check | start | train | status | perform) "$@" ;;
  *) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
