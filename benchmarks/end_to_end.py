"""Seconds and memory of whole audits, each in a process of its own.

    python benchmarks/end_to_end.py --out=/tmp/end_to_end

Makes images of nobody (procedural chests and copies of some), audits them once to compile, then
again into fresh folders, then once more with nothing left to do. A few minutes on two cores.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

from deepssim_jax.data import phantom_bodies
from deepssim_jax.data.pictures import write_png
from deepssim_jax.scoring import plant

OUT = flags.DEFINE_string("out", None, "folder for images, audits and the record", required=True)
N = flags.DEFINE_integer("n", 500, "images on either side", lower_bound=50)
SIZE = flags.DEFINE_integer("size", 256, "their side in pixels")
RUNS = flags.DEFINE_integer("runs", 3, "timed runs", lower_bound=1)


def make_images(folder: Path, n: int, size: int) -> None:
    """`real/`: n chests; `synthetic/`: n others, every tenth a copy of a real one."""
    for name, seed in (("real", 0), ("synthetic", 1)):
        for start in range(0, n, 50):
            key = jax.random.fold_in(jax.random.key(seed), start)
            images = np.asarray(phantom_bodies.chests(key, 50, size=(size, size)))
            if name == "real":
                first = images[::10]
                copies = plant.exact_copies(first, seed=start)
            for row, image in enumerate(images):
                if name == "synthetic" and row % 10 == 0:
                    continue
                write_png(folder / name / f"{name}_{start + row:04d}.png", stretched(image))
            if name == "real":
                for row, image in enumerate(copies):
                    path = folder / "synthetic" / f"copy_{start + row:04d}.png"
                    write_png(path, stretched(image))


def stretched(image: np.ndarray) -> np.ndarray:
    """An image on [0, 1]."""
    return (image - image.min()) / np.ptp(image)


def audit(images: Path, out: Path) -> tuple[float, float]:
    """Seconds and peak MiB of one audit."""
    command = [sys.executable, "-m", "deepssim_jax", "audit", f"--out={out}"]
    command += [f"--{side}={images / side}" for side in ("real", "synthetic")]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"the audit ended with status {status}")
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


def main(_: list[str]) -> None:
    root = Path(OUT.value)
    shutil.rmtree(root, ignore_errors=True)
    make_images(root / "images", N.value, SIZE.value)
    first = audit(root / "images", root / "compile")
    runs = [audit(root / "images", root / f"run{k}") for k in range(RUNS.value)]
    again = audit(root / "images", root / "run0")
    record = {
        "images": f"{N.value} x {N.value} of {SIZE.value} x {SIZE.value}",
        "cores": os.cpu_count(),
        "first_run_s": round(first[0], 1),
        "compiled_s": round(statistics.median(seconds for seconds, _ in runs), 1),
        "compiled_all_s": [round(seconds, 1) for seconds, _ in runs],
        "nothing_to_do_s": round(again[0], 1),
        "peak_MiB": round(max(peak for _, peak in [first, *runs])),
        "jax": jax.__version__,
    }
    (root / "record.jsonl").write_text(json.dumps(record) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    app.run(main)
