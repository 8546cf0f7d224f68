#!/usr/bin/env bash
# Installs the package on every host of a TPU VM or pod slice and runs one command on all of them.
#
#     TPU=my-slice ZONE=us-east5-a launch/tpu_vm.sh train_encoder \
#         --config=configs/deepssim_v2.py --workdir=/mnt/shared/runs/v2
#
# On one host this is all; on a slice every host joins by itself (JAX finds the others). Run the same
# command again after a preemption: it goes on from the last checkpoint.
set -euo pipefail

: "${TPU:?the name of the TPU VM}" "${ZONE:?its zone}"
here=$(cd "$(dirname "$0")/.." && pwd)
archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git -C "$here" archive --format=tar.gz -o "$archive" HEAD

all=(gcloud compute tpus tpu-vm)
"${all[@]}" scp "$archive" "$TPU:deepssim_jax.tar.gz" --zone="$ZONE" --worker=all
command=$(printf '%q ' "$@")
"${all[@]}" ssh "$TPU" --zone="$ZONE" --worker=all --command="
  set -e
  mkdir -p deepssim_jax && tar xzf deepssim_jax.tar.gz -C deepssim_jax && cd deepssim_jax
  python3 -m venv ~/.venv-deepssim && . ~/.venv-deepssim/bin/activate
  pip install -q '.[tpu,phantom]' && deepssim doctor && deepssim $command"
