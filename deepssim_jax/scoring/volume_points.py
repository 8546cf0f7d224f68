"""Volumes looked up in any pose: by keypoints that lie alike, and by a coarse search of 48 poses.

Contract: a `VolumeIndex` holds the keypoints (`ops.volume_keypoints`) and the coarse structure
(`ops.volume_poses`) of every reference on two grids (`ops.volume_grid`); a query is seen on both, and
its keypoints once more as if it were a part of a larger field of view, because crops are often saved
without their spacing. `vote` gives, for every query and reference, evidence (weight of the
correspondences that agree on one affine map) and that map in voxels of the stored cubes; and the same
of the coarse search, which finds what is too smooth or too small for keypoints.
"""

import concurrent.futures
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import products, volume_poses
from deepssim_jax.ops.volume_keypoints import SIZE, keypoints
from deepssim_jax.ops.volume_votes import KEPT, agreeing
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.volume_search import VolumeSide
from deepssim_jax.typing import Array
from deepssim_jax.workspace import Section

# A query's grids: (of a reference, how much coarser than it the query is seen).
VIEWS = ((0, 1.0), (1, 1.0), (1, 1 / 0.7))
_GRIDS = 2
_BATCH, _BLOCK, _PART, _THREADS = 8, 32, 64, 2
_CHECKED = 64  # references whose correspondences are fitted, those of most weight
_COMMON = 0.75  # what is alike in so many references tells none of them
_ASKED = 16  # references that say of a reference what is common
_RIDGE, _TRIVIAL = 2e-3, 1e-3


@dataclasses.dataclass(frozen=True)
class Basis:
    """Whitening of descriptors: rows are (x - mean) @ axes, of unit norm afterwards."""

    mean: np.ndarray
    axes: np.ndarray

    @classmethod
    def of(cls, descriptors: np.ndarray) -> "Basis":
        """Learned of descriptors [n, d]."""
        mean = descriptors.mean(0, dtype=np.float64)
        spread = np.cov((descriptors - mean).T)
        values, vectors = np.linalg.eigh(spread)
        axes = vectors / np.sqrt(np.maximum(values, 0) + _RIDGE * values.max() + 1e-12)
        return cls(mean.astype(np.float32), axes.astype(np.float32))

    def apply(self, descriptors: np.ndarray) -> np.ndarray:
        """float32 rows of unit norm of descriptors [..., d]."""
        rows = (descriptors.astype(np.float32) - self.mean) @ self.axes
        return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)


@dataclasses.dataclass(frozen=True)
class Found:
    """Of each query and reference: `evidence` float32 [n, r] of keypoints, 0 where it was not looked
    at; of it `exact` [n, r] is the share that lies to half a point, and `own` [n, r] what the poorer of
    the two would have for itself; `matrix` [n, r, 3, 3] and `shift` [n, r, 3] take positions of the
    reference's stored cube to the query's. `posed`, `posed_matrix` and `posed_shift` are those of the
    search of poses.
    """

    evidence: np.ndarray
    exact: np.ndarray
    own: np.ndarray
    matrix: np.ndarray
    shift: np.ndarray
    posed: np.ndarray
    posed_matrix: np.ndarray
    posed_shift: np.ndarray

    @classmethod
    def nothing(cls, n: int, r: int) -> "Found":
        """Of n queries and r references, before anything was found."""

        def none(*shape: int) -> np.ndarray:
            return np.zeros((n, r, *shape), np.float32)

        still = [np.tile(np.eye(3, dtype=np.float32), (n, r, 1, 1)) for _ in range(2)]
        return cls(none(), none(), none(), still[0], none(3), none(), still[1], none(3))


@dataclasses.dataclass(frozen=True)
class VolumeIndex:
    """Keypoints of n references on both grids: `places` [n, 2, k, 3], `descriptors` [n, 2, k, d]
    whitened, `valid` [n, 2, k]; `own` [n, 2], the evidence that each has for itself, about; `coarse`
    [n, 2, points] of unit norm; `steps` [n, 2, 3] of the grids, whose side is `field_mm`.
    """

    places: np.ndarray
    descriptors: np.ndarray
    valid: np.ndarray
    own: np.ndarray
    coarse: np.ndarray
    steps: np.ndarray
    field_mm: float | None
    basis: Basis

    @classmethod
    def build(
        cls,
        references: VolumeSide,
        *,
        journal: Section,
        on_progress: Progress = lambda done, total, what: None,
    ) -> "VolumeIndex":
        """Describes every reference; what it finds is kept in the journal, by blocks."""
        field_mm = references.geometry.field_mm
        steps = references.geometry.steps(SIZE, field_mm)

        def block(rows: np.ndarray) -> dict[str, np.ndarray]:
            parts = [
                (
                    *_described(references, rows, steps[rows, grid]),
                    np.asarray(
                        volume_poses.unit(jnp.asarray(_coarse(references, rows, steps[rows, grid])))
                    ),
                )
                for grid in range(_GRIDS)
            ]
            names = ("places", "descriptors", "valid", "coarse")
            return {
                name: np.stack(column, 1)
                for name, column in zip(names, zip(*parts, strict=True), strict=True)
            }

        found = journal.by_rows(
            "keypoints",
            [steps],
            block,
            count=len(references),
            block=_BLOCK,
            on_progress=on_progress,
            what="keypoints of the real volumes",
        )
        raw, valid = np.asarray(found["descriptors"]), np.asarray(found["valid"])
        known = raw[valid]
        basis = Basis.of(known if len(known) > 1 else np.zeros((2, raw.shape[-1]), np.float32))
        descriptors = basis.apply(raw)
        return cls(
            np.asarray(found["places"]),
            descriptors,
            valid,
            _own(descriptors, valid),
            np.asarray(found["coarse"]),
            steps,
            field_mm,
            basis,
        )

    def vote(self, queries: VolumeSide) -> Found:
        """Looks all volumes of a side up among all references."""
        n, rows = len(queries), np.arange(len(queries))
        out = Found.nothing(n, len(self.places))
        if not n:
            return out
        steps = queries.geometry.steps(SIZE, self.field_mm)
        # Each query writes rows of its own.
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            for grid, coarser in VIEWS:
                step = steps[:, grid] * np.float32(coarser)
                places, raw, valid = _described(queries, rows, step)
                seen = zip(rows, places, self.basis.apply(raw), valid, step, strict=True)
                list(pool.map(lambda item, grid=grid: self._into(out, grid, *item), seen))
            for grid in range(_GRIDS):
                fields = _coarse(queries, rows, steps[:, grid])
                looked = zip(rows, fields, steps[:, grid], strict=True)
                list(pool.map(lambda item, grid=grid: self._pose_into(out, grid, *item), looked))
        return out

    def _pose_into(
        self, out: Found, grid: int, row: int, field: np.ndarray, step: np.ndarray
    ) -> None:
        """Writes what the search of poses finds on one grid, where that is more than before."""
        found = volume_poses.best_poses(jnp.asarray(field), jnp.asarray(self.coarse[:, grid]))
        score, pose, shift = (np.asarray(x) for x in found)
        better = np.flatnonzero(score > out.posed[row])
        matrix, move = volume_poses.pose_maps(pose[better], shift[better])
        wide = SIZE / volume_poses.SIZE
        out.posed[row, better] = score[better]
        out.posed_matrix[row, better] = step[:, None] * matrix / self.steps[better, grid][:, None]
        out.posed_shift[row, better] = step * wide * move

    def _into(
        self,
        out: Found,
        grid: int,
        row: int,
        places: np.ndarray,
        descriptors: np.ndarray,
        valid: np.ndarray,
        step: np.ndarray,
    ) -> None:
        """Writes what one query's view finds, where that is more than the view before did."""
        fixed, weight, own = self._correspondences(grid, descriptors, valid)
        chosen = np.sort(np.argsort(-weight.sum(1), kind="stable")[:_CHECKED])
        found = agreeing(jnp.asarray(places), *_padded(fixed[chosen], weight[chosen], _CHECKED))
        evidence = np.asarray(found.evidence)[: len(chosen)]
        better = evidence > out.evidence[row, chosen]
        there = chosen[better]
        linear = np.asarray(found.matrix)[: len(chosen)][better]
        out.evidence[row, there] = evidence[better]
        out.exact[row, there] = np.asarray(found.exact)[: len(chosen)][better]
        out.own[row, there] = np.minimum(own, self.own[there, grid])
        out.matrix[row, there] = step[:, None] * linear / self.steps[there, grid][:, None]
        out.shift[row, there] = step * np.asarray(found.shift)[: len(chosen)][better]

    def _correspondences(
        self, grid: int, descriptors: np.ndarray, valid: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """For every reference the places [r, k, 3] most like the query's, and their weight [r, k]; and the
        evidence that the query has for itself.
        """
        best, second, place = _looked_up(
            descriptors, self.descriptors[:, grid], self.valid[:, grid]
        )
        common = _common(best, second)
        weight = (np.maximum(best - common, 0) + _TRIVIAL * np.maximum(best, 0)) * valid
        fixed = np.take_along_axis(self.places[:, grid], place[..., None], 1)
        return fixed, weight.astype(np.float32), _evidence_for_itself(common, valid)


def _looked_up(
    query: np.ndarray, descriptors: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_closest` of a query [k, d] in references [r, k, d], of which a part at a time is looked at."""
    count = len(valid)
    best, second, place = (np.zeros((count, len(query)), t) for t in ("f4", "f4", "i4"))
    asked = jnp.asarray(query)
    for first in range(0, count, _PART):
        part = slice(first, first + _PART)
        rows, there = _padded(descriptors[part], valid[part], min(_PART, count))
        columns = _closest(asked, rows, there)
        size = min(_PART, count - first)
        for target, column in zip((best, second, place), columns, strict=True):
            target[part] = np.asarray(column)[:size]
    return best, second, place


def _common(best: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of each keypoint of a query [k] the similarity that says nothing of any reference: all have it."""
    pooled = np.concatenate([best, second])
    at = int(_COMMON * (len(pooled) - 1))
    return np.partition(pooled, at, axis=0)[at]


def _evidence_for_itself(common: np.ndarray, valid: np.ndarray) -> float:
    """What the keypoints of a volume weigh, each alike to itself and all in their places."""
    return float(np.sort(np.where(valid, np.maximum(1 - common, 0), 0))[-KEPT:].sum())


def _own(descriptors: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """`VolumeIndex.own`, from what a few references have in common with each."""
    count = len(valid)
    asked = np.unique(np.linspace(0, count - 1, min(count, _ASKED)).astype(int))
    out = np.zeros((count, _GRIDS), np.float32)

    def into(row: int) -> None:
        for grid in range(_GRIDS):
            few = descriptors[asked, grid], valid[asked, grid]
            best, second, _ = _looked_up(descriptors[row, grid], *few)
            out[row, grid] = _evidence_for_itself(_common(best, second), valid[row, grid])

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(into, range(count)))
    return out


def _padded(first: np.ndarray, second: np.ndarray, length: int) -> tuple[Array, Array]:
    """Both with rows of zeros to one length, so that nothing compiles twice."""
    missing = max(length - len(first), 0)
    wide = [np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in (first, second)]
    return jnp.asarray(wide[0]), jnp.asarray(wide[1])


@jax.jit
def _closest(query: Array, rows: Array, valid: Array) -> tuple[Array, Array, Array]:
    """Of each reference, for each query keypoint: largest and second product, and where the largest is."""

    def one(item: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        # A reference's products fit a cache, and reductions over the first axis are vectors of the
        # second: four times as fast on a CPU as all references at once.
        own, there = item
        found = jnp.where(there[:, None], products.matmul(own, query.T), -1.0)
        row = jnp.arange(len(own))[:, None]
        best = jnp.max(found, 0)
        place = jnp.min(jnp.where(found == best[None], row, len(own)), 0)
        return best, jnp.max(jnp.where(row == place[None], -1.0, found), 0), place

    return jax.lax.map(one, (rows, valid))


def _coarse(side: VolumeSide, rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Coarse structure of some volumes of a side; `steps` [k, 3] as for `_described`."""
    parts = []
    for first in range(0, len(rows), _BATCH):
        size = min(_BATCH, len(rows) - first)
        part = np.resize(np.arange(first, first + size), _BATCH)
        found = volume_poses.coarse(
            jnp.asarray(side.take(rows[part])),
            jnp.asarray(side.geometry.box[rows[part]]),
            jnp.asarray(steps[part] * (SIZE / volume_poses.SIZE)),
        )
        parts.append(np.asarray(found)[:size])
    return np.concatenate(parts)


def _described(
    side: VolumeSide, rows: np.ndarray, steps: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints of some volumes of a side on grids of these steps [k, 3]."""
    parts = []
    for first in range(0, len(rows), _BATCH):
        size = min(_BATCH, len(rows) - first)
        part = np.resize(np.arange(first, first + size), _BATCH)
        found = keypoints(
            jnp.asarray(side.take(rows[part])),
            jnp.asarray(side.geometry.box[rows[part]]),
            jnp.asarray(steps[part]),
        )
        parts.append([np.asarray(x)[:size] for x in found])
    places, descriptors, valid = (np.concatenate(column) for column in zip(*parts, strict=True))
    return places, descriptors, valid
