#!/usr/bin/env bash
# Trains on this machine.
#
#   launch/local.sh [--dry-run] [--config=FILE[:VARIANT]] [further flags of lgs_jax.main]
#
# Without --config it runs the main job, configs/vae.py. --dry-run prints the command and checks
# that it could start, but starts nothing. The interpreter is $PYTHON, else .venv/bin/python of the
# repository, else python3. The exit status is that of the job; see launch/README.md.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

dry_run=false
has_config=false
arguments=()
for argument in "$@"; do
  case "$argument" in
    --dry-run) dry_run=true ;;
    -h | --help)
      sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *)
      if [[ "$argument" == --config || "$argument" == --config=* ]]; then has_config=true; fi
      arguments+=("$argument")
      ;;
  esac
done
if ! $has_config; then
  arguments=(--config=configs/vae.py ${arguments[@]+"${arguments[@]}"})
fi

if [[ -n "${PYTHON:-}" ]]; then
  python=$PYTHON
elif [[ -x .venv/bin/python ]]; then
  python=.venv/bin/python
else
  python=python3
fi
# Lines appear when they are written, also in a file or a pipe.
export PYTHONUNBUFFERED=1

command=("$python" -m lgs_jax.main "${arguments[@]}")
printf '+'
printf ' %q' "${command[@]}"
printf '\n'

if $dry_run; then
  if ! "$python" -c 'import lgs_jax' 2>/dev/null; then
    echo "$python cannot import lgs_jax; install it: $python -m pip install -e ." >&2
    exit 1
  fi
  "$python" -c 'import jax; print(f"jax {jax.__version__} on", *jax.devices())'
  exit 0
fi
# exec: signals of a scheduler reach the job itself, which saves and leaves.
exec "${command[@]}"
