#!/usr/bin/env bash
# A stand-in for gcloud: writes down each command in $STAND_IN/calls, and plays Google Cloud as $STAND_IN/scenario says.
# The queued resource is the file `request` (name, then states to come), a worker's home is workers/N, gs:// is bucket/.
# ssh runs its command for real in a worker's home, worker_bin before the system's programs; scp copies.

set -euo pipefail
cd "$STAND_IN"
# shellcheck source=/dev/null
source ./scenario # WORKERS, UNREACHABLE, STATES, NODE, REFUSAL, BUCKETS, EMULATOR
readonly QUOTA_WORDS="Quota limit 'TPUV5sPreemptibleLitepodPerProjectPerRegionForTPUAPI' has been exceeded. Limit: 0 in region us-west4."

refuse() {
  echo "ERROR: (gcloud) $1" >&2
  exit 1
}

# flag NAME: what follows NAME= in the command.
flag() {
  local word
  for word in "${command[@]}"; do
    [[ $word != "$1="* ]] || echo "${word#*=}"
  done
}

create() {
  [[ ! -e request ]] || refuse 'ALREADY_EXISTS: Resource already exists'
  [[ $REFUSAL != 'quota at once' ]] || refuse "RESOURCE_EXHAUSTED: $QUOTA_WORDS"
  [[ $REFUSAL != 'permission' ]] || refuse "PERMISSION_DENIED: Permission 'tpu.nodes.create' denied"
  [[ -z $REFUSAL ]] || STATES='WAITING_FOR_RESOURCES FAILED'
  echo "$1 $STATES" >request
  [[ $REFUSAL != 'quota but listed' ]] || refuse "RESOURCE_EXHAUSTED: $QUOTA_WORDS"
}

# Each look moves the request on, until its last state.
list() {
  local name state later failures
  failures=$(cat list_failures 2>/dev/null || echo 0)
  if ((failures > 0)); then
    echo $((failures - 1)) >list_failures
    refuse 'Could not reach tpu.googleapis.com'
  fi
  [[ -e request ]] || return 0
  read -r name state later <request
  [[ $(flag --filter) == "name~/$name\$" ]] || return 0
  if [[ -e preempted ]]; then
    rm preempted
    state=SUSPENDED later=
  fi
  echo "$state"
  echo "$name ${later:-$state}" >request
}

describe() { if [[ -n $REFUSAL ]]; then printf 'FAILED\t%s\n' "$QUOTA_WORDS"; else cut -d' ' -f2 request; fi; }

delete() {
  [[ -e request && $(cut -d' ' -f1 request) == "$1" ]] || refuse NOT_FOUND
  [[ " ${command[*]} " == *' --force '* ]] || refuse 'FAILED_PRECONDITION: the queued resource has nodes'
  rm -rf request workers
}

list_nodes() { [[ ! -e request || $(cut -d' ' -f2- request) != ACTIVE ]] || printf '%s\t%s\n' "$NODE" "$WORKERS"; }

# As gcloud does: every worker is tried, and the first code that is not 0 is the command's.
on_each() {
  local worker code first=0 chosen
  chosen=$(flag --worker)
  [[ $chosen != all ]] || chosen=$(seq 0 $((WORKERS - 1)))
  for worker in $chosen; do
    code=0
    mkdir -p "workers/$worker"
    if [[ " $UNREACHABLE " == *" $worker "* ]]; then
      echo 'ssh: connect to host 10.0.0.7 port 22: Connection timed out' >&2
      code=255
    else
      "$@" || code=$?
    fi
    ((first)) || first=$code
  done
  return "$first"
}

ssh_one() {
  (cd "workers/$worker" && env -i HOME="$PWD" PATH="$STAND_IN/worker_bin:/usr/local/bin:/usr/bin:/bin" \
    STAND_IN="$STAND_IN" WORKER="$worker" bash -c "$(flag --command)")
}

scp_one() {
  local keep_mode=()
  [[ " ${command[*]} " != *' --scp-flag=-p '* ]] || keep_mode=(--preserve=mode)
  cp "${keep_mode[@]}" "$1" "workers/$worker/${2#*:}"
}

scp() {
  if [[ $1 == *:* ]]; then cp -r "${1#*:}" "$2"; else on_each scp_one "$@"; fi
}

storage_rsync() {
  local skip=()
  [[ -z $(flag --exclude) ]] || skip=(--exclude=./checkpoints)
  tar -C "bucket/${1#gs://}" "${skip[@]}" -c . | tar -C "$2" -x
}

# Of the emulator's where there is one.
storage_ls() {
  local bucket=${1#gs://} key
  key=${bucket#*/} bucket=${bucket%%/*}
  if [[ -n ${EMULATOR:-} ]]; then
    curl --silent --fail "$EMULATOR/storage/v1/b/$bucket/o?prefix=$key" | grep -q '"name"'
  else
    [[ -e bucket/$bucket/$key ]]
  fi || refuse 'One or more URLs matched no objects.'
}

command=("$@")
(IFS=$'\x1f' && echo "$*") >>calls
operands=()
for word in "$@"; do
  [[ $word == -* ]] || operands+=("$word")
done
case ${operands[*]:0:4} in
  'compute tpus queued-resources create') create "${operands[4]}" ;;
  'compute tpus queued-resources list') list ;;
  'compute tpus queued-resources describe') describe ;;
  'compute tpus queued-resources delete') delete "${operands[4]}" ;;
  'compute tpus tpu-vm list') list_nodes ;;
  'compute tpus tpu-vm ssh') on_each ssh_one ;;
  'compute tpus tpu-vm scp') scp "${operands[@]:4}" ;;
  'storage rsync '*) storage_rsync "${operands[@]:2}" ;;
  'storage buckets describe '*) [[ " $BUCKETS " == *" ${operands[3]#gs://} "* ]] || refuse "${operands[3]} not found: 404." ;;
  'storage ls '*) storage_ls "${operands[2]}" ;;
  *) refuse "no such command: $*" ;;
esac
