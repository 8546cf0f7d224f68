"""How fast the kernels are, beside their peers, on this machine.

    python benchmarks/throughput.py --out=benchmarks/results
    python benchmarks/throughput.py --case=nearest_study --case=ssim_2d --n=0.25

Each case runs in a process of its own. It is checked against an independent computation first.
Then come a warm-up, which tells the time to lower and to compile, and `--repeats` runs, each
followed by one of every peer that is installed (`pip install 'deepssim_jax[bench]'`), so that
both meet the same noise; medians count. The share of the ceiling is against the largest matrix
product and the largest copy that this machine does in the same process: flops over the one or bytes
over the other, whichever is nearer to its limit. One JSON line a case goes into
OUT/throughput.jsonl; `--table=FILE` prints the table of such a file.
"""

import datetime
import functools
import importlib
import importlib.metadata
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from absl import app, flags

from benchmarks.cases.records import keep
from deepssim_jax.cli import memory

CASES = {
    "ssim_2d": "similarity",
    "ssim_3d": "similarity",
    "nearest_study": "search",
    "nearest_one": "search",
    "nearest_square": "search",
    "nearest_large": "search",
    "histogram": "search",
    "aligned": "search",
    "registration": "search",
    "keypoints": "local",
    "points_all_pairs": "local",
    "points_verified": "local",
    "replicas_voxel": "volumes",
    "augmentation": "network",
    "embedding_nano": "network",
    "embedding_tiny": "network",
    "embedding_base": "network",
    "train_step": "network",
    "input_phantoms": "training",
    "input_images": "training",
    "train_nano": "training",
    "autoencoder_step": "generation",
    "denoiser_step": "generation",
    "sampling": "generation",
    "audit": "whole",
    "audit_again": "whole",
    "self_join": "whole",
}
_PHASES = {
    "/jax/core/compile/jaxpr_trace_duration": "lower_s",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower_s",
    "/jax/core/compile/backend_compile_duration": "compile_s",
}

_CASE = flags.DEFINE_multi_enum("case", None, sorted(CASES), "cases to run; all if not given")
_PLATFORM = flags.DEFINE_string("platform", None, "cpu, cuda or tpu; what JAX finds if not given")
_N = flags.DEFINE_float("n", 1.0, "size of the cases, relative to the standard one", lower_bound=0)
_PEERS = flags.DEFINE_bool("peers", True, "run the peers that are installed")
_REPEATS = flags.DEFINE_integer("repeats", 5, "timed runs of each case", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "folder for throughput.jsonl; nothing is written without")
_TABLE = flags.DEFINE_string("table", None, "print the table of this file, and run nothing")


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def settled(run: Callable[[], object], brief: float = 5.0) -> float:
    """Wall time of one run; of a brief one, of a second after it.

    Programs alternate. After another's run memory is still being handed back, and threads of his may
    wait in a loop: a step of a network took up to twice its time.
    """
    first = seconds(run)
    return first if first > brief else seconds(run)


def ceilings() -> tuple[float, float, float]:
    """Flops a second of a large product in float32 and in bfloat16, bytes a second of a large copy."""
    import jax
    import jax.numpy as jnp

    side = 2048
    whole = jnp.ones((side, side), jnp.float32)
    product = functools.partial(
        jnp.dot, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )
    block = jnp.ones(1 << 26, jnp.float32)
    work = (
        functools.partial(jax.jit(lambda a: product(a, a)), whole),
        functools.partial(jax.jit(lambda a: product(a, a)), whole.astype(jnp.bfloat16)),
        functools.partial(jax.jit(lambda x: x + 1), block),
    )
    jax.block_until_ready([run() for run in work])

    def settles(run: Callable[[], object]) -> float:
        return statistics.median(seconds(lambda: jax.block_until_ready(run())) for _ in range(7))

    spent = [settles(run) for run in work]
    return 2 * side**3 / spent[0], 2 * side**3 / spent[1], 2 * block.nbytes / spent[2]


def measure(name: str) -> dict[str, object]:
    """The record of one case."""
    import jax

    spent = dict.fromkeys(_PHASES.values(), 0.0)

    def listen(event: str, duration: float, **_: object) -> None:
        if event in _PHASES:
            spent[_PHASES[event]] += duration

    case = getattr(importlib.import_module(f"benchmarks.cases.{CASES[name]}"), name)(_N.value)
    jax.monitoring.register_event_duration_secs_listener(listen)
    first = seconds(case.run)
    phases = {phase: round(value, 3) for phase, value in spent.items()}
    case.check()
    peers = case.peers if _PEERS.value else {}
    for peer in peers.values():
        peer.run()
    ours: list[float] = []
    theirs: dict[str, list[float]] = {peer: [] for peer in peers}
    for _ in range(_REPEATS.value):
        ours.append(settled(case.run))
        for peer_name, peer in peers.items():
            theirs[peer_name].append(settled(peer.run))
    middle = statistics.median(ours)
    record: dict[str, object] = {
        "case": name,
        "unit": case.unit,
        "items": case.items,
        "items_per_s": round(case.items / middle, 1),
        "median_s": round(middle, 4),
        "spread_s": [round(min(ours), 4), round(max(ours), 4)],
        "first_s": round(first, 4),
        **phases,
        "peak_MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    most, most_half, widest = ceilings()
    shares = []
    flops = case.flops() if callable(case.flops) else case.flops
    if flops is not None:
        record["gflops_per_s"] = round(flops / middle / 1e9, 1)
        shares.append(flops / middle / most)
        if case.half:
            record["share_of_half_ceiling"] = round(flops / middle / most_half, 3)
    if case.bytes is not None:
        record["gbytes_per_s"] = round(case.bytes / middle / 1e9, 2)
        shares.append(case.bytes / middle / widest)
    if shares:
        record["share_of_ceiling"] = round(max(shares), 3)
    record["ceiling_gflops_per_s"] = round(most / 1e9, 1)
    record["ceiling_half_gflops_per_s"] = round(most_half / 1e9, 1)
    record["ceiling_gbytes_per_s"] = round(widest / 1e9, 1)
    record["peers"] = {
        peer: {
            "items_per_s": round(peers[peer].items / statistics.median(times), 2),
            "spread_s": [round(min(times), 4), round(max(times), 4)],
            "ours_is_times": round(
                case.items / middle / (peers[peer].items / statistics.median(times)), 2
            ),
        }
        for peer, times in theirs.items()
    }
    return record | machine()


def machine() -> dict[str, object]:
    """Device, cores, versions and the day."""
    import jax

    packages = ("jax", "jaxlib", "flax", "numpy", "scikit-image", "faiss-cpu", "torch", "monai")
    versions = {}
    for package in (*packages, "SimpleITK", "scikit-learn"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "n": _N.value,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "versions": versions,
        "day": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def table(records: list[dict]) -> str:
    """The newest record of each case, as Markdown."""
    newest = {record["case"]: record for record in records}
    lines = ["| case | rate | share of the ceiling | beside |", "|---|---|---|---|"]
    for r in newest.values():
        share = f"{r['share_of_ceiling']:.0%}" if "share_of_ceiling" in r else ""
        if "share_of_half_ceiling" in r:
            share += f", {r['share_of_half_ceiling']:.0%} of bfloat16's"
        beside = ", ".join(f"{p['ours_is_times']:g} x {name}" for name, p in r["peers"].items())
        rate = r["items_per_s"]
        shown = f"{rate:,.0f}" if rate < 1e6 else f"{rate:.2e}"
        lines.append(f"| `{r['case']}` | {shown} {r['unit']}/s | {share} | {beside} |")
    return "\n".join(lines)


def alone(name: str) -> dict:
    """One case in a process of its own: its peak memory is its own, and so are its caches."""
    given = [f"--case={name}", f"--n={_N.value}", f"--repeats={_REPEATS.value}"]
    given += [] if _PEERS.value else ["--nopeers"]
    given += [f"--platform={_PLATFORM.value}"] if _PLATFORM.value else []
    out = subprocess.run(
        [sys.executable, __file__, *given],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        # As the command does: else programs are by chance up to three times slower, and so are peers.
        env=os.environ | {memory.VARIABLE: memory.KEPT},
    ).stdout
    return json.loads(next(line for line in out.splitlines() if line.startswith("{")))


def main(_: list[str]) -> None:
    if _TABLE.value:
        print(table([json.loads(line) for line in Path(_TABLE.value).read_text().splitlines()]))
        return
    if _PLATFORM.value:
        os.environ["JAX_PLATFORMS"] = _PLATFORM.value
    names = _CASE.value or list(CASES)
    records = []
    for name in names:
        inside = os.environ.get(memory.VARIABLE) == memory.KEPT
        records.append(measure(name) if inside and len(names) == 1 else alone(name))
        print(json.dumps(records[-1]), flush=True)
        keep(records[-1], _OUT.value, "throughput")
    print("\n" + table(records))


if __name__ == "__main__":
    app.run(main)
