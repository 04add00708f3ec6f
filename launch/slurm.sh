#!/bin/sh
#SBATCH --job-name=w2s
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
# A run on several machines: sbatch launch/slurm.sh configs/science.yaml [key=value ...]
# The pipeline runs on the first node and starts the workers of all nodes through DeepSpeed's launcher (ssh between the
# nodes without a password). A requeued run resumes. runtime.runs_dir must be on a shared file system.
set -eu
config=${1:?usage: sbatch launch/slurm.sh CONFIG [key=value ...]}
shift
here=${SLURM_SUBMIT_DIR:-$(pwd)}/launch
hostfile=$(mktemp -p "${SLURM_SUBMIT_DIR:-$(pwd)}" hostfile.XXXXXX)
trap 'rm -f "$hostfile"' EXIT
scontrol show hostnames "$SLURM_JOB_NODELIST" | while read -r node; do
    echo "$node slots=${SLURM_GPUS_ON_NODE:-1}"
done >"$hostfile"
w2s run "$config" runtime.hostfile="$hostfile" runtime.deepspeed="$here/zero2.json" "$@"
