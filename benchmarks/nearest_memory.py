"""Memory and time of one exact search that outgrows memory: a million queries, 100,000 references.

    python benchmarks/nearest_memory.py --out=/tmp/nearest_memory

Both sides are memory maps (1.1 GB on the disk), finished blocks are journalled, and 50 queries are
compared with float64. Seeds are 0 and 1. About six minutes on two cores.
"""

import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from absl import app, flags

from benchmarks.kept import journal
from benchmarks.methods.rows_on_disk import open_rows
from deepssim_jax.scoring.pairs import nearest

_OUT = flags.DEFINE_string("out", None, "folder for maps, journal and record", required=True)
_N = flags.DEFINE_integer("n", 1_000_000, "queries", lower_bound=1)
_M = flags.DEFINE_integer("m", 100_000, "references", lower_bound=10)
_DIM = 256


def make(path: Path, rows: int, seed: int) -> None:
    """Random unit rows, written in pieces."""
    rng = np.random.default_rng(seed)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (rows, _DIM))
    for start in range(0, rows, 50_000):
        part = rng.standard_normal((min(50_000, rows - start), _DIM), np.float32)
        out[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    out.flush()


def main(_: list[str]) -> None:
    folder = Path(_OUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    sides = []
    for seed, (name, rows) in enumerate((("queries", _N.value), ("references", _M.value))):
        make(folder / f"{name}.npy", rows, seed)
        sides.append(open_rows(folder / f"{name}.npy"))
    start = time.perf_counter()
    with journal(folder / "journal") as kept:
        found = nearest(*sides, k=10, journal=kept)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = np.linspace(0, _N.value - 1, 50).astype(int)
    exact = np.asarray(sides[0][rows], np.float64) @ np.asarray(sides[1], np.float64).T
    named = np.take_along_axis(exact, found.indices[rows].astype(int), axis=1)
    np.testing.assert_allclose(named, -np.sort(-exact, axis=1)[:, :10], atol=1e-6)
    record = {
        "queries": _N.value,
        "references": _M.value,
        "seconds": round(seconds, 1),
        "pairs_per_s": round(_N.value * _M.value / seconds),
        "peak_MiB": round(peak),
    }
    print(json.dumps(record))
    (folder / "record.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    app.run(main)
