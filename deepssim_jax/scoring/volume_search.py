"""All synthetic against all real volumes, at three levels, as one search of unit rows.

Contract: a `VolumeSide` is a set of n volumes in the order of their ids; pixels stay on disk and are
read by rows. At each level a volume is a row of unit norm, and the closest real volumes are those
of the largest product, exactly, streamed (`scoring.pairs.largest_products`):

  voxel         the z-scored volume over sqrt(voxels): the product is Pearson's correlation r, and the
                root mean square difference of two such volumes is sqrt(2 - 2 r). Once in place, at
                full resolution, and once by pose: at half of it, every volume centred on its body, the
                queries in 27 rotations, of which the best one counts;
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

from deepssim_jax.ops import products
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.resample import blur_matrix, warp_affine
from deepssim_jax.ops.search_rigid import RigidGrid
from deepssim_jax.scoring.pairs import Rows, largest_products
from deepssim_jax.scoring.tiles import Tiling
from deepssim_jax.typing import Array
from deepssim_jax.workspace import Section

# Rows are as long as a volume has voxels: few of them fill a cache, and a GiB holds a thousand.
_TILING = Tiling(rows=64, tile=128, resident_bytes=1 << 30)
_BATCH = 16
_CELLS = 16  # coarse cells along an axis of the segmentation level
# The search by pose: longest side, blur at full resolution, and 27 turns of -6, 0 and 6 degrees.
_SIDE, _SIGMA = 32, 1.0
_TURNS = RigidGrid(rotations=3, max_rotation_deg=6.0).matrices


class Level(enum.StrEnum):
    """Where two volumes are compared."""

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
            features=None if self.features is None else self.features[chosen],
            labels=None if labels is None else lambda rows: labels(chosen[rows]),
            occupancy=None if self.occupancy is None else self.occupancy[chosen],
        )


@jax.jit
def unit_rows(volumes: Array) -> Array:
    """Volumes [n, d, h, w] z-scored, flat and over sqrt(voxels): [n, d h w]."""
    flat = zscore(volumes, spatial_dims=3).reshape(volumes.shape[0], -1)
    return flat / np.sqrt(flat.shape[1])


@jax.jit
def posed_rows(volumes: Array, turns: Array) -> Array:
    """Rows of volumes [n, d, h, w] at low resolution, centred on their bodies, in turns [p, 3, 3].

    The body is what lies above the mean. float32 [n p, voxels], the turns of a volume side by side.
    """
    volumes = jnp.asarray(volumes, jnp.float32)
    factor = min(1.0, _SIDE / max(volumes.shape[1:]))
    for axis in (1, 2, 3):
        size = volumes.shape[axis]
        low = np.asarray(blur_matrix(size, _SIGMA))
        places = np.linspace(0, size - 1, round(size * factor))
        # Rows between two voxels: their blurs, interpolated.
        below = np.minimum(places.astype(int), size - 2)
        share = (places - below)[:, None].astype(np.float32)
        rows = jnp.asarray(low[below] * (1 - share) + low[below + 1] * share)
        volumes = jnp.moveaxis(products.tensordot(rows, volumes, axes=(1, axis)), 0, axis)
    normal = zscore(volumes, spatial_dims=3)
    body = (normal > 0).astype(jnp.float32)
    total = jnp.maximum(body.sum((1, 2, 3)), 1.0)
    centre = []
    for axis, size in enumerate(volumes.shape[1:]):
        rest = tuple(1 + other for other in range(3) if other != axis)
        at = jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2
        centre.append(products.matmul(body.sum(rest), at) / total)
    n, p = volumes.shape[0], turns.shape[0]
    matrices = jnp.concatenate(
        [
            jnp.broadcast_to(turns[None], (n, p, 3, 3)),
            jnp.broadcast_to(jnp.stack(centre, -1)[:, None, :, None], (n, p, 3, 1)),
        ],
        -1,
    )
    moved = jax.lax.map(
        lambda item: warp_affine(jnp.broadcast_to(item[0][None], (p, *item[0].shape)), item[1]),
        (normal, matrices),
    )
    return unit_rows(moved.reshape(n * p, *volumes.shape[1:]))


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


def _posed(side: VolumeSide, turns: np.ndarray) -> np.ndarray:
    """float32 [n p, voxels] of a whole side: an eighth of its voxels, which fit into memory."""
    parts = [
        np.asarray(posed_rows(volumes, jnp.asarray(turns)))[: len(rows) * len(turns)]
        for rows, volumes in _batches(side, 0, len(side))
    ]
    return np.concatenate(parts)


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
        groups=(queries.groups, references.groups) if apart else None,
    )
    return _filled(found.indices, found.scores, k)


def _rows(side: VolumeSide, level: Level) -> Rows:
    held = {Level.FEATURE: side.features, Level.SEGMENTATION: side.occupancy}.get(level)
    if held is None and level is not Level.VOXEL:
        raise ValueError(f"a side has no {level.value} level, and the other one has")
    return VoxelRows(side) if held is None else held


def search_posed(
    queries: VolumeSide, references: VolumeSide, *, k: int, apart: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The k closest references at the voxel level, each query in its best rotation; see `search`."""
    still = np.eye(3, dtype=np.float32)[None]
    rows = _posed(references, still)
    # A reference among the k best over all turns is so in the turn that suits it best.
    wide, turns = min(k, len(references)), len(_TURNS)
    parts = []
    for first in range(0, len(queries), _BATCH):
        chosen = np.arange(first, min(first + _BATCH, len(queries)))
        turned = _posed(queries.rows(chosen), _TURNS)
        found = largest_products(
            turned,
            rows,
            k=wide,
            tiling=dataclasses.replace(_TILING, tile=4096),
            groups=(queries.groups[chosen].repeat(turns), references.groups) if apart else None,
        )
        parts.append([x.reshape(len(chosen), turns * wide) for x in (found.indices, found.scores)])
    indices, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((indices, -scores), axis=1)
    indices, scores = (np.take_along_axis(x, order, 1) for x in (indices, scores))
    best = np.full((len(queries), wide), -1, np.int32), np.full((len(queries), wide), -1.0)
    for row in range(len(queries)):
        first = np.sort(np.unique(indices[row], return_index=True)[1])[:wide]
        best[0][row, : len(first)] = indices[row, first]
        best[1][row, : len(first)] = scores[row, first]
    return _filled(*best, k)


def _filled(indices: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours as k columns: -1 stands in both where there is none."""
    missing = ((0, 0), (0, k - indices.shape[1]))
    scores = np.where(indices >= 0, scores, -1.0).astype(np.float32)
    return (
        np.pad(indices, missing, constant_values=-1),
        np.pad(scores, missing, constant_values=-1.0),
    )
