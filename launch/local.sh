#!/usr/bin/env bash
# Several processes on this machine, each with fake CPU devices: the code path of a pod, to try it.
#
#     launch/local.sh train_encoder --config=configs/deepssim_nano.py:smoke --workdir=/tmp/smoke
#     PROCESSES=2 DEVICES=4 PORT=12421 launch/local.sh ...
set -euo pipefail

processes=${PROCESSES:-2}
export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=${DEVICES:-4}
export JAX_COORDINATOR_ADDRESS=127.0.0.1:${PORT:-12421} JAX_NUM_PROCESSES=$processes

children=() told=
declare -A number
# Once: a second signal would cut short what the first one has them finish.
stop() { [[ -n $told ]] || kill "${children[@]}" 2>/dev/null || true; told=1; }
trap stop INT TERM
for ((i = 0; i < processes; i++)); do
  JAX_PROCESS_ID=$i "${PYTHON:-python}" -m deepssim_jax "$@" &
  children+=($!) number[$!]=$i
done
# The first failure counts, and takes the other processes with it.
status=0 killed=
for ((left = processes; left > 0; left--)); do
  code=0
  wait -n -p ended "${children[@]}" || code=$?
  # A signal to this script interrupts the waiting: nobody has ended yet.
  if [[ -z ${ended:-} ]]; then
    left=$((left + 1))
    continue
  fi
  remaining=()
  for child in "${children[@]}"; do [[ $child == "$ended" ]] || remaining+=("$child"); done
  children=("${remaining[@]}")
  # 3 and 4 are answers, which every process gives.
  if ((code && code != 3 && code != 4 && !status)); then
    status=$code
    ((code <= 128)) || [[ -n $told ]] || killed=$ended
    # What was asked wrongly every process finds, and the first one alone says it: let it.
    for ((tenths = 0; code == 2 && tenths < 50; tenths++)); do
      kill -0 "${children[@]}" 2>/dev/null || break
      sleep 0.1
    done
    ((${#children[@]} == 0)) || stop
  elif ((code && !status && ${#children[@]} == 0)); then
    status=$code
  fi
done
[[ -z $killed ]] || echo "local.sh: process ${number[$killed]} was ended by signal $((status - 128)), and the others with it" >&2
exit "$status"
