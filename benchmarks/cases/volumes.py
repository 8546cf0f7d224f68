"""The voxel level of the search for replicas, as many volumes as in the published case."""

import atexit
import functools
import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.cases.case import Case
from benchmarks.kept import COMMAND, journal
from benchmarks.methods.volume_levels import best_by_level
from deepssim_jax.ops.volume_grid import Geometry
from deepssim_jax.scoring.volume_match import Reference, match_volumes
from deepssim_jax.scoring.volume_measure import MatchSettings
from deepssim_jax.scoring.volume_search import Level, VolumeSide
from deepssim_jax.workspace import Entries, Made, Workspace

_SIZE = (64, 64, 64)
_CHUNK = 32


def _pixels(folder: Path, count: int, seed: int, copied: dict[int, int]) -> Entries:
    """Smooth random volumes on the disk, as `data.store` leaves them; some are noisy copies."""

    def make(rows: np.ndarray) -> Made:
        chosen = [copied.get(int(row), 1_000_000 * seed + int(row)) for row in rows]
        volumes = np.stack([_volume(identity) for identity in chosen])
        if copied:
            noise = np.random.default_rng(int(rows[0])).integers(-1500, 1500, volumes.shape)
            volumes = np.clip(volumes + noise, 0, 65535).astype(np.uint16)
        return Made({"pixels": volumes})

    ids = [f"v{row:05d}" for row in range(count)]
    with Workspace.open(folder, command=COMMAND) as workspace:
        return workspace.cache("pixels", [seed, count], code=_volume).compute(
            ids, make, block=_CHUNK
        )


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
    pixels = (
        _pixels(root / "synthetic", queries, 1, copied),
        _pixels(root / "real", references, 0, {}),
    )
    sides = [
        VolumeSide(
            take=functools.partial(held.take, "pixels"),
            shape=_SIZE,
            groups=np.arange(len(held)),
            geometry=Geometry.filled(len(held), _SIZE[0]),
        )
        for held in pixels
    ]
    number = itertools.count()

    def ours() -> np.ndarray:
        with journal(root / f"journal{next(number)}") as kept:
            settings = MatchSettings()
            known = Reference.of(sides[1], alignment=settings.alignment, journal=kept)
            return match_volumes(sides[0], known, settings=settings, journal=kept)

    def check() -> None:
        best = best_by_level(ours(), queries)[Level.VOXEL]
        assert all(best["reference"][row] == copied[row] for row in copied)
        rest = np.setdiff1d(np.arange(queries), list(copied))
        assert best["body_ncc"][list(copied)].min() > best["body_ncc"][rest].max()

    return Case("replicas_voxel", "pairs", queries * references, ours, check)
