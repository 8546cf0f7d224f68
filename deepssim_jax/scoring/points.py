"""Candidates by local features: which real image a query's points come from, and how it was moved.

Contract: a `PointSet` holds the local features of a set of images as they are kept on disk. `LocalIndex`
finds, for each query, the real images whose points lie as the query's do. Its evidence is relative to
the query's own other candidates, log((s1 + 8) / (mean of s7 to s12 + 8)) of the sums of matches s, so
that a noisy or flat query is judged by its own measure. Up to any rotation, mirroring and negative,
zooms from about a quarter to four times, and parts.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.data.preprocess import fit_to_canvas
from deepssim_jax.features import basis as bases
from deepssim_jax.features import extract, geometry
from deepssim_jax.features.extract import LocalFeatures
from deepssim_jax.features.matching import PointIndex, Ranked
from deepssim_jax.ops import programs
from deepssim_jax.ops.batches import batch_size, in_batches, mapped
from deepssim_jax.ops.products import einsum
from deepssim_jax.typing import Array

SIDE = extract.SIDE
KEPT = 2  # candidates a query that are verified from their pixels
# Points of the first stage, which looks at all pairs: an eighth of an image holds few of them, so more are
# looked at where there are not many real images.
_FEW, _MORE, _MANY_IMAGES = 64, 128, 1024
_FEW_EVEN, _FEW_ODD = 20, 12  # numbers a point there
_CANDIDATES = 24  # of the first stage
_NULL = slice(6, 12)  # the query's own candidates that stand for unrelated images
ADDED = 8.0  # to a sum of matches: what unrelated images reach by chance decides little
_USUAL = 2.0  # what unrelated images reach where there are too few to ask
_LEVELS = 512.0  # RootSIFT numbers lie below 1 / 2
_batch = functools.partial(batch_size, cpu=4, accelerator=64)  # queries at a time
_HELD_BYTES = 8 << 30  # of local features that an accelerator keeps
_PROJECTED = 1024  # images at a time
_STANDS_OUT = 1.5
_CROWD = 16.0  # of _FEW points: where even those candidates hold so many, they are copies, too
# In how many of 16 x 16 cells an image has points that stand out by more than steps of 8-bit levels do.
# Nine kinds of picture have them in 43 cells, at 28 pixels a side in 48, blurred by a fortieth of the side
# still in 19; a blob, three of them, a ramp or a pale square in at most 8.
_STANDS_OUT_BY, _MIN_CELLS = 0.003, 12
TOO_LITTLE = "holds too little structure to be compared"  # why an image is not `comparable`


@dataclasses.dataclass(frozen=True)
class PointSet:
    """Local features of n images: `geometry` float32 [n, k, 6], `descriptors` uint8 [n, k, 128].

    Geometry is y, x, sigma, angle, polarity and the point's strength, 0 where there is none.
    """

    geometry: np.ndarray
    descriptors: np.ndarray

    @classmethod
    def of(cls, canvases: np.ndarray, content: np.ndarray) -> "PointSet":
        """Of canvases float [n, 256, 256] in [0, 1] and the rows and columns [n, 2] that hold the image."""
        return cls.packed(extract.extract_all(canvases, content))

    @classmethod
    def of_images(cls, images: Sequence[np.ndarray] | np.ndarray) -> "PointSet":
        """Of images, each [h, w] of any shape and range."""
        fitted = [fit_to_canvas(np.asarray(image, np.float32), side=SIDE) for image in images]
        canvases, content = (np.array(column) for column in zip(*fitted))
        return cls.of(canvases, content)

    @classmethod
    def packed(cls, found: LocalFeatures) -> "PointSet":
        """As they are kept."""
        geometry = np.concatenate(
            [
                found.positions,
                *(
                    np.asarray(a, np.float32)[..., None]
                    for a in (found.sigmas, found.angles, found.polarities, found.strengths)
                ),
            ],
            -1,
        )
        levels = np.minimum(np.round(np.asarray(found.descriptors) * _LEVELS), 255)
        return cls(geometry, levels.astype(np.uint8))

    def __len__(self) -> int:
        return len(self.geometry)

    def rows(self, chosen: np.ndarray | jax.Array | slice) -> "PointSet":
        """Some of its images."""
        return PointSet(self.geometry[chosen], self.descriptors[chosen])

    @property
    def valid(self) -> np.ndarray:
        """Bool [n, k]: which points exist."""
        return self.geometry[..., 5] > 0

    @functools.cached_property
    def comparable(self) -> np.ndarray:
        """Bool [n]: which images hold enough structure to be distinguished from others."""
        cell = np.floor(self.geometry[..., :2] / (SIDE / 16)).astype(int)
        clear = self.geometry[..., 5] > _STANDS_OUT_BY
        number = np.where(clear, cell[..., 0] * 64 + cell[..., 1], 10**6)
        spread = [len(np.unique(row[row < 10**6])) for row in number]
        return np.array(spread, int) >= _MIN_CELLS


@dataclasses.dataclass(frozen=True)
class LocalMatches:
    """Of n queries their KEPT best images, arrays [n, KEPT, ...].

    `reference` -1 where there is none; `points` the sum of matches, `evidence` relative to the query's other
    candidates; `exact`, in [0, 1], how exactly the matches lie as the real image's do; `flip`, `matrix`
    and `shift` (of a canvas of side 1) as in `ops.transform`: how the real image was moved to give the
    query; `negative` whether bright and dark changed places.
    """

    reference: np.ndarray
    points: np.ndarray
    evidence: np.ndarray
    exact: np.ndarray
    flip: np.ndarray
    matrix: np.ndarray
    shift: np.ndarray
    negative: np.ndarray


@dataclasses.dataclass(frozen=True)
class LocalIndex:
    """The real side, ready to be searched, by so many queries `together` (None: as many as suit)."""

    references: PointSet
    full: bases.Basis
    few: bases.Basis
    first: PointIndex
    together: int | None = None

    @classmethod
    def build(cls, references: PointSet, subjects: np.ndarray) -> "LocalIndex":
        """From the real side's points and a number >= 0 for each image's patient."""
        places = bases.sample_points(references.valid)
        levels = references.descriptors.reshape(-1, references.descriptors.shape[-1])[places]
        sample = levels.astype(np.float32) / _LEVELS
        full, few = bases.learn(sample), bases.learn(sample, even=_FEW_EVEN, odd=_FEW_ODD)
        starts = range(0, len(references), _PROJECTED)
        count = _MORE if len(references) <= _MANY_IMAGES else _FEW
        parts = [_few_of(references.rows(slice(i, i + _PROJECTED)), few, count) for i in starts]
        index = PointIndex.build(np.concatenate(parts), few.signs, subjects)
        return cls(references, full, few, index)

    def search(self, queries: PointSet, *, exclude: np.ndarray | None = None) -> LocalMatches:
        """The best images of each query.

        Args:
          queries: their points.
          exclude: int [n], the patient whose images each query must not be compared with.
        """
        if not len(queries):
            none = np.zeros((0, KEPT), np.float32)
            whole, plane = none.astype(np.int32), np.zeros((0, KEPT, 2), np.float32)
            return LocalMatches(
                reference=whole, points=none, evidence=none, exact=none, flip=whole,
                matrix=np.stack([plane, plane], -1), shift=plane, negative=none > 0,
            )  # fmt: skip
        ranked = self._rank(queries, exclude)
        known = self._at_hand
        there = np.asarray if isinstance(known.geometry, np.ndarray) else jnp.asarray

        def run(geometry_: Array, descriptors: Array, images: Array, mirrored: Array) -> tuple:
            others = known.rows(there(images).clip(0))
            return _kept_verified(
                geometry_, descriptors, others.geometry, others.descriptors, images, mirrored,
                self.full.mean, self.full.axes, self.full.signs,
            )  # fmt: skip

        columns = (queries.geometry, queries.descriptors, ranked.images, ranked.mirrored)
        found = in_batches(run, *columns, size=self.together or _batch())
        return LocalMatches(*found)

    def stands_out(self, queries: PointSet, *, exclude: np.ndarray | None = None) -> np.ndarray:
        """Bool [n]: whose best image holds clearly more of its points than others do, at a glance.

        What has a copy here does; it spares looking at the others closely.
        """
        scores = np.maximum(self._rank(queries, exclude).scores, 0.0) * (_FEW / self.first.points)
        null = scores[:, _NULL].mean(1)
        return (scores[:, 0] + 1 >= _STANDS_OUT * (null + 1)) | (null >= _CROWD)

    @functools.cached_property
    def _at_hand(self) -> PointSet:
        """The references where the work is done: an accelerator holds them if it can."""
        both = self.references.geometry, self.references.descriptors
        if jax.default_backend() == "cpu" or sum(x.nbytes for x in both) > _HELD_BYTES:
            return self.references
        return PointSet(*map(jnp.asarray, both))  # type: ignore[arg-type]

    def _rank(self, queries: PointSet, exclude: np.ndarray | None) -> Ranked:
        few = _few_of(queries, self.few, self.first.points)
        return self.first.rank(few, count=_CANDIDATES, exclude=exclude)


def _few_of(images: PointSet, few: bases.Basis, count: int) -> np.ndarray:
    """float32 [n, count, d]: what the first stage compares."""
    values = images.descriptors[:, :count].astype(np.float32) / _LEVELS
    return few.project(values, images.valid[:, :count])


def _unpacked(geometry_: Array, descriptors: Array, mean: Array, axes: Array) -> LocalFeatures:
    strengths = geometry_[..., 5]
    levels = descriptors.astype(jnp.float32) / _LEVELS
    z = einsum("...i,ij->...j", levels - jnp.expand_dims(mean, range(levels.ndim - 1)), axes)
    z /= jnp.sqrt((z**2).sum(-1, keepdims=True)) + 1e-9
    return LocalFeatures(
        positions=geometry_[..., :2],
        sigmas=jnp.maximum(geometry_[..., 2], 0.3),
        angles=geometry_[..., 3],
        polarities=geometry_[..., 4],
        descriptors=z * (strengths > 0)[..., None],
        strengths=strengths,
    )


@jax.jit
def _verified(
    query_geometry: Array,
    query_descriptors: Array,
    geometry_: Array,
    descriptors: Array,
    images: Array,
    mirrored: Array,
    mean: Array,
    axes: Array,
    signs: Array,
) -> tuple[Array, ...]:
    queries = _unpacked(query_geometry, query_descriptors, mean, axes)
    others = _unpacked(geometry_, descriptors, mean, axes)
    verify = functools.partial(geometry.verify, signs=signs)
    each = queries, others, images, mirrored
    found = mapped(lambda one: verify(*one), each, side_by_side=16)
    score = jnp.where(found.image >= 0, found.score, 0.0)
    null = jnp.where(found.image >= 0, score, _USUAL)[:, _NULL]
    usual = null.mean(1) if null.shape[1] else jnp.full(len(score), _USUAL)
    evidence = jnp.log((score + ADDED) / (usual[:, None] + ADDED))
    # The map of the real image onto the query is the inverse of that of the query onto it.
    m = found.matrix
    determinant = m[..., 0, 0] * m[..., 1, 1] - m[..., 0, 1] * m[..., 1, 0]
    usable = jnp.abs(determinant) > 1e-3
    safe = jnp.where(usable, determinant, 1.0)[..., None, None]
    rows = [[m[..., 1, 1], -m[..., 0, 1]], [-m[..., 1, 0], m[..., 0, 0]]]
    inverse = jnp.stack([jnp.stack(r, -1) for r in rows], -2) / safe
    inverse = jnp.where(usable[..., None, None], inverse, jnp.eye(2)[None, None])
    shift = -einsum("ncij,ncj->nci", inverse, found.shift) / SIDE
    columns = (
        found.image, score, evidence, found.exact,
        found.mirrored.astype(jnp.int32), inverse, shift, found.negative,
    )  # fmt: skip
    return tuple(a[:, :KEPT] for a in columns)


_kept_verified = programs.kept()(_verified)
