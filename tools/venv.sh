#!/usr/bin/env bash
# Make a virtual environment with the pinned packages: tools/venv.sh .venv
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
# torch first: what is installed afterwards must not choose another build of it
echo "installing the pinned packages into $venv (a minute or two, once)"
"$venv/bin/pip" install --quiet --disable-pip-version-check "$(grep '^torch==' "$root/requirements.lock")"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$root/requirements.lock"
