# shellcheck shell=bash
# shellcheck disable=SC2034 # the verbs use the names that this file only sets
# What every verb shares: the configuration, --dry-run, the state of the slice, the workers.

# What `gmma train` exits with: once SIGTERM has made it write a checkpoint, and once another host is lost; the second of
# these is JAX's own abort where it notices first. gmma/hardware/preemption.py names the first two.
readonly CODE_PREEMPTED=75 CODE_HOST_LOST=76 CODE_ABORTED=134

readonly EXIT_USER=2        # a mistake in the configuration or on the command line, as in gmma, or a request that Google denies
readonly EXIT_QUOTA=3       # quota refused the request; nothing is left behind
readonly EXIT_UNREACHABLE=4 # a worker does not answer; its number is printed
readonly EXIT_NO_SLICE=5    # not granted within WAIT_MINUTES; nothing is left behind
readonly EXIT_LOST=6        # the slice was granted and lost again before it could be used

readonly OWN_BYTES=$((32 << 20)) # of a user's own code, packed; more is data
readonly LIST_TRIES=3 DELETE_TRIES=10
readonly REMOTE=gmma # the project's folder in the home directory of a worker
# What of the project goes there, named one by one: what else lies in it (runs, data, secrets) stays at home.
readonly SHIPPED=(pyproject.toml README.md LICENSE gmma experiments tpu_setup)
readonly UNSHIPPED=(--exclude=__pycache__ --exclude=config.env --exclude='*secrets*')
readonly ON_WORKER="bash $REMOTE/tpu_setup/on_worker.sh"

SETUP_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PROJECT_DIR=$(dirname "$SETUP_DIR")
WORK_DIR=$(mktemp -d)
trap 'rm -rf "$WORK_DIR"' EXIT
exec 3>&1 # so that --dry-run still reaches the terminal from inside $(...)

say() { printf 'tpu_setup: %s\n' "$*" >&2; }

# fail CODE MESSAGE
fail() {
  say "$2"
  exit "$1"
}

((BASH_VERSINFO[0] >= 5)) || fail "$EXIT_USER" "bash $BASH_VERSION is too old; bash 5 or newer is needed"

# ---- command line and configuration ------------------------------------------------------------

DRY_RUN=no
CONFIG_FILE=$SETUP_DIR/config.env
ARGS=() # what is left for the verb itself

# The usage is the comment at the top of the verb.
print_usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

parse_options() {
  while (($#)); do
    case $1 in
      --dry-run) DRY_RUN=yes ;;
      --config)
        CONFIG_FILE=${2:-}
        shift $(($# > 1 ? 1 : 0))
        ;;
      -h | --help)
        print_usage
        exit 0
        ;;
      --)
        shift
        ARGS+=("$@")
        break
        ;;
      *) ARGS+=("$1") ;;
    esac
    shift
  done
  load_config
}

load_config() {
  OWN_CODE=() CHECK_PLACES=yes # a configuration of an earlier version has none
  [[ -f $CONFIG_FILE ]] ||
    fail "$EXIT_USER" "no configuration at '$CONFIG_FILE': copy $SETUP_DIR/config.example.env there and fill it in"
  # shellcheck source=config.example.env
  source "$CONFIG_FILE"
  check_config
  RUNTIME_VERSION=${RUNTIME_VERSION:-$(runtime_version "$ACCELERATOR_TYPE")}
  LOCATION=("--project=$TPU_PROJECT" "--zone=$TPU_ZONE")
}

check_config() {
  local name
  for name in TPU_NAME TPU_PROJECT TPU_ZONE ACCELERATOR_TYPE RUN_ROOT SPOT; do
    [[ -n ${!name:-} ]] || fail "$EXIT_USER" "$name is empty in $CONFIG_FILE: give it a value"
  done
  for name in MAX_RESTARTS WAIT_MINUTES; do
    [[ ${!name:-} =~ ^[0-9]+$ ]] || fail "$EXIT_USER" "$name is '${!name:-}' in $CONFIG_FILE: give a whole number"
  done
  [[ $TPU_NAME =~ ^[a-z][a-z0-9-]*$ ]] ||
    fail "$EXIT_USER" "TPU_NAME is '$TPU_NAME': use lower-case letters, digits and '-', a letter first"
  for name in SPOT CHECK_PLACES; do
    [[ ${!name} == yes || ${!name} == no ]] || fail "$EXIT_USER" "$name is '${!name}': write yes or no"
  done
  [[ $RUN_ROOT =~ ^(gs://|/)[A-Za-z0-9._/-]+$ ]] ||
    fail "$EXIT_USER" "RUN_ROOT is '$RUN_ROOT': give gs://BUCKET/FOLDER, or the absolute path of a disk"
  [[ $SPOT == no || $RUN_ROOT == gs://* || -n ${DATA_DISK:-} ]] ||
    fail "$EXIT_USER" "RUN_ROOT is $RUN_ROOT on the boot disk, which a preempted spot slice takes with it: give gs://BUCKET/FOLDER, or a DATA_DISK"
  check_secrets_file
}

# The file travels by scp and is read on the worker: no secret is ever an argument of a command.
check_secrets_file() {
  [[ -z ${SECRETS_FILE:-} ]] && return
  [[ -f $SECRETS_FILE ]] || fail "$EXIT_USER" "SECRETS_FILE $SECRETS_FILE does not exist"
  [[ -z $(find "$SECRETS_FILE" -perm /077) ]] ||
    fail "$EXIT_USER" "SECRETS_FILE $SECRETS_FILE can be read by others: run chmod 600 $SECRETS_FILE"
}

# The images that Google names for JAX: https://cloud.google.com/tpu/docs/runtimes
runtime_version() {
  case $1 in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    *) fail "$EXIT_USER" "no runtime version is known for ACCELERATOR_TYPE $1: set RUNTIME_VERSION in $CONFIG_FILE" ;;
  esac
}

# ---- commands ----------------------------------------------------------------------------------

show() {
  printf '+' >&3
  printf ' %q' "$@" >&3
  printf '\n' >&3
}

# Runs a command; in a dry run prints it instead.
perform() {
  if [[ $DRY_RUN == yes ]]; then show "$@"; else "$@"; fi
}

# ask ANSWER COMMAND...: the command's output; a dry run prints the command and takes ANSWER for its output.
ask() {
  local answer=$1
  shift
  if [[ $DRY_RUN == yes ]]; then
    show "$@"
    printf '%s\n' "$answer"
  else
    "$@"
  fi
}

pause() { [[ $DRY_RUN == yes ]] || sleep "$POLL_SECONDS"; }

# ---- the slice ---------------------------------------------------------------------------------

# read_slice ASSUMED: sets SLICE (absent, waiting, ready, dead), SLICE_WORDS (Google's own) and WORKERS.
# It lists rather than describes: an empty list is an answer, a failed describe might be anything.
read_slice() {
  local request
  WORKERS=0
  request=$(ask "${1/ready/ACTIVE}" gcloud compute tpus queued-resources list "${LOCATION[@]}" \
    --filter="name~/$TPU_NAME\$" --format='value(state.state)') || return
  [[ $request == absent ]] && request=
  SLICE_WORDS=${request:-absent}
  case $request in
    '') SLICE=absent ;;
    ACTIVE) read_node || return ;;
    CREATING | ACCEPTED | WAITING_FOR_RESOURCES | PROVISIONING) SLICE=waiting ;;
    *) SLICE=dead ;; # FAILED, SUSPENDING, SUSPENDED (preempted), DELETING
  esac
}

# A preempted node can be seen before the request that it came from leaves ACTIVE.
read_node() {
  local node state
  node=$(ask $'READY\t1' gcloud compute tpus tpu-vm list "${LOCATION[@]}" \
    --filter="name~/$TPU_NAME\$" --format='value(state,networkEndpoints.len())') || return
  read -r state WORKERS <<<"$node"
  SLICE_WORDS="ACTIVE, node ${state:-absent}"
  case $state in
    READY) SLICE=ready ;;
    CREATING | STARTING | RESTARTING | REIMAGING | REPAIRING) SLICE=waiting ;;
    *) SLICE=dead ;; # PREEMPTED, TERMINATED, STOPPED, absent, ...
  esac
}

# A run of days asks often: one failed answer must not end it.
must_read_slice() {
  local try
  for ((try = 1; try <= LIST_TRIES; try++)); do
    read_slice "$1" && return
    ((try == LIST_TRIES)) || sleep "$RETRY_SECONDS"
  done
  fail 1 "gcloud could not list the slices of $TPU_PROJECT in $TPU_ZONE: see its message above"
}

# Deletes the request with its VMs, and looks that it is gone: what stays is paid for and counts against the quota.
delete_slice() {
  local try
  for ((try = 0; try < DELETE_TRIES; try++)); do
    perform gcloud compute tpus queued-resources delete "$TPU_NAME" "${LOCATION[@]}" --force --quiet || true
    must_read_slice absent
    [[ $SLICE == absent ]] && return
    pause
  done
  fail 1 "$TPU_NAME is still there ($SLICE_WORDS) after $DELETE_TRIES tries, AND MAY STILL BE CHARGED: run delete.sh again, or delete it in the console"
}

# ---- the workers -------------------------------------------------------------------------------

# on_workers all|NUMBER COMMAND
# Not with --output-directory: gcloud 528.0.0 then writes to a folder called "None".
on_workers() {
  perform gcloud compute tpus tpu-vm ssh "$TPU_NAME" "${LOCATION[@]}" "${SSH_FLAGS[@]}" --quiet \
    --ssh-flag=-oConnectTimeout=20 --ssh-flag=-oServerAliveInterval=30 --worker="$1" --command="$2"
}

# copy_to_workers FILE NAME-IN-THE-HOME-DIRECTORY
copy_to_workers() {
  perform gcloud compute tpus tpu-vm scp "$1" "$TPU_NAME:$2" "${LOCATION[@]}" "${SSH_FLAGS[@]}" --quiet \
    --scp-flag=-oConnectTimeout=20 --scp-flag=-p --worker=all
}

# After a command on all workers failed: asks them one by one, and names those that do not answer.
fail_if_unreachable() {
  local worker silent=()
  for ((worker = 0; worker < WORKERS; worker++)); do
    on_workers "$worker" true >"$WORK_DIR/probe" 2>&1 || silent+=("$worker")
  done
  ((${#silent[@]} == 0)) || fail "$EXIT_UNREACHABLE" \
    "worker ${silent[*]} of $WORKERS (counted from 0) cannot be reached by ssh. $(tail -n 1 "$WORK_DIR/probe")
The slice is still there and is charged: try again, or replace it with delete.sh and create.sh"
}

require_ready_slice() {
  must_read_slice ready
  [[ $SLICE == ready ]] || fail "$EXIT_USER" "the slice $TPU_NAME is not up ($SLICE_WORDS): run create.sh"
}

require_worker() {
  (($1 < WORKERS)) || fail "$EXIT_USER" "there is no worker $1: $TPU_NAME has $WORKERS, counted from 0"
}

# ---- runs --------------------------------------------------------------------------------------

# find_experiment EXPERIMENT: a file of the project by its path there, or any file by its path from here.
# Sets EXPERIMENT_FILE, where it is, and EXPERIMENT_THERE, its path from the project's folder on a worker.
find_experiment() {
  local inside
  EXPERIMENT_FILE=$PROJECT_DIR/$1
  [[ -f $EXPERIMENT_FILE ]] || EXPERIMENT_FILE=$1
  [[ -f $EXPERIMENT_FILE && $EXPERIMENT_FILE == *.py ]] || fail "$EXIT_USER" "there is no experiment '$1', \
neither in $PROJECT_DIR nor from here: give experiments/NAME.py, or the path of a file of your own"
  EXPERIMENT_FILE=$(realpath "$EXPERIMENT_FILE")
  inside=$(realpath --relative-to="$PROJECT_DIR" "$EXPERIMENT_FILE")
  if [[ " ${SHIPPED[*]} " == *" ${inside%%/*} "* ]]; then
    EXPERIMENT_THERE=$inside
  else
    EXPERIMENT_THERE=../$REMOTE-own/$(basename "$EXPERIMENT_FILE")
  fi
}

OWN_PACK= # the archive, where there is one

# Packs what is the user's own and install.sh does not bring, if there is any: the experiment with the modules and the
# packages that lie beside it, and what OWN_CODE names. All of it stands side by side on the worker.
pack_own() {
  local home path sent=()
  if [[ $EXPERIMENT_THERE == ../* ]]; then
    home=$(dirname "$EXPERIMENT_FILE")
    for path in "$home"/*.py "$home"/*/__init__.py; do
      path=${path%/__init__.py}
      [[ ! -e $path || $path == "$PROJECT_DIR/gmma" ]] || sent+=(-C "$home" "$(basename "$path")")
    done
  fi
  for path in "${OWN_CODE[@]}"; do
    [[ -e $path ]] || fail "$EXIT_USER" "OWN_CODE names '$path', which does not exist"
    sent+=(-C "$(realpath "$(dirname "$path")")" "$(basename "$path")")
  done
  ((${#sent[@]})) || return 0
  OWN_PACK=$WORK_DIR/own.tar.gz
  perform tar "${UNSHIPPED[@]}" --exclude='.[!.]*' -czhf "$OWN_PACK" "${sent[@]}"
  [[ $DRY_RUN == yes ]] || (($(stat --format=%s "$OWN_PACK") <= OWN_BYTES)) ||
    fail "$EXIT_USER" "your own code takes more than $((OWN_BYTES >> 20)) MiB: models and records belong in a bucket"
}

# ---- places in buckets -------------------------------------------------------------------------

# check_places [FIELDS]: every gs:// path that the run will touch, before a slice is paid for: RUN_ROOT's bucket and, where
# there is an experiment, whatever that reads. Asked as the account of this machine, not as the slice's.
check_places() {
  local place missing=()
  [[ $CHECK_PLACES == yes ]] || return 0
  if [[ $RUN_ROOT == gs://* ]]; then
    place=${RUN_ROOT#gs://}
    is_there gcloud storage buckets describe "gs://${place%%/*}" --format='value(name)' || missing+=("the bucket of RUN_ROOT, $RUN_ROOT")
  fi
  if [[ -n ${EXPERIMENT_FILE:-} ]]; then
    places "$@" >"$WORK_DIR/places"
    while IFS= read -r place <&4; do
      case $place in
        gs://*) is_there gcloud storage ls "$place" || missing+=("$place") ;;
        *) say "the workers will read $place; nobody looked for it" ;;
      esac
    done 4<"$WORK_DIR/places"
  fi
  ((${#missing[@]} == 0)) || fail "$EXIT_USER" "not to be found: $(printf '%s; ' "${missing[@]}")nothing was created. $(tail -n 1 "$WORK_DIR/refused")
Copy what is missing there, or correct the path; CHECK_PLACES=no where this account may not look and the slice's may"
}

# One refusal might be the network's.
is_there() {
  local try
  for ((try = 1; try <= LIST_TRIES; try++)); do
    perform "$@" >"$WORK_DIR/answer" 2>&1 && return
    ((try == LIST_TRIES)) || sleep "$RETRY_SECONDS"
  done
  mv "$WORK_DIR/answer" "$WORK_DIR/refused"
  return 1
}

# places [FIELDS]: what the experiment reads elsewhere, a line each. gmma says it, where it is installed here; else it is
# what the command line and the experiment's file spell out.
places() {
  local gmma=$PROJECT_DIR/.venv/bin/gmma path own=() fields=()
  [[ -x $gmma ]] || gmma=$(command -v gmma) || gmma=
  if [[ -z $gmma ]]; then
    { printf '%s\n' "$@" && grep -oE "[\"']gs://[^\"'{}]+[\"']" "$EXPERIMENT_FILE"; } | grep -oE "gs://[^\"']+" | sort -u || true
    return
  fi
  for path in "${OWN_CODE[@]}"; do own+=("$(dirname "$(realpath "$path")")"); done
  while (($#)); do # all but what is `gmma train`'s alone
    case $1 in
      --profile) shift $(($# > 1 ? 1 : 0)) ;;
      --resume | --repeat-sft | --profile=*) ;;
      *) fields+=("$1") ;;
    esac
    shift
  done
  (
    cd "$PROJECT_DIR"
    IFS=:
    PYTHONPATH="${own[*]}${PYTHONPATH:+:$PYTHONPATH}" "$gmma" fetch "$EXPERIMENT_FILE" --places "${fields[@]}"
  ) || fail "$EXIT_USER" "gmma does not take this line (see above); nothing was created"
}

# run_dir EXPERIMENT: where the run's checkpoints, metrics and samples go; experiments/NAME.py writes to RUN_ROOT/NAME.
run_dir() { printf '%s/%s' "${RUN_ROOT%/}" "${RUN_NAME:-$(basename "$1" .py)}"; }
