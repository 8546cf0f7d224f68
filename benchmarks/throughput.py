"""How fast the kernels are, beside their peers, on this machine.

    python benchmarks/throughput.py --out=benchmarks/results
    python benchmarks/throughput.py --case=nearest --case=ssim_2d --n=0.25

Each case is checked against an independent computation first. Then come a warm-up, the median of
`--repeats` runs and their spread, the peers in turn, and the share of what this machine reaches in
a large matrix product in the same run. One JSON line a case goes into OUT/throughput.jsonl.
"""

import datetime
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from absl import app, flags

CASES = {
    "ssim_2d": "similarity",
    "ssim_3d": "similarity",
    "nearest": "search",
    "aligned": "search",
    "registration": "search",
    "augmentation": "network",
    "embedding": "network",
    "train_step": "network",
}

_CASE = flags.DEFINE_multi_enum("case", None, sorted(CASES), "cases to run; all if not given")
_PLATFORM = flags.DEFINE_string("platform", None, "cpu, cuda or tpu; what JAX finds if not given")
_N = flags.DEFINE_float("n", 1.0, "size of the cases, relative to the standard one", lower_bound=0)
_PEERS = flags.DEFINE_bool("peers", True, "run the peers that are installed")
_REPEATS = flags.DEFINE_integer("repeats", 5, "timed runs of each case", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "folder for throughput.jsonl; nothing is written without")


def timed(run: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each run."""
    out = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        out.append(time.perf_counter() - start)
    return out


def ceiling() -> float:
    """Flops a second of a large float32 matrix product."""
    import jax
    import jax.numpy as jnp

    side = 2048
    a = jnp.ones((side, side), jnp.float32)
    product = jax.jit(lambda a: jnp.dot(a, a, precision=jax.lax.Precision.HIGHEST))
    jax.block_until_ready(product(a))
    seconds = timed(lambda: jax.block_until_ready(product(a)), 5)
    return 2 * side**3 / statistics.median(seconds)


def measure(name: str) -> dict[str, object]:
    """The record of one case."""
    import importlib

    import jax

    case = getattr(importlib.import_module(f"benchmarks.cases.{CASES[name]}"), name)(_N.value)
    case.check()
    first = timed(case.run, 1)[0]
    seconds = timed(case.run, _REPEATS.value)
    middle = statistics.median(seconds)
    record: dict[str, object] = {
        "case": name,
        "unit": case.unit,
        "items": case.items,
        "items_per_s": round(case.items / middle, 1),
        "median_s": round(middle, 4),
        "spread_s": [round(min(seconds), 4), round(max(seconds), 4)],
        "first_s": round(first, 4),
        "peak_MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "day": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    if case.flops is not None:
        reached, possible = case.flops / middle, ceiling()
        record["gflops_per_s"] = round(reached / 1e9, 1)
        record["share_of_ceiling"] = round(reached / possible, 3)
    for peer_name, peer in case.peers.items() if _PEERS.value else ():
        peer.run()
        theirs = statistics.median(timed(peer.run, min(3, _REPEATS.value)))
        record[f"{peer_name}_items_per_s"] = round(peer.items / theirs, 1)
        record[f"times_{peer_name}"] = round((case.items / middle) / (peer.items / theirs), 2)
    return record


def main(_: list[str]) -> None:
    if _PLATFORM.value:
        os.environ["JAX_PLATFORMS"] = _PLATFORM.value
    records = []
    for name in _CASE.value or CASES:
        records.append(measure(name))
        print(json.dumps(records[-1]), flush=True)
    if _OUT.value:
        folder = Path(_OUT.value)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "throughput.jsonl").open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
    print(f"\n{'case':14}{'rate':>16}  {'ceiling':>8}  beside")
    for r in records:
        share = f"{r['share_of_ceiling']:.0%}" if "share_of_ceiling" in r else ""
        beside = ", ".join(f"{v} x {k[6:]}" for k, v in r.items() if k.startswith("times_"))
        print(f"{r['case']:14}{r['items_per_s']:>14,.0f}/s  {share:>8}  {beside}")


if __name__ == "__main__":
    app.run(main)
