"""Pictures of pairs of volumes for the report: slices in three planes, as fine as the files are.

Contract: a pair is aligned on the grid of the search, and drawn from its files, read again on a grid of at
least `_SIDE` voxels a side, through that alignment. A frame is one picture: axial, coronal and sagittal from
top to bottom, the real volume, the synthetic one and their difference from left to right, head up. Each
volume is scaled by its own 0.5th and 99.5th percentile: a generator's unit is its own.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import ndimage

from deepssim_jax.audit.gallery import grey_bytes
from deepssim_jax.audit.replica_result import Kind, ReplicaResult, VolumeMatch
from deepssim_jax.data.manifest import Manifest, Record, Role
from deepssim_jax.data.store import ImageStore
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.ops.transform import Transform
from deepssim_jax.scoring.volume_match import Reference, shown_together
from deepssim_jax.scoring.volume_measure import Alignment
from deepssim_jax.scoring.volume_search import Level, VolumeSide

MAX_PAIRS, FRAMES = 24, 7
_SIDE = 160  # voxels
_REACH = 0.4  # of a volume on each side of its middle


@dataclasses.dataclass(frozen=True)
class Picture:
    """A pair to look at: `frames` uint8 [3 s, 3 s], through the volume; `inverted` says that the
    difference is that of exchanged intensities.
    """

    match: VolumeMatch
    level: Level
    frames: tuple[np.ndarray, ...]
    inverted: bool


@dataclasses.dataclass(frozen=True)
class PairDrawer:
    """Draws pairs of volumes from their files.

    `grid` is that of the search; `contrast` brings volumes of a grid to the intensities that are shown.
    """

    grid: VolumeSettings
    contrast: Callable[[np.ndarray, VolumeSettings], np.ndarray]

    def frames(
        self, fixed: Record, moving: Record, transform: Transform, box: np.ndarray
    ) -> tuple[tuple[np.ndarray, ...], bool]:
        """Pictures through one volume and another that is brought onto it, and whether their difference
        is that of exchanged intensities.

        Args:
          fixed: the file that is drawn as it lies.
          moving: the other one.
          transform: where in the other one, on the grid of the search, each place of the first lies.
          box: [3], how many voxels of that grid the first one fills.
        """
        coarse = self.grid.size[0]
        side = max(_SIDE, coarse)
        finer = side / coarse
        spacing = None if self.grid.spacing is None else self.grid.spacing / finer
        grid = dataclasses.replace(self.grid, size=(side,) * 3, spacing=spacing)
        stored = [np.asarray(grid.load(x)["pixels"], np.float32) for x in (fixed, moving)]
        volumes = [np.asarray(self.contrast(x[None], grid))[0] for x in stored]
        first, second = [], []
        for places in _planes(side, box * finer):
            middle = (side - 1) / 2
            there = _moved(places, transform, finer) + middle
            first.append(_sampled(volumes[0], places + middle))
            second.append(_sampled(volumes[1], there))
        still, moved = _unit(np.stack(first)), _unit(np.stack(second))
        inverted = bool(((still - still.mean()) * (moved - moved.mean())).sum() < 0)
        difference = np.clip(0.5 + (1 - moved if inverted else moved) - still, 0, 1)
        # Planes lie below each other, and columns beside.
        drawn = np.stack([still, moved, difference]).reshape(3, FRAMES, 3, side, side)
        frames = grey_bytes(drawn.transpose(1, 2, 3, 0, 4)).reshape(FRAMES, 3 * side, 3 * side)
        return tuple(frames), inverted


@dataclasses.dataclass(frozen=True)
class Drawer:
    """What pictures are made of: both sides as they were searched, and their files.

    `grid` and `contrast` as for `PairDrawer`.
    """

    sides: Mapping[Role, VolumeSide]
    references: Reference
    stores: Mapping[Role, ImageStore]
    manifests: Mapping[Role, Manifest]
    grid: VolumeSettings
    contrast: Callable[[np.ndarray, VolumeSettings], np.ndarray]
    alignment: Alignment

    def gallery(self, result: ReplicaResult) -> list[Picture]:
        """Pictures of what is disputed, then of replicas, surest first; without any, the closest pairs."""
        matches = list(flagged(result)) or [m for m in result.matches if m.levels]
        matches.sort(
            key=lambda m: (not m.disputed, m.levels[shown_level(m)].p_value, m.synthetic_id)
        )
        return [self._drawn(match) for match in matches[:MAX_PAIRS]]

    def _drawn(self, match: VolumeMatch) -> Picture:
        level = shown_level(match)
        names = {Role.REAL: match.levels[level].real_id, Role.SYNTHETIC: match.synthetic_id}
        rows = {role: self.stores[role].image_ids.index(name) for role, name in names.items()}
        transform = shown_together(
            self.sides[Role.SYNTHETIC],
            self.references,
            query=rows[Role.SYNTHETIC],
            reference=rows[Role.REAL],
            alignment=self.alignment,
        ).transform
        records = {
            role: next(r for r in self.manifests[role].records if r.image_id == name)
            for role, name in names.items()
        }
        frames, inverted = PairDrawer(self.grid, self.contrast).frames(
            records[Role.REAL],
            records[Role.SYNTHETIC],
            transform,
            self.sides[Role.REAL].geometry.box[rows[Role.REAL]],
        )
        return Picture(match, level, frames, inverted)


def flagged(result: ReplicaResult) -> tuple[VolumeMatch, ...]:
    """What people should look at."""
    return tuple(m for m in result.matches if m.kind is Kind.REPLICA or m.disputed)


def shown_level(match: VolumeMatch) -> Level:
    """The level whose closest volume stands for a match: the one that says the most, by its p-value."""
    order = list(Kind)
    return min(
        match.levels,
        key=lambda level: (order.index(match.levels[level].kind), match.levels[level].p_value),
    )


def _planes(side: int, box: np.ndarray) -> Sequence[np.ndarray]:
    """Centred positions [3, side, side] of each frame's three planes in turn."""
    axis = np.arange(side) - (side - 1) / 2
    out = []
    for share in np.linspace(-_REACH, _REACH, FRAMES):
        for plane in range(3):
            rows, columns = (i for i in range(3) if i != plane)
            place = np.zeros((3, side, side))
            place[plane] = share * box[plane]
            # Coronal and sagittal slices have the head up.
            place[rows] = (axis if plane == 0 else axis[::-1])[:, None]
            place[columns] = axis[None]
            out.append(place)
    return out


def _moved(places: np.ndarray, transform: Transform, finer: float) -> np.ndarray:
    """Where a transformation of the coarse grid reads places [3, y, x] of a finer one."""
    matrix, shift, signs = (
        np.asarray(x)[0] for x in (transform.matrix, transform.shift, transform.signs)
    )
    moved = np.einsum("ij,jyx->iyx", matrix, places) + finer * shift[:, None, None]
    return signs[:, None, None] * moved


def _sampled(volume: np.ndarray, places: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(volume, places, order=1, mode="nearest")


def _unit(images: np.ndarray) -> np.ndarray:
    low, high = np.percentile(images, (0.5, 99.5))
    return np.clip((images - low) / max(float(high - low), 1e-6), 0, 1)
