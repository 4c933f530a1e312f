#!/usr/bin/env bash
# Run trials of a W&B sweep in Slurm jobs:
#
#   sbatch slurm/agent.sh ENTITY/PROJECT/ID                     four agents
#   sbatch --array=1-8%4 --gpus=1 slurm/agent.sh ENTITY/PROJECT/ID training.max_epochs=20
#   bash slurm/agent.sh ENTITY/PROJECT/ID                       here, without Slurm
#
# sbatch's options go before the script; what follows the sweep are settings of every trial.
# Site defaults (modules, conda, WANDB_BASE_URL, proxies): slurm/profile.sh or
# ~/.config/mlmodeldev/profile.sh, read if they are there. docs/wandb.md tells more.
#SBATCH --job-name=agent
#SBATCH --array=1-4
#SBATCH --time=12:00:00
#SBATCH --cpus-per-task=4
#SBATCH --output=agent-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@180
#SBATCH --export=NONE
set -u

# Nothing of the login shell's environment gets here; the job's own steps need this job's.
unset SLURM_EXPORT_ENV
fail() { echo "agent.sh: $*" >&2; exit 2; }

# Slurm runs a copy of this file; the project is where the original lies.
here=${BASH_SOURCE[0]}
if [ -n "${SLURM_JOB_ID:-}" ] && [ ! -f "$(dirname "$here")/../trainer.py" ]; then
  original=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p' | head -1)
  [ -f "${original:-}" ] && here=$original || here=${SLURM_SUBMIT_DIR:-.}/slurm/agent.sh
fi
project=$(cd "$(dirname "$here")/.." 2>/dev/null && pwd) || fail "$here: the project is not there on $(hostname)"
[ -f "$project/trainer.py" ] || fail "$project: no project (submit from its folder: sbatch slurm/agent.sh)"
cd "$project" || fail "$project can't be entered"

# A profile may read what is not set (LD_LIBRARY_PATH, conda's PS1), and its own options end with it.
set +u
for profile in slurm/profile.sh "${HOME:-/nonexistent}/.config/mlmodeldev/profile.sh"; do
  # shellcheck disable=SC1090
  [ -f "$profile" ] && { . "$profile" || fail "$profile: ended with an error"; }
done
set +e +o pipefail -u
trap - ERR

# The profile's choice, the project's .venv, the conda environment of environment.yml.
environment=$(sed -n 's/^name: *//p' environment.yml 2>/dev/null)
environment=${environment:-mlmodeldev}
install="make venv"
[ -f Makefile ] || install="pip install -r requirements.txt"
python=${MLMODELDEV_PYTHON:-}
if [ -z "$python" ] && [ -x .venv/bin/python ]; then python=$project/.venv/bin/python; fi
if [ -z "$python" ]; then
  for conda in "${CONDA_EXE:-}" "${HOME:-}/miniforge3/bin/conda" "${HOME:-}/miniconda3/bin/conda" "$(command -v conda)"; do
    [ -x "$conda" ] && python=$("$conda" run -n "$environment" which python 2>/dev/null) && break
  done
fi
[ -x "${python:-}" ] || fail "no python: run '$install' in $project, or set MLMODELDEV_PYTHON in slurm/profile.sh"
# Looked for, not imported: that takes seconds, and the trials will do it.
needed="import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, sys.argv[1:])))"
"$python" -c "$needed" torch wandb pytorch_lightning 2>/dev/null ||
  fail "$python lacks torch, wandb or pytorch_lightning: run '$install' in $project"
export PATH="$(dirname "$python"):$PATH"

# exec: Slurm signals this very process, and its exit status is the job's.
exec "$python" -m mlmodeldev.slurm.agent "$@"
