#!/usr/bin/env bash
# Measures this machine's accelerator, on a machine that may be bare and without a network.
#
#     benchmarks/device.sh                            everything, in under 7 minutes
#     LIMIT=120 benchmarks/device.sh --section=ssim
#
# The package is this checkout's. It needs a python3 (PYTHON= names another) with JAX for the
# accelerator, flax, optax, orbax and scikit-image; PyTorch, if there, is the peer. What else is needed
# comes from the wheels that `make wheels` gathered in WHEELS, by default the folder wheels/ of this
# checkout, and goes to SITE. Records go to OUT, by default benchmarks/results. It ends within LIMIT
# seconds, by default 400, whatever hangs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
wheels=${WHEELS:-wheels}
out=${OUT:-benchmarks/results}
limit=${LIMIT:-400}
site=${SITE:-}
if [ -z "$site" ]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
fi
mkdir -p "$out"

if compgen -G "$wheels/*.whl" > /dev/null; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$site" "$wheels"/*.whl
else
  echo "device.sh: no wheels in $wheels; using what $python has" >&2
fi

export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1
# Half of the memory for JAX, the rest for PyTorch: both work in one process. The CPU must stay beside the
# card, so JAX_PLATFORMS is left to whoever calls.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-.55}
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}
# A second run on the same machine, and a process that follows one that was ended, compile nothing anew.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-${TMPDIR:-/tmp}/deepssim_device_cache}
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.1
# PyTorch's compiler starts no workers of its own, which would outlive a section that is cut off.
export TORCHINDUCTOR_COMPILE_THREADS=1

command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=name,driver_version --format=csv || true
# Should the run itself be stuck, its records up to there are in OUT. The log is followed and not piped:
# a pipe is open as long as any process that was left behind.
log=$out/device_log.txt
: > "$log"
timeout --kill-after=5 "$limit" "$python" -m benchmarks.device --out="$out" \
  --seconds="$((limit - 20))" "$@" > "$log" 2>&1 &
run=$!
tail -n +1 -f --pid="$run" "$log" &
status=0
wait "$run" || status=$?
wait
exit "$status"
