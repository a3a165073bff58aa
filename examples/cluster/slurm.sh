#!/usr/bin/env bash
# Train on several computers of a SLURM cluster, from the folder of the repository:
#
#     sbatch examples/cluster/slurm.sh letters/ --model_name mine --init_from 124M --batch_size 32
#
# The words after the script are those of src/train.py. All computers need this folder, the texts and the models on a
# disk that they share. SIGTERM comes to all five minutes before the time is over: the run saves, and the same
# command goes on from there.
#SBATCH --job-name=gpt2
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --output=%x-%j.log
set -euo pipefail

port=$((20000 + SLURM_JOB_ID % 20000))
workers=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&:$port\"/" | paste -sd ,)
export workers

# In each task the shell says which of the workers it is, and becomes the training.
# shellcheck disable=SC2016  # that shell is to put in the values, not this one
srun --kill-on-bad-exit=1 bash -c '
    export TF_CONFIG="{\"cluster\": {\"worker\": [$workers]}, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
    exec python src/train.py "$@"
' train "$@"
