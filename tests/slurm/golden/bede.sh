#!/bin/bash

# Parameters
#SBATCH --account=bdtest01
#SBATCH --array=0-3%4
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --job-name=digits
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/shared/runs/digits/.jobs/SUBMISSION/%A_%a_0_log.out
#SBATCH --partition=gh
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=1440

# setup
trap : USR1 USR2 TERM
source /etc/profile
set +eu; trap - ERR; trap : USR1 USR2 TERM
export PYTHONPATH=/shared/runs/.snapshots/CODE${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1
export MLMODELDEV_SUBMISSION=/shared/runs/digits/.jobs/SUBMISSION/jobs.json

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /shared/runs/digits/.jobs/SUBMISSION/%A_%a_%t_log.out --export=ALL --kill-on-bad-exit=1 --cpus-per-task=16 /venv/python -u -m mlmodeldev.slurm.entrypoint /shared/runs/digits/.jobs/SUBMISSION/tasks-0.pkl


# teardown
exec /venv/python -m mlmodeldev.slurm.epilog "$?"