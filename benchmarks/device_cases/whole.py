"""The whole audit on phantoms, files read to report written, at growing sizes up to the study's."""

import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from benchmarks.device_cases.section import Work
from deepssim_jax.audit.audit import audit as run_audit
from deepssim_jax.data import phantom_chests
from deepssim_jax.data.pictures import png

_SIDE, _BATCH = 128, 512


def _write(folder: Path, *, first: int, count: int, seed: int, side: int) -> None:
    """`count` chests from number `first`, each a PNG; some threads compress them."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        for start in range(first, first + count, _BATCH):
            key = jax.random.fold_in(jax.random.key(seed), start)
            made = np.asarray(phantom_chests.chests(key, _BATCH, size=(side, side)))
            rows = range(min(_BATCH, first + count - start))
            made = (made - made.min((1, 2), keepdims=True)) / np.ptp(made, (1, 2))[:, None, None]
            names = [folder / f"{start + row:06d}.png" for row in rows]
            # Nothing has to outlive the machine: no waiting for its disk.
            list(pool.map(lambda path, image: path.write_bytes(png(image)), names, made))


class _Phases:
    """Seconds that each named part of a run took, from its reports of progress."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, done: int, total: int, what: str) -> None:
        now = time.perf_counter()
        spent = self.seconds.get(what, 0.0) + now - self._last
        self.seconds[what], self._last = round(spent, 2), now


def audit(tiny: bool) -> Iterator[Work]:
    """2,195 real and up to 65,850 synthetic images; each size is told apart by its phases."""
    real, side, batches = (8, _SIDE, (8,)) if tiny else (2_195, _SIDE, (512, 8_192, 65_850))
    root = Path(tempfile.mkdtemp(prefix="deepssim_device"))
    try:
        _write(root / "real", first=0, count=real, seed=0, side=side)
        for before, count in itertools.pairwise((0, *batches)):
            _write(root / "synthetic", first=before, count=count - before, seed=1, side=side)
            phases, out = _Phases(), root / f"out{count}"

            def run(phases=phases, out=out) -> None:
                run_audit(root / "real", root / "synthetic", out=out, on_progress=phases)

            sizes = {"real": real, "synthetic": count, "side": side, "phases_s": phases.seconds}
            yield Work("audit", "pairs", real * count, run, sizes, once=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
