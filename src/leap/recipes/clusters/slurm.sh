#!/bin/bash
# A run on a Slurm cluster, from its login node. Change what stands in <>; then
#   OPENAI_API_KEY=... nohup bash slurm.sh > leap.log 2>&1 &
# The driver waits for jobs and asks the teacher: a core and some GiB. Killed, it goes on by the same command and takes up the jobs
# that run. Where login nodes end long processes, submit this file itself: sbatch --time=7-0 --cpus-per-task=2 --mem=16G slurm.sh
set -euo pipefail
RUNS="${RUNS:-<a folder that all nodes share>}"
PARTITION="${PARTITION:-<a partition with GPUs>}"

source "$RUNS/leap/bin/activate" # python -m venv, then pip install 'leap-agents[train,endpoints,slurm]', once
export HF_HOME="$RUNS/hf" LEAP_CACHE="$RUNS/cache"
leap data alfworld # once; compute nodes may have no way out

exec leap run alfworld-llama3-8b --run-dir "$RUNS/alfworld-llama3-8b" --set "executor={kind: slurm, partition: $PARTITION,
  jobs: 8, gpus: 1, cpus: 8, memory: 64, time: 240,
  training: {partition: $PARTITION, gpus: 8, cpus: 32, memory: 256, time: 720}}" --set training.processes=8
