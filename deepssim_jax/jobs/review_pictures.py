"""Pictures of pairs for people to decide: the fixed image, the moving one brought onto it, matched points.

Contract: an image is one plane of one slice. Its pictures are uint8 [s, s] in the fixed image's window,
from its 0.5th to its 99.5th percentile; the moving image has the gain and offset that bring it closest to the
fixed one, and black where it has no data. Points are (y, x) in shares of the side.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from deepssim_jax.audit.gallery import grey_bytes, shown
from deepssim_jax.features import basis
from deepssim_jax.ops.resample import inside, sample_at
from deepssim_jax.ops.transform import FLIP_NAMES, FLIP_SIGNS, Transform
from deepssim_jax.scoring.match import Moved
from deepssim_jax.scoring.points import PointSet

MOST_POINTS = 16
NO_POINTS = np.zeros((0, 2))
_NEAR = 8.0  # pixels of a canvas of 256 around the place where the transformation puts a point
_LEAST_COSINE, _MOST_ZOOM = 0.75, 0.55
_LEVELS = 65535.0


@dataclasses.dataclass(frozen=True)
class Plane:
    """Slices of a pair in one direction, uint8 [n, s, s] each; `name` is empty where there is one alone."""

    name: str
    fixed: np.ndarray
    moving: np.ndarray


@dataclasses.dataclass(frozen=True)
class PairView:
    """What is shown of a pair: its planes, and points [n, 2] in both that match."""

    planes: tuple[Plane, ...]
    fixed_points: np.ndarray = dataclasses.field(default_factory=lambda: NO_POINTS)
    moving_points: np.ndarray = dataclasses.field(default_factory=lambda: NO_POINTS)


@dataclasses.dataclass(frozen=True)
class Fields:
    """What `InputSettings.load` gives for n images: pixels [n, s, s], canvases and their content."""

    pixels: np.ndarray
    canvases: np.ndarray
    content: np.ndarray

    @classmethod
    def of(cls, loaded: Sequence[dict[str, np.ndarray]]) -> "Fields":
        """Of single images."""
        return cls(*(np.stack([x[n] for x in loaded]) for n in ("pixels", "canvas", "content")))

    def points(self) -> PointSet:
        """Local features."""
        return PointSet.of(self.canvases.astype(np.float32) / _LEVELS, self.content)


def views(
    moving: Fields, fixed: Fields, placed: Sequence[Moved], *, declared: int
) -> list[PairView]:
    """Draws pairs.

    Args:
      moving: n images.
      fixed: n images, row for row.
      placed: how each fixed image was moved to give the moving one.
      declared: side of the squares that their shifts are meant for.
    """
    side = fixed.pixels.shape[-1]
    how = Transform.of(
        np.array([FLIP_NAMES.index(x.flip) for x in placed], np.int32),
        np.array([x.matrix for x in placed], np.float32).reshape(-1, 2, 2),
        np.array([(x.shift_y, x.shift_x) for x in placed], np.float32),
    )
    positions = how.positions((side, side), size=(declared, declared))
    images = moving.pixels.astype(np.float32) / _LEVELS
    aligned = np.asarray(sample_at(images, positions))
    there = np.asarray(inside(positions, (side, side)))
    points = zip(*(_points(x) for x in (moving, fixed)), strict=True)
    out = []
    for row, (own, other) in enumerate(points):
        still = fixed.pixels[row].astype(np.float32) / _LEVELS
        moved = _fitted(aligned[row], still, there[row])
        first, second, _ = shown(still, moved)
        found = _matched(own, other, placed[row], 1 / declared)
        plane = Plane("", grey_bytes(first)[None], grey_bytes(second)[None])
        out.append(PairView((plane,), *found))
    return out


def _fitted(moved: np.ndarray, fixed: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Least squares over the region that both see; black outside of it."""
    floor = float(fixed.min())
    if there.sum() < 2:
        return np.full_like(fixed, floor)
    x, y = moved[there], fixed[there]
    centred = x - x.mean()
    gain = float((centred * (y - y.mean())).sum() / max(float((centred**2).sum()), 1e-9))
    # Unrelated images fit each other best as flat grey, which would give them away.
    gain = np.sign(gain or 1.0) * max(abs(gain), 0.5 * float(y.std()) / max(float(x.std()), 1e-6))
    return np.where(there, gain * (moved - x.mean()) + y.mean(), floor)


@dataclasses.dataclass(frozen=True)
class _Points:
    """Of one image: places [k, 2] in shares of the side from the middle, log sizes, polarities, features."""

    places: np.ndarray
    sizes: np.ndarray
    polarities: np.ndarray
    descriptors: np.ndarray


def _points(images: Fields) -> list[_Points]:
    found = images.points()
    side = images.canvases.shape[-1]
    out = []
    for geometry, descriptors in zip(found.geometry, found.descriptors, strict=True):
        there = geometry[:, 5] > 0
        kept = geometry[there]
        out.append(
            _Points(
                places=kept[:, :2] / side,
                sizes=np.log(np.maximum(kept[:, 2], 0.3)),
                polarities=kept[:, 4],
                descriptors=descriptors[there].astype(np.float32) / 512,
            )
        )
    return out


def _matched(
    moving: _Points, fixed: _Points, placed: Moved, unit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points of the fixed image and those of the moving one that lie where they were moved to.

    Args:
      moving: of the moving image.
      fixed: of the fixed one.
      placed: the transformation.
      unit: one pixel of its shift as a share of the side.
    """
    none = NO_POINTS, NO_POINTS
    if len(moving.places) < 2 or len(fixed.places) < 2:
        return none
    matrix = np.array(placed.matrix).reshape(2, 2)
    sign = FLIP_SIGNS[FLIP_NAMES.index(placed.flip)]
    shift = np.array([placed.shift_y, placed.shift_x]) * unit
    area = float(np.linalg.det(matrix))
    if abs(area) < 1e-3:
        return none
    expected = (fixed.places @ matrix.T + shift) * sign
    apart = np.linalg.norm(expected[:, None] - moving.places[None], axis=-1)
    zoom = moving.sizes[None] - fixed.sizes[:, None] - np.log(abs(area)) / 2
    polarity = fixed.polarities[:, None] * moving.polarities[None]
    usable = (apart < _NEAR / 256) & (np.abs(zoom) < _MOST_ZOOM)
    usable &= polarity == (-1 if placed.negative else 1)
    # Descriptors of a mirrored point are those of the point with the negated part's sign changed.
    both = basis.learn(np.concatenate([fixed.descriptors, moving.descriptors]))
    own, other = (both.project(x.descriptors, np.ones(len(x.places))) for x in (fixed, moving))
    if area * sign.prod() < 0:
        own = own * both.signs
    cosine = np.where(usable, own @ other.T, -1.0)
    partner, best = cosine.argmax(1), cosine.max(1)
    mutual = cosine.argmax(0)[partner] == np.arange(len(best))
    rows = np.flatnonzero(mutual & (best >= _LEAST_COSINE))
    rows = rows[np.argsort(-best[rows], kind="stable")][:MOST_POINTS]
    back = (moving.places[partner[rows]] * sign - shift) @ np.linalg.inv(matrix).T
    return fixed.places[rows] + 0.5, np.clip(back + 0.5, 0, 1)
