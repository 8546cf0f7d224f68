#!/usr/bin/env bash
# Several processes on this machine, each with fake CPU devices: the code path of a pod, to try it.
#
#     launch/local.sh train_encoder --config=configs/deepssim_nano.py:smoke --workdir=/tmp/smoke
#     PROCESSES=2 DEVICES=4 PORT=12421 launch/local.sh ...
set -euo pipefail

processes=${PROCESSES:-2}
export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=${DEVICES:-4}
export JAX_COORDINATOR_ADDRESS=127.0.0.1:${PORT:-12421} JAX_NUM_PROCESSES=$processes

children=()
trap 'kill "${children[@]}" 2>/dev/null || true' INT TERM
for ((i = 0; i < processes; i++)); do
  JAX_PROCESS_ID=$i "${PYTHON:-python}" -m deepssim_jax "$@" &
  children+=($!)
done
# The worst exit status of all counts; one that fails takes the others with it.
status=0
for child in "${children[@]}"; do
  wait "$child" || { status=$?; kill "${children[@]}" 2>/dev/null || true; }
done
exit "$status"
