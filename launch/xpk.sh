#!/usr/bin/env bash
# A workload on a GKE cluster of TPUs, by xpk; the image is launch/Dockerfile with EXTRA=tpu.
#
#     CLUSTER=my-cluster TPU_TYPE=v5litepod-16 IMAGE=region-docker.pkg.dev/project/repo/deepssim \
#         launch/xpk.sh deepssim-v2 train_encoder --config=configs/deepssim_v2.py \
#         --workdir=/mnt/shared/runs/v2
set -euo pipefail

: "${CLUSTER:?the GKE cluster}" "${TPU_TYPE:?for example v5litepod-16}" "${IMAGE:?the pushed image}"
name=$1
shift
xpk workload create \
  --cluster="$CLUSTER" \
  --workload="$name" \
  --tpu-type="$TPU_TYPE" \
  --num-slices="${SLICES:-1}" \
  --docker-image="$IMAGE" \
  --max-restarts="${RESTARTS:-10}" \
  --command="deepssim $(printf '%q ' "$@")"
