#!/usr/bin/env bash
# Make a virtual environment with the pinned packages: tools/venv.sh .venv
# LOCK=FILE installs another lock; HASHES=1 checks each file against requirements-hashes.lock.
set -euo pipefail
venv=$1
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}

fail() { echo "venv: $*" >&2; exit 2; }
command -v "$python" >/dev/null || fail "$python not found; name one by PYTHON=/path/to/python3.11"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$("$python" --version) is too old: Python 3.11 or newer is needed (PYTHON=python3.11 make ...)"

if [ ! -x "$venv/bin/pip" ]; then
  "$python" -m venv "$venv" 2>/dev/null || {
    # Debian keeps ensurepip in a package of its own
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
      fail "python3-venv is missing: apt-get install python3-venv"
    apt-get -q update >/dev/null && apt-get -q -y install python3-venv >/dev/null
    "$python" -m venv "$venv"
  }
fi
pip() { "$venv/bin/pip" "$1" --quiet --disable-pip-version-check "${@:2}"; }
lock=$root/${LOCK:-requirements.lock}
torch=$(grep '^torch==' "$lock") || fail "$lock names no torch"
echo "installing the pinned packages into $venv (a minute or two, once)"
if [ -n "${HASHES:-}" ]; then
  hashes=$root/requirements-hashes.lock
  # setuptools first: it builds what comes as source, and pip would fetch an unchecked one for that
  pip install --require-hashes --no-deps -r <(sed -n '/^setuptools==/,/[^\\]$/p' "$hashes")
  pip install --require-hashes --no-deps --no-build-isolation -r "$hashes"
  # torch last: it finds the packages it needs here, checked, and brings only libraries of its build
  pip install "$torch"
else
  # torch first: what is installed afterwards must not choose another build of it
  pip install "$torch"
  pip install -r "$lock"
fi
# the library itself: imported from any folder, and edited where it lies
pip install --no-deps --no-build-isolation --editable "$root"
