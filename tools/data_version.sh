#!/usr/bin/env bash
# Put data under version control with DVC and push them: docs/data-versioning.md.
#   tools/data_version.sh data/cola                              add and push what changed
#   tools/data_version.sh data/cola /shared/dvc                  ... to this remote, the default from now on
#   tools/data_version.sh data/cola s3://bucket/dvc http://host:9000
# DVC is an environment of its own (make .venv-dvc); DVC=/path/to/dvc names another.
set -euo pipefail
root=$(git rev-parse --show-toplevel 2>/dev/null) || { echo "data-version: not in a git repository" >&2; exit 2; }
export DVC_NO_ANALYTICS=1

fail() { echo "data-version: $*" >&2; exit 2; }

find_dvc() {
  [ -n "${DVC:-}" ] && { command -v "$DVC" && return; fail "DVC=$DVC: no such command"; }
  [ -x "$root/.venv-dvc/bin/dvc" ] && { echo "$root/.venv-dvc/bin/dvc"; return; }
  command -v dvc || fail "no dvc: make .venv-dvc, or name one by DVC=/path/to/dvc"
}

begin() {  # once in a repository
  [ -d "$root/.dvc" ] && return
  (cd "$root" && "$dvc" init -q)
  "$dvc" config core.analytics false
  "$dvc" config core.check_update false
  # DVC keeps a copy of all data in .dvc/cache; linked, they take their room once.
  "$dvc" config cache.type reflink,hardlink,symlink,copy
  printf '%s\n' .fetch prepared >>"$root/.dvcignore"  # markers and caches of ours
}

remote() {  # URL [ENDPOINT]
  "$dvc" remote add -q -f -d store "$1"
  [ -n "${2:-}" ] && "$dvc" remote modify store endpointurl "$2"
  git -C "$root" add .dvc/config
}

[ $# -ge 1 ] && [ $# -le 3 ] || fail "give a folder or file, perhaps a remote and its endpoint"
[ -e "$1" ] || fail "$1: no such folder or file"
dvc=$(find_dvc)
begin
[ $# -ge 2 ] && remote "${@:2}"
"$dvc" add -q "$1"
git -C "$root" add .dvc/config .dvcignore
git add "$1.dvc"
ignore=$(dirname "$1")/.gitignore  # DVC writes it where git does not ignore the data anyway
[ ! -f "$ignore" ] || git add "$ignore"
"$dvc" push -q || fail "nothing was pushed; is there a remote? (the second argument names one)"
echo "version: $(sed -n 's/^- md5: //p' "$1.dvc")"
echo "next:    git commit -m 'Data: what changed, and why'"
