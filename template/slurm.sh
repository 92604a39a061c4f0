#!/bin/bash
# Train on a cluster with Slurm:  sbatch slurm.sh lr=0.001 …
# Arguments go to train.py. Options before slurm.sh replace those below:  sbatch --time=2:00:00 slurm.sh …
#SBATCH --ntasks=1          # processes that train together, one for each GPU
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300   # save and stop 5 minutes before the time limit
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log

# What your cluster needs comes here, such as:  module load cuda
python=${PYTHON:-.venv/bin/python}

trap : TERM  # a preempted job gets SIGTERM: wait until it has saved
srun "$python" train.py resume=auto "$@"
code=$?
state=$(squeue --noheader --format=%T --jobs="$SLURM_JOB_ID")
if [ "$code" -eq 75 ] && [ "$state" = RUNNING ]; then  # saved, and not cancelled: go on later
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
