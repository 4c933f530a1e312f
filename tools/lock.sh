#!/usr/bin/env bash
# Write the locks anew: tools/lock.sh PYTHON (make lock). CONTRIBUTING.md tells when to use which.
#   (nothing)            resolve pyproject.toml in an environment of its own; torch stays as locked
#   TORCH=2.14.1         ... with this torch
#   FROM=path/to/python  no resolving: the versions that this environment holds
#   LOCK=FILE            into this file, with the labels of local builds (+cu130) and no hashes:
#                        a lock for one kind of machine
set -euo pipefail
python=$1
root=$(cd "$(dirname "$0")/.." && pwd)
common=$root/requirements.lock
lock=$root/${LOCK:-requirements.lock}
from=${FROM:-}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

pip_install() {
  [ -x "$scratch/venv/bin/pip" ] || "$python" -m venv "$scratch/venv"
  "$scratch/venv/bin/pip" install --quiet --disable-pip-version-check "$@"
}

if [ -z "$from" ]; then
  torch=$(sed -n 's/^torch==//p' "$common")
  pip_install "torch==${TORCH:-$torch}"
  pip_install "$root[tensorboard,accelerate,dashboard,parquet,dev]"
  from=$scratch/venv/bin/python
fi
labels=()
[ "$lock" = "$common" ] || labels=(--labels)  # a label is one machine's; the common lock is for all
{ sed -n '/^#/p' "$common"; "$from" "$root/tools/pins.py" "${labels[@]}"; } >"$scratch/lock"
if [ -n "${FROM:-}" ] && [ "$lock" = "$common" ]; then
  minor=$("$from" -c 'import sys; print("3.%d" % sys.version_info[1])')
  sed "s/- python=.*/- python=$minor/" "$root/environment.yml" >"$scratch/environment.yml"
  cp "$scratch/environment.yml" "$root/environment.yml"
fi
cp "$scratch/lock" "$lock"
echo "written: $lock"
[ "$lock" = "$common" ] || exit 0

# Hashes of every file of these versions, for all platforms. Not torch: its build differs from
# machine to machine. setuptools: it builds what comes as source.
hashes=$root/requirements-hashes.lock
{ grep -vE '^(#|torch==)' "$lock"; echo setuptools; } >"$scratch/asked"
pip_install uv
"$scratch/venv/bin/uv" pip compile --quiet --no-deps --generate-hashes --universal \
  --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
  --output-file "$scratch/hashes" "$scratch/asked" >"$scratch/shown"
{
  echo "# requirements.lock without torch, with the hashes of each version's files, for all platforms."
  echo "# Installed by 'make venv HASHES=1'; made by 'make lock'."
  grep -vE '^(#|--)' "$scratch/hashes"
} >"$scratch/whole"
cp "$scratch/whole" "$hashes"
echo "written: $hashes"
