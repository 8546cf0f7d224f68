"""The voxel level of the search for replicas, as many volumes as in the published case."""

import atexit
import itertools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.cases.case import Case
from deepssim_jax.data.store import ImageStore
from deepssim_jax.scoring.volume_match import MatchSettings, best_by_level, match_volumes
from deepssim_jax.scoring.volume_search import Level, VolumeSide
from deepssim_jax.workspace.files import write_array, write_bytes

_SIZE = (64, 64, 64)
_CHUNK = 32


def _store(folder: Path, count: int, seed: int, copied: dict[int, int]) -> ImageStore:
    """Smooth random volumes on the disk, as `data.store` leaves them; some are noisy copies."""
    for first in range(0, count, _CHUNK):
        rows = range(first, min(first + _CHUNK, count))
        volumes = np.stack([_volume(copied.get(row, 1_000_000 * seed + row)) for row in rows])
        if copied:
            noise = np.random.default_rng(first).integers(-1500, 1500, volumes.shape)
            volumes = np.clip(volumes + noise, 0, 65535).astype(np.uint16)
        stem = folder / f"chunk-{first // _CHUNK:05d}"
        write_array(stem.with_suffix(".npy"), volumes)
        names = [[f"v{row:05d}", None, str(row)] for row in rows]
        content = {"images": names, "rejected": []}
        write_bytes(stem.with_suffix(".json"), json.dumps(content).encode())
    write_bytes(folder / "store.json", b'{"fingerprint": "benchmark"}')
    write_bytes(folder / "rejected.json", b"[]")
    return ImageStore.open(folder)


def _volume(identity: int) -> np.ndarray:
    """uint16: a body in the middle with coarse structure of its own."""
    coarse = np.random.default_rng(identity).standard_normal((16,) * 3)
    field = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)
    axis = np.linspace(-1, 1, 64)
    body = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2 < 0.7
    return np.where(body, np.clip(30_000 + 8_000 * field, 0, 65535), 0).astype(np.uint16)


def replicas_voxel(scale: float) -> Case:
    """50 x 1,782 volumes of 64 x 64 x 64 from the disk: both searches, alignment, all measures."""
    queries, references = max(4, round(50 * scale)), max(64, round(1782 * scale))
    root = Path(tempfile.mkdtemp(prefix="deepssim_throughput"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    copied = {row: 7 + 3 * row for row in range(0, queries, 2)}
    stores = (
        _store(root / "synthetic", queries, 1, copied),
        _store(root / "real", references, 0, {}),
    )
    sides = [VolumeSide(take=s.take, shape=_SIZE, groups=s.patients()) for s in stores]
    number = itertools.count()

    def ours() -> np.ndarray:
        journal = root / f"journal{next(number)}"
        return match_volumes(*sides, settings=MatchSettings(), journal=journal)

    def check() -> None:
        best = best_by_level(ours(), queries)[Level.VOXEL]
        assert all(best["reference"][row] == copied[row] for row in copied)
        rest = np.setdiff1d(np.arange(queries), list(copied))
        assert best["body_ncc"][list(copied)].min() > best["body_ncc"][rest].max()

    return Case("replicas_voxel", "pairs", queries * references, ours, check)
