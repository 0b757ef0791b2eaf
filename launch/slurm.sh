#!/usr/bin/env bash
# SLURM: several nodes, one process on each, which takes all GPUs of its node.
#
#   sbatch --nodes=4 --gpus-per-node=8 launch/slurm.sh --config=FILE --workdir=SHARED_FOLDER
#
# Change: the lines of #SBATCH (your partition, account and hours), or give them to sbatch. To be started in the clone,
# which every node sees at the same path; PYTHON=... names another Python than that of .venv. Images are decoded by as
# many threads as a task has CPUs.
#
# A node's process is started again by restart.py, a lost node by SLURM. Before its hours are over, or when it is
# preempted, a job saves and goes back into the queue. With several tasks a node each takes its share of the GPUs.
#SBATCH --job-name=jaxvpr
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=jaxvpr-%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?it is to be started by sbatch}"
PYTHON="${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"

status=0
srun --kill-on-bad-exit=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  "$PYTHON" launch/restart.py -- "$PYTHON" -m jaxvpr.main "$@" --coordinator=auto || status=$?
case "$status" in 75 | 137 | 143) # a host is lost, or was told to stop, or was killed
  [ "${SLURM_RESTART_COUNT:-0}" -ge 20 ] || scontrol requeue "$SLURM_JOB_ID"
  ;;
esac
exit "$status"
