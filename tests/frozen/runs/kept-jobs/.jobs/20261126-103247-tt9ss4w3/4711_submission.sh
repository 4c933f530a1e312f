#!/bin/bash

# Parameters
#SBATCH --array=0-5%4
#SBATCH --cpus-per-task=1
#SBATCH --job-name=kept-jobs
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=@HERE@/runs/kept-jobs/.jobs/20261126-103247-tt9ss4w3/%A_%a_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@30
#SBATCH --time=10

# setup
trap : USR1 USR2 TERM
export PYTHONPATH=@HERE@/runs/.snapshots/e97184de613d4a3a${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1
export MLMODELDEV_SUBMISSION=@HERE@/runs/kept-jobs/.jobs/20261126-103247-tt9ss4w3/jobs.json

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output @HERE@/runs/kept-jobs/.jobs/20261126-103247-tt9ss4w3/%A_%a_%t_log.out --export=ALL --kill-on-bad-exit=1 --cpus-per-task=1 @PYTHON@ -u -m @MODULE@ @HERE@/runs/kept-jobs/.jobs/20261126-103247-tt9ss4w3/tasks-0.pkl


# teardown
exec @PYTHON@ -m @MODULE@ "$?"