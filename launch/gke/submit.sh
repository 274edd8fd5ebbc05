#!/usr/bin/env bash
# Trains in a GKE cluster: fills tpu.yaml or gpu.yaml, submits it, follows what process 0 prints.
#
#   launch/gke/submit.sh COMMAND --name=NAME [options] [-- further flags of lgs_jax.main]
#
#   run      submit and follow until the training has ended
#   submit   submit; the same command again continues what was deleted
#   logs     follow what process 0 prints, through restarts, until the training has ended
#   delete   end it: SIGTERM, a save, the end
#
#   --name=NAME         of the JobSet                                  or GKE_NAME
#   --image=IMAGE       built with launch/gke/Dockerfile               or GKE_IMAGE
#   --type=TYPE         v5e-16, v6e-8, v5p-16 (by cores), h100-16 …    or GKE_TYPE
#   --workdir=gs://…    where the run lies; pods come and go           or GKE_WORKDIR
#   --config=FILE       default: configs/vae.py:realestate10k          or GKE_CONFIG
#   --spot              on nodes that may be taken away at any time
#   --context=CONTEXT   of kubectl; default: the current one
#   --namespace=NAME    default: that of the context
#   --poll=30           seconds between looks at a job that prints nothing
#   --xpk=CLUSTER       let XPK submit and delete (TPUs); needs --zone=ZONE
#   --dry-run           print the manifest (stdout) and every command (stderr), and execute none
#
# The image, the type and the workdir are wanted by run and submit. Following can be stopped with
# Ctrl-C; the training goes on. See launch/README.md.
set -euo pipefail

fail() {
  echo "submit.sh: $1" >&2
  exit 2
}

verb=${1:-}
if [[ -z "$verb" || "$verb" == -h || "$verb" == --help ]]; then
  sed -n '2,27s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
fi
shift
name=${GKE_NAME:-} image=${GKE_IMAGE:-} type=${GKE_TYPE:-} workdir=${GKE_WORKDIR:-}
config=${GKE_CONFIG:-configs/vae.py:realestate10k}
context='' namespace='' poll=30 xpk='' zone='' spot=false dry_run=false
flags=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --) shift; flags=("$@"); break ;;
    --name=* | --image=* | --type=* | --workdir=* | --config=* | --context=* | --namespace=* | \
      --poll=* | --xpk=* | --zone=*)
      option=${1%%=*}
      printf -v "${option#--}" '%s' "${1#*=}"
      ;;
    --spot) spot=true ;;
    --dry-run) dry_run=true ;;
    *) fail "unknown option $1; flags of lgs_jax.main go after --" ;;
  esac
  shift
done

submits=false
case "$verb" in
  run | submit) submits=true ;;
  logs | delete) ;;
  *) fail "unknown command $verb; it is run, submit, logs or delete" ;;
esac
[[ "$name" =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
  fail "--name='$name' must be small letters, digits and hyphens, such as rooms"
[[ "$poll" =~ ^[0-9]+$ ]] || fail "--poll=$poll must be a number of seconds"
[[ -z "$xpk" || -n "$zone" ]] || fail "--xpk=$xpk needs --zone, that of the cluster"
[[ -n "$xpk" || -z "$zone" ]] || fail "--zone is for --xpk; kubectl takes the cluster of --context"

# Sets the manifest, what it asks of the nodes, and how many of them.
read_type() {
  local number=${type##*-} kind=${type%-*} chips
  [[ "$number" =~ ^[1-9][0-9]*$ ]] || fail "--type=$type must end in a number, such as v5e-16"
  manifest=tpu.yaml topology='' per_node=4
  case "$kind" in
    v5e | v5litepod) accelerator=tpu-v5-lite-podslice tpu_type=v5litepod-$number ;;
    v6e) accelerator=tpu-v6e-slice tpu_type=$type ;;
    v5p) accelerator=tpu-v5p-slice tpu_type=$type ;;
    a100-40gb) accelerator=nvidia-tesla-a100 ;;
    a100-80gb) accelerator=nvidia-a100-80gb ;;
    h100) accelerator=nvidia-h100-80gb ;;
    h200) accelerator=nvidia-h200-141gb ;;
    *) fail "--type=$type is none of v5e-N, v6e-N, v5p-N, a100-40gb-N, a100-80gb-N, h100-N, h200-N" ;;
  esac
  case "$kind-$number" in
    v5p-8) topology=2x2x1 ;;
    v5p-16) topology=2x2x2 ;;
    v5p-32) topology=2x2x4 ;;
    v5p-64) topology=2x4x4 ;;
    v5p-128) topology=4x4x4 ;;
    v5p-256) topology=4x4x8 ;;
    v5p-512) topology=4x8x8 ;;
    v5e-4 | v5litepod-4 | v6e-4) topology=2x2 ;;
    v5e-8 | v5litepod-8 | v6e-8) topology=2x4 ;;
    v5e-16 | v5litepod-16 | v6e-16) topology=4x4 ;;
    v5e-32 | v5litepod-32 | v6e-32) topology=4x8 ;;
    v5e-64 | v5litepod-64 | v6e-64) topology=8x8 ;;
    v5e-128 | v5litepod-128 | v6e-128) topology=8x16 ;;
    v5e-256 | v5litepod-256 | v6e-256) topology=16x16 ;;
    v5*-* | v6e-*) fail "--type=$type is no slice: 4 to 256 chips, v5p 8 to 512 cores, doubling" ;;
    *) manifest=gpu.yaml per_node=8 ;;
  esac
  chips=$number
  if [[ "$kind" == v5p ]]; then chips=$((number / 2)); fi
  ((chips % per_node == 0)) || fail "--type=$type must be whole nodes of $per_node"
  nodes=$((chips / per_node))
}

if $submits; then
  [[ -n "$image" ]] || fail "$verb needs --image, such as REGION-docker.pkg.dev/PROJECT/REPOSITORY/lgs_jax:tpu"
  [[ "$workdir" == gs://?* ]] || fail "$verb needs --workdir=gs://bucket/run: pods have no disk that lasts"
  [[ -n "$type" ]] || fail "$verb needs --type, such as v5e-16"
  for flag in ${flags[@]+"${flags[@]}"}; do
    if [[ "$flag" =~ ^--(workdir|config|dry-run)(=|$) ]]; then fail "give ${flag%%=*} before --"; fi
  done
  read_type
  [[ -z "$xpk" || "$manifest" == tpu.yaml ]] || fail "--xpk is for TPUs; --type=$type goes without"
fi
arguments=(--distributed "--config=$config" "--workdir=$workdir" ${flags[@]+"${flags[@]}"})
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kubectl=(kubectl)
if [[ -n "$context" ]]; then kubectl+=(--context="$context"); fi
if [[ -n "$namespace" ]]; then kubectl+=(--namespace="$namespace"); fi
label=jobset.sigs.k8s.io/jobset-name=$name

# Prints a command, and executes it unless that is not wanted.
call() {
  printf '+' >&2
  printf ' %q' "$@" >&2
  printf '\n' >&2
  if ! $dry_run; then "$@"; fi
}

# A text as YAML takes it, whatever it holds.
quoted() {
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

# The manifest with the values of this job in the place of its own, without its comment at the top.
fill() {
  local line lead argument begun=false
  while IFS= read -r line; do
    lead=${line%%[! ]*}
    if [[ "$line" != '#'* ]]; then begun=true; elif ! $begun; then continue; fi
    case "${line#"$lead"}" in
      'name: lgs-jax') line="${lead}name: $name" ;;
      'image: '*) line="${lead}image: $(quoted "$image")" ;;
      'parallelism: '*) line="${lead}parallelism: $nodes" ;;
      'completions: '*) line="${lead}completions: $nodes" ;;
      cloud.google.com/gke-*accelerator:*) line="${line%%: *}: $accelerator" ;;
      cloud.google.com/gke-tpu-topology:*) line="${line%%: *}: $topology" ;;
      'nodeSelector:') if $spot; then line+=$'\n'"$lead  cloud.google.com/gke-spot: \"true\""; fi ;;
      'args:')
        for argument in "${arguments[@]}"; do line+=$'\n'"$lead  - $(quoted "$argument")"; done
        ;;
      '- --'*) continue ;;
    esac
    printf '%s\n' "$line"
  done <"$here/$manifest"
}

submit() {
  if [[ -n "$xpk" ]]; then
    local command
    printf -v command ' %q' "${arguments[@]}"
    call xpk workload create --cluster="$xpk" --zone="$zone" --workload="$name" \
      --tpu-type="$tpu_type" --docker-image="$image" --max-restarts=20 \
      --restart-on-user-code-failure --termination-grace-period-seconds=300 \
      --command="python -m lgs_jax.main$command"
  else
    local filled
    filled=$(fill)
    if $dry_run; then printf '%s\n' "$filled"; fi
    call "${kubectl[@]}" apply -f "$here/rbac.yaml" -f - <<<"$filled"
  fi
}

# 0 if the training is done, 1 if it has failed for good.
follow() {
  local look=("${kubectl[@]}" get jobset "$name" -o 'jsonpath={.status.terminalState}') state
  local print=("${kubectl[@]}" logs -f --tail=-1 -l "$label,batch.kubernetes.io/job-completion-index=0")
  if $dry_run; then
    call "${look[@]}"
    call "${print[@]}"
    return
  fi
  trap 'echo "$name goes on; launch/gke/submit.sh logs or delete --name=$name" >&2; exit 130' INT
  while true; do
    # Ends with the pod; while it is pending there is nothing to be read yet.
    "${print[@]}" || true
    state=$("${look[@]}")
    case "$state" in
      Completed) echo "$name is done"; return 0 ;;
      Failed) echo "$name has failed; ${kubectl[*]} describe jobset $name says why" >&2; return 1 ;;
    esac
    sleep "$poll"
  done
}

delete() {
  if [[ -n "$xpk" ]]; then
    call xpk workload delete --cluster="$xpk" --zone="$zone" --workload="$name"
  else
    call "${kubectl[@]}" delete jobset "$name"
  fi
}

case "$verb" in
  run) submit; follow ;;
  submit) submit ;;
  logs) follow ;;
  delete) delete ;;
esac
