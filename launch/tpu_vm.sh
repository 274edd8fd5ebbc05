#!/usr/bin/env bash
# Trains on a slice of Cloud TPUs: queues for it, installs, trains on all workers, starts again
# after a preemption, and gives the slice back.
#
#   launch/tpu_vm.sh COMMAND --name=NAME --zone=ZONE [options] [-- flags of lgs_jax.main]
#
#   run      all of the following in turn, until the training is done
#   create   ask for the slice and wait until it is there
#   install  install lgs_jax on every worker
#   train    train on every worker, once
#   status   print the state of the request
#   delete   give the slice back; nothing is charged afterwards
#
#   --type=TYPE        accelerator, such as v5litepod-16 or v6e-8 (run and create)
#   --workdir=gs://…   where the run lies; a slice comes and goes (run and train)
#   --spot             cheaper, may be taken away at any time
#   --project=PROJECT  default: that of gcloud
#   --runtime=VERSION  image of the machines; default: the one for --type
#   --clone=URL[@REF]  install from a git repository; default: copy this one
#   --restarts=3       how often run starts again after an error on a slice that is still there
#   --keep             do not delete the slice at the end of run, or after Ctrl-C
#   --poll=30          seconds between looks at the request
#   --log=FILE         what the workers print; default: NAME.log
#   --dry-run          print every command that would be executed, and execute none
#
# Ctrl-C saves, deletes the slice and leaves with status 130. See launch/README.md.
set -euo pipefail

fail() {
  echo "tpu_vm.sh: $1" >&2
  exit 2
}

verb=${1:-}
if [[ -z "$verb" || "$verb" == -h || "$verb" == --help ]]; then
  sed -n '2,28s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
fi
shift
name='' zone='' type='' workdir='' project='' runtime='' clone='' log=''
spot=false keep=false dry_run=false restarts=3 poll=30
flags=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --) shift; flags=("$@"); break ;;
    --name=* | --zone=* | --type=* | --workdir=* | --project=* | --runtime=* | --clone=* | \
      --restarts=* | --poll=* | --log=*)
      option=${1%%=*}
      printf -v "${option#--}" '%s' "${1#*=}"
      ;;
    --spot) spot=true ;;
    --keep) keep=true ;;
    --dry-run) dry_run=true ;;
    *) fail "unknown option $1; flags of lgs_jax.main go after --" ;;
  esac
  shift
done

needs_training=false
case "$verb" in
  run) needs_training=true; [[ -n "$type" ]] || fail "run needs --type, such as v5litepod-16" ;;
  train) needs_training=true ;;
  create) [[ -n "$type" ]] || fail "create needs --type, such as v5litepod-16" ;;
  install | status | delete) ;;
  *) fail "unknown command $verb; it is run, create, install, train, status or delete" ;;
esac
[[ -n "$name" && -n "$zone" ]] || fail "$verb needs --name and --zone"
[[ "$restarts" =~ ^[0-9]+$ && "$poll" =~ ^[0-9]+$ ]] || fail "--restarts and --poll are numbers"
if $needs_training; then
  [[ "$workdir" == gs://?* ]] || fail "$verb needs --workdir=gs://bucket/run: a slice has no disk that lasts"
  for flag in ${flags[@]+"${flags[@]}"}; do
    [[ "$flag" != --workdir* ]] || fail "give --workdir before --"
  done
fi
if [[ -z "$runtime" ]]; then
  case "$type" in
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *) runtime=tpu-ubuntu2204-base ;;
  esac
fi
log=${log:-$name.log}
where=(--zone="$zone")
if [[ -n "$project" ]]; then where+=(--project="$project"); fi
# Whether there is something to delete, its state, and the process that streams the training.
asked=false now='' training=''
# How often the state of something that is there is asked for before that is given up.
readonly looks=20
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Prints a command, and executes it unless that is not wanted.
call() {
  printf '+' >&2
  printf ' %q' "$@" >&2
  printf '\n' >&2
  if ! $dry_run; then "$@"; fi
}

on_all_workers() {
  call gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="$1"
}

# The state of the request, such as ACTIVE, or ABSENT; fails if that cannot be found out.
state() {
  local answer
  if answer=$(gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
    --format='value(state.state)' 2>&1); then
    # gcloud may warn before it answers.
    tail -n 1 <<<"$answer"
  elif [[ "$answer" == *NOT_FOUND* || "$answer" == *"not found"* ]]; then
    echo ABSENT
  else
    echo "$answer" >&2
    return 1
  fi
}

# Sets `now` to the state. If it cannot be found out, what is there may still train: that is asked
# for again for some minutes, and then left alone.
look() {
  local command=(launch/tpu_vm.sh status --name="$name" "${where[@]}")
  for _ in $(seq "$looks"); do
    if now=$(state); then return; fi
    if ! $asked; then return 1; fi
    echo "the state of $name cannot be found out; next try in $poll seconds" >&2
    sleep "$poll"
  done
  keep=true
  echo "gave up after $looks tries. $name may still train; look with ${command[*]}" >&2
  return 1
}

create() {
  local tier=()
  if $spot; then tier=(--spot); fi
  # Google Cloud Storage is written with the rights of the machines' service account.
  call gcloud compute tpus queued-resources create "$name" "${where[@]}" --node-id="$name" \
    --accelerator-type="$type" --runtime-version="$runtime" \
    --scopes=https://www.googleapis.com/auth/cloud-platform ${tier[@]+"${tier[@]}"}
  asked=true
}

# Waits for the slice; asks for it first where there is none, or the old one was taken away.
ensure() {
  if $dry_run; then
    create
    return
  fi
  while true; do
    look
    if [[ "$now" != ABSENT ]]; then asked=true; fi
    case "$now" in
      ACTIVE) return ;;
      ABSENT) create ;;
      SUSPENDED | FAILED) delete ;;
      *) echo "$name is $now" && sleep "$poll" ;;
    esac
  done
}

delete() {
  call gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

install_package() {
  # The machines' own Python is older than 3.11; uv brings one. All of this expands over there.
  # shellcheck disable=SC2016
  local setup='set -e; python3 -m pip install --quiet --user uv; uv=~/.local/bin/uv
$uv venv --quiet --allow-existing --python 3.12 ~/venv; rm -rf ~/lgs_jax'
  # shellcheck disable=SC2016
  local pip='cd ~/lgs_jax; $uv pip install --quiet --python ~/venv/bin/python "jax[tpu]" -e ".[gcs,lpips]"'
  if [[ -n "$clone" ]]; then
    local url=$clone ref=HEAD quoted
    # The @ of git@host:path belongs to the address.
    if [[ "${clone##*/}" == *@* ]]; then url=${clone%@*} ref=${clone##*@}; fi
    printf -v quoted 'git clone --quiet %q ~/lgs_jax; git -C ~/lgs_jax checkout --quiet %q' \
      "$url" "$ref"
    on_all_workers "$setup"$'\n'"$quoted"$'\n'"$pip"
    return
  fi
  local archive=lgs_jax.tar.gz
  if ! $dry_run; then archive=$(mktemp -d)/$archive; fi
  call tar -czf "$archive" --exclude=__pycache__ -C "$root" \
    lgs_jax configs setup.py setup.cfg pyproject.toml README.md LICENSE &&
    call gcloud compute tpus tpu-vm scp "$archive" "$name:lgs_jax.tar.gz" "${where[@]}" \
      --worker=all &&
    on_all_workers "$setup; mkdir ~/lgs_jax; tar -xzf ~/lgs_jax.tar.gz -C ~/lgs_jax"$'\n'"$pip"
}

# A connection that breaks leaves the training running, and it would hold the chips. The pattern
# starts with the interpreter, so that it does not find the shell that looks for it.
# shellcheck disable=SC2016
stop_leftovers='them="^[^ ]*python[0-9.]* -m lgs_jax[.]main"; pkill -TERM -f "$them" || true
for _ in $(seq 300); do pgrep -f "$them" >/dev/null || break; sleep 1; done'

# The status of the training: 0 done, 75 saved and not done, else what ssh says.
train() {
  local command flag quoted
  printf -v quoted ' %q' "--workdir=$workdir" ${flags[@]+"${flags[@]}"}
  command="$stop_leftovers
cd ~/lgs_jax; export PYTHONUNBUFFERED=1; status=0
~/venv/bin/python -m lgs_jax.main --distributed$quoted || status=\$?
echo \"lgs_jax ended with status \$status\"; exit \$status"
  if $dry_run; then
    on_all_workers "$command"
    return
  fi
  local status=0 begin=1
  if [[ -e "$log" ]]; then begin=$(($(wc -l <"$log") + 1)); fi
  # In the background, out of reach of Ctrl-C: what the workers say while they save is still seen.
  on_all_workers "$command" 2>&1 | tee -i -a "$log" &
  training=$!
  wait "$training" || status=$?
  training=''
  # With several workers gcloud does not pass their statuses on.
  if [[ $status -ne 0 ]] && tail -n +"$begin" "$log" | grep -q 'lgs_jax ended with status 75'; then
    status=75
  fi
  return "$status"
}

run() {
  local status failures=0
  while true; do
    ensure
    status=0
    install_package || status=$?
    if [[ $status -eq 0 ]]; then train || status=$?; fi
    if [[ $status -eq 0 ]]; then return 0; fi
    look
    if [[ "$now" != ACTIVE ]]; then
      echo "$name is $now: the slice was taken away; starting again from $workdir"
    elif [[ $status -eq 75 ]]; then
      echo "the training was asked to stop and has saved; starting again from $workdir"
    elif [[ $failures -ge $restarts ]]; then
      echo "status $status on a slice that is $now, after $failures restarts; see $log" >&2
      return "$status"
    else
      failures=$((failures + 1))
      echo "status $status on a slice that is $now; restart $failures of $restarts"
    fi
  done
}

# What was created is deleted, whatever ended this script.
tidy() {
  local status=$?
  trap - EXIT INT TERM
  if ! $asked; then exit "$status"; fi
  if $keep; then
    local command=(launch/tpu_vm.sh delete --name="$name" "${where[@]}")
    echo "kept: $name is charged until ${command[*]}" >&2
  else
    delete || echo "$name could not be deleted and is charged; delete it by hand" >&2
  fi
  exit "$status"
}
interrupted() {
  trap - INT TERM
  echo "asking the training to save; Ctrl-C again to skip that" >&2
  on_all_workers "$stop_leftovers" || true
  if [[ -n "$training" ]]; then kill "$training" 2>/dev/null || true; fi
  exit 130
}

case "$verb" in
  run)
    trap tidy EXIT
    trap interrupted INT TERM
    run
    ;;
  create) ensure ;;
  install) install_package ;;
  train) train ;;
  status) if $dry_run; then fail "status changes nothing; call it without --dry-run"; else state; fi ;;
  delete) delete ;;
esac
