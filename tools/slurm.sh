#!/usr/bin/env bash
# Install Slurm for the tests from Debian's packages, where root may: tools/slurm.sh
# Does nothing where it is there, or where it can't be had (the tests then say so themselves).
set -euo pipefail
# slurm-wlm-emulator, munge and mariadb-server bring more than is needed; these do
packages=(slurmctld slurmd slurm-client slurmdbd munge mariadb-server-core)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' ||
    missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 0
echo "installing Slurm for the tests: ${missing[*]} (some seconds, once)"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ apt-get -o DPkg::Lock::Timeout=300 -q update &&
  apt-get -o DPkg::Lock::Timeout=300 -q -y --no-install-recommends install "${missing[@]}"
} >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
