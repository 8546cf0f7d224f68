"""All synthetic against all real volumes, at up to four levels, as searches of unit rows.

Contract: a `VolumeSide` is a set of n volumes in the order of their ids; pixels stay on disk and are
read by rows. At each level a volume is a row of unit norm, and the closest real volumes are those
of the largest product, exactly, streamed (`scoring.pairs.largest_products`):

  points        keypoints that lie alike, in any pose (`volume_points`); not searched by rows;
  voxel         the z-scored volume over sqrt(voxels): the product is Pearson's correlation r, and the
                root mean square difference of two such volumes is sqrt(2 - 2 r). In place;
                `volume_points` and `volume_poses` find volumes in any pose;
  feature       the embedding: the product is the cosine;
  segmentation  how much of each label lies in each coarse cell, one unit row a label side by side:
                the product is near the mean Dice coefficient, which has the arithmetic mean of two
                sizes where the product has the geometric one.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax import parallel
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.volume_grid import Geometry
from deepssim_jax.scoring.pairs import Rows, largest_products
from deepssim_jax.scoring.tiles import Tiling
from deepssim_jax.typing import Array
from deepssim_jax.workspace import Section

# Rows are as long as a volume has voxels: few of them fill a cache, and a GiB holds a thousand.
_TILING = Tiling(rows=64, tile=128, resident_bytes=1 << 30)
_BATCH = 16
_CELLS = 16  # coarse cells along an axis of the segmentation level


class Level(enum.StrEnum):
    """Where two volumes are compared."""

    POINTS = "points"
    VOXEL = "voxel"
    FEATURE = "feature"
    SEGMENTATION = "segmentation"


@dataclasses.dataclass(frozen=True)
class VolumeSide:
    """One set of n volumes.

    `take(rows)` gives real [k, d, h, w], `groups` int [n] the patient of each. `features` float32
    [n, e] of unit norm; `labels(rows)` gives integers [k, d, h, w] and `occupancy` float32 [n, c] what
    `occupancy_of` makes of them; each is None where that level is not looked at.
    """

    take: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, int, int]
    groups: np.ndarray
    geometry: Geometry
    features: np.ndarray | None = None
    labels: Callable[[np.ndarray], np.ndarray] | None = None
    occupancy: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels at which these volumes can be compared."""
        held = {Level.FEATURE: self.features, Level.SEGMENTATION: self.occupancy}
        return tuple(level for level in Level if held.get(level, self.take) is not None)

    def rows(self, chosen: np.ndarray) -> "VolumeSide":
        """The side of the chosen rows."""
        labels = self.labels
        return VolumeSide(
            take=lambda rows: self.take(chosen[rows]),
            shape=self.shape,
            groups=self.groups[chosen],
            geometry=self.geometry[chosen],
            features=None if self.features is None else self.features[chosen],
            labels=None if labels is None else lambda rows: labels(chosen[rows]),
            occupancy=None if self.occupancy is None else self.occupancy[chosen],
        )


@jax.jit
def unit_rows(volumes: Array) -> Array:
    """Volumes [n, d, h, w] z-scored, flat and over sqrt(voxels): [n, d h w]."""
    flat = zscore(volumes, spatial_dims=3).reshape(volumes.shape[0], -1)
    return flat / np.sqrt(flat.shape[1])


@functools.partial(jax.jit, static_argnames="labels")
def occupancy_of(maps: Array, *, labels: tuple[int, ...]) -> Array:
    """Label maps [n, d, h, w] to unit rows [n, labels cells]; a label that is absent gives zeros."""
    out = []
    for label in labels:
        share = (maps == label).astype(jnp.float32)
        coarse = jax.image.resize(share, (len(share), *(_CELLS,) * 3), "linear", antialias=True)
        flat = coarse.reshape(len(share), -1)
        norm = jnp.linalg.norm(flat, axis=1, keepdims=True)
        out.append(flat / jnp.maximum(norm, 1e-9))
    return jnp.concatenate(out, 1) / np.sqrt(len(labels))


@dataclasses.dataclass(frozen=True)
class VoxelRows:
    """The volumes of a side as rows that `nearest` reads by slices."""

    side: VolumeSide

    @property
    def shape(self) -> tuple[int, int]:
        """(volumes, voxels)."""
        return len(self.side), int(np.prod(self.side.shape))

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self.side))
        out = np.empty((max(stop - start, 0), self.shape[1]), np.float32)
        for batch, volumes in _batches(self.side, start, stop):
            out[batch - start] = np.asarray(unit_rows(volumes))[: len(batch)]
        return out


def _batches(side: VolumeSide, start: int, stop: int) -> Iterator[tuple[np.ndarray, Array]]:
    """Rows and their volumes, as many each time, so that nothing compiles twice."""
    for first in range(start, stop, _BATCH):
        rows = np.arange(first, min(first + _BATCH, stop))
        yield rows, jnp.asarray(side.take(np.resize(rows, _BATCH)))


def search(
    queries: VolumeSide,
    references: VolumeSide,
    *,
    level: Level,
    k: int,
    apart: bool = False,
    journal: Section | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k closest references of each query at one level; ties go to the smaller index.

    Args:
      queries: what is looked up.
      references: where.
      level: see the module; the voxel level in place.
      k: how many.
      apart: leave out references of the query's own group.
      journal: see `nearest`.

    Returns:
      int32 [n, k] rows of the references, -1 where there are fewer, and float32 [n, k] products.
    """
    pair = [_rows(side, level) for side in (queries, references)]
    tiling = _TILING if level is Level.VOXEL else dataclasses.replace(_TILING, tile=4096)
    found = largest_products(
        *pair,
        k=min(k, len(references)),
        tiling=tiling,
        journal=journal,
        mesh=parallel.own_mesh(),
        groups=(queries.groups, references.groups) if apart else None,
    )
    return _filled(found.indices, found.scores, k)


def _rows(side: VolumeSide, level: Level) -> Rows:
    held = {Level.FEATURE: side.features, Level.SEGMENTATION: side.occupancy}.get(level)
    if held is None and level is not Level.VOXEL:
        raise ValueError(f"a side has no {level.value} level, and the other one has")
    return VoxelRows(side) if held is None else held


def _filled(indices: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours as k columns: -1 stands in both where there is none."""
    missing = ((0, 0), (0, k - indices.shape[1]))
    scores = np.where(indices >= 0, scores, -1.0).astype(np.float32)
    return (
        np.pad(indices, missing, constant_values=-1),
        np.pad(scores, missing, constant_values=-1.0),
    )
