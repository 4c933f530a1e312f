#!/usr/bin/env bash
# Resolve pyproject.toml into requirements.lock, in an environment of its own: tools/lock.sh PYTHON
set -euo pipefail
python=$1
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m venv "$scratch/venv"
pip="$scratch/venv/bin/pip --disable-pip-version-check"
$pip install --quiet "$(grep -oE 'torch==[0-9.]+' "$root/pyproject.toml" | head -1)"
$pip install --quiet "$root[tensorboard,accelerate,dashboard,parquet,dev]"
{
  sed -n '/^#/p' "$root/requirements.lock"
  # a local build label such as +cpu is this machine's; the lock is for all
  $pip freeze --exclude mlmodeldev | sed -E 's/\+[a-z0-9.]+$//'
} > "$scratch/lock"
mv "$scratch/lock" "$root/requirements.lock"
