#!/usr/bin/env bash
# Install from Debian's packages what the tests run, where root may: tools/debian.sh [slurm] [browser] [postgresql] [strace]
# Does nothing where it is there, or where it can't be had (the tests then say so themselves).
set -euo pipefail
# slurm-wlm-emulator, munge and mariadb-server bring more than is needed; these do
slurm=(slurmctld slurmd slurm-client slurmdbd munge mariadb-server-core)
browser=(chromium fonts-dejavu-core)
postgresql=(postgresql)
strace=(strace)
packages=()
for set in "$@"; do
  case $set in
    slurm) packages+=("${slurm[@]}") ;;
    browser) packages+=("${browser[@]}") ;;
    postgresql) packages+=("${postgresql[@]}") ;;
    strace) packages+=("${strace[@]}") ;;
    *) echo "tools/debian.sh: $set: no such set (slurm, browser, postgresql, strace)" >&2; exit 2 ;;
  esac
done
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' ||
    missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 0
echo "installing for the tests: ${missing[*]} (some seconds, once)"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ apt-get -o DPkg::Lock::Timeout=300 -q update &&
  apt-get -o DPkg::Lock::Timeout=300 -q -y --no-install-recommends install "${missing[@]}"
} >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
