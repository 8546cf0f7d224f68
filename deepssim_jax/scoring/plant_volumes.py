"""Copies of volumes made in memory, the positive controls: what a detector must find, by construction.

Contract: volumes are stored cubes, uint16 [n, s, s, s], with their geometry (`ops.volume_grid`); label
maps integers of the same shape. Each copy has 2 % noise, and one change more: see `Edit`. By SciPy and
NumPy alone, so that what detects copies is not measured with itself.
"""

import dataclasses
import enum

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from deepssim_jax.ops.volume_grid import Geometry

_TURN_DEG, _MOVE, _BLUR, _NOISE = 8.0, 0.04, 0.8, 0.02
_BALL = (0.05, 0.15)  # of the volume
_KEPT, _SLABS, _GAMMA, _EDGE = 0.7, 24, 2.2, 0.25
_TOP = 65535


class Edit(enum.StrEnum):
    """What is done to a copy.

    EXACT: turned by up to 8 degrees about each axis, moved by up to 4 % and blurred. NEAR: that, and a
    ball of 5 to 15 % of the volume is another person's. CROP: 70 % of the field of view. PERMUTED: axes
    change places and directions, and the affine is lost. INVERTED and GAMMA: intensities. SLAB: 24
    thick slices. HALF: one half is another person's. STRIP: the outer quarter of the body is gone.
    """

    EXACT = "exact"
    NEAR = "near"
    CROP = "crop"
    PERMUTED = "permuted"
    INVERTED = "inverted"
    GAMMA = "gamma"
    SLAB = "slab"
    HALF = "half"
    STRIP = "strip"


MIXED = frozenset({Edit.NEAR, Edit.HALF})  # those that need another person


@dataclasses.dataclass(frozen=True)
class Planted:
    """`volumes` uint16 [n, s, s, s], their `geometry`, and `maps` of labels where there were some."""

    volumes: np.ndarray
    geometry: Geometry
    maps: np.ndarray | None


@dataclasses.dataclass
class _Copy:
    """One volume on its way; `image` float64, `map` integers or None."""

    image: np.ndarray
    map: np.ndarray | None
    box: np.ndarray
    voxel_mm: float


def plant_copies(
    volumes: np.ndarray,
    geometry: Geometry,
    *,
    edits: list[Edit],
    donors: np.ndarray,
    seed: int,
    maps: np.ndarray | None = None,
) -> Planted:
    """A copy of each volume.

    Args:
      volumes: [n, s, s, s].
      geometry: of them.
      edits: n, what happens to each.
      donors: int [n], rows of other people's volumes.
      seed: of everything that is drawn.
      maps: label maps of the volumes, which are moved along.
    """
    copies = []
    for row, edit in enumerate(edits):
        rng = np.random.default_rng([seed, row])
        copy = _Copy(
            volumes[row].astype(np.float64),
            None if maps is None else maps[row],
            geometry.box[row].astype(np.float64),
            float(geometry.voxel_mm[row]),
        )
        donor = int(donors[row])
        other = volumes[donor].astype(np.float64), None if maps is None else maps[donor]
        _edit(copy, edit, other, rng)
        copy.image = copy.image + rng.normal(0, _NOISE * copy.image.std(), copy.image.shape)
        copies.append(copy)
    return Planted(
        np.stack([np.clip(np.round(c.image), 0, _TOP).astype(np.uint16) for c in copies]),
        Geometry(
            np.stack([c.box for c in copies]).astype(np.float32),
            np.array([c.voxel_mm for c in copies], np.float32),
        ),
        None if maps is None else np.stack([np.asarray(c.map, np.uint16) for c in copies]),
    )


def _edit(
    copy: _Copy, edit: Edit, other: tuple[np.ndarray, np.ndarray | None], rng: np.random.Generator
) -> None:
    match edit:
        case Edit.NEAR | Edit.EXACT:
            if edit is Edit.NEAR:
                _mix(copy, other, _ball(copy.image.shape, rng))
            _move(copy, rng)
        case Edit.HALF:
            _mix(copy, other, _half(copy.image.shape, rng))
        case Edit.CROP:
            _crop(copy, rng)
        case Edit.PERMUTED:
            _permute(copy, rng)
        case Edit.INVERTED:
            copy.image = copy.image.max() - copy.image
        case Edit.GAMMA:
            low, high = copy.image.min(), copy.image.max()
            power = _GAMMA if rng.random() < 0.5 else 1 / _GAMMA
            unit = (copy.image - low) / max(high - low, 1e-9)
            copy.image = low + (high - low) * unit**power
        case Edit.SLAB:
            thick = max(2, round(copy.box[0] / _SLABS))
            copy.image = ndimage.uniform_filter1d(copy.image, thick, axis=0)
        case Edit.STRIP:
            _strip(copy)


def _mix(copy: _Copy, other: tuple[np.ndarray, np.ndarray | None], share: np.ndarray) -> None:
    copy.image = copy.image * (1 - share) + other[0] * share
    if copy.map is not None and other[1] is not None:
        copy.map = np.where(share > 0.5, other[1], copy.map)


def _ball(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    place = rng.uniform(-0.3, 0.3, 3)
    radius = (rng.uniform(*_BALL) * 6 / np.pi) ** (1 / 3) / 2
    axes = [(np.arange(n) - (n - 1) / 2) / n for n in shape]
    grids = np.meshgrid(*axes, indexing="ij", sparse=True)
    away = np.sqrt(sum((g - p) ** 2 for g, p in zip(grids, place, strict=True)))
    return 1 / (1 + np.exp(np.clip((away - radius) * min(shape), -30, 30)))


def _half(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    axis, side = int(rng.integers(0, 3)), rng.choice([-1.0, 1.0])
    at = (np.arange(shape[axis]) - (shape[axis] - 1) / 2) * side
    lead = [-1 if i == axis else 1 for i in range(3)]
    return np.broadcast_to((1 / (1 + np.exp(np.clip(at, -30, 30)))).reshape(lead), shape)


def _move(copy: _Copy, rng: np.random.Generator) -> None:
    shape = copy.image.shape
    turn = Rotation.from_euler("xyz", rng.uniform(-_TURN_DEG, _TURN_DEG, 3), degrees=True)
    matrix, centre = turn.as_matrix(), (np.array(shape) - 1) / 2
    offset = centre - matrix @ (centre + rng.uniform(-_MOVE, _MOVE, 3) * max(shape))
    moved = ndimage.affine_transform(copy.image, matrix, offset=offset, order=1, mode="nearest")
    copy.image = ndimage.gaussian_filter(moved, rng.uniform(0, _BLUR))
    if copy.map is not None:
        copy.map = ndimage.affine_transform(copy.map, matrix, offset=offset, order=0)


def _crop(copy: _Copy, rng: np.random.Generator) -> None:
    """A part of the box comes into the middle; the rest is its border's median."""
    size = np.maximum(np.round(copy.box * _KEPT).astype(int), 2)
    margin = copy.box - size
    start = np.array(copy.image.shape) / 2 - copy.box / 2 + rng.uniform(0, 1, 3) * margin
    cut = tuple(
        slice(a, a + n) for a, n in zip(np.round(start).astype(int).clip(0), size, strict=True)
    )
    part = copy.image[cut]
    faces = [np.take(part, i, axis).ravel() for axis in range(3) for i in (0, -1)]
    whole = np.full(copy.image.shape, np.median(np.concatenate(faces)))
    first = [(n - m) // 2 for n, m in zip(whole.shape, part.shape, strict=True)]
    place = tuple(slice(a, a + m) for a, m in zip(first, part.shape, strict=True))
    whole[place] = part
    if copy.map is not None:
        labels = np.zeros_like(copy.map)
        labels[place] = copy.map[cut]
        copy.map = labels
    copy.image, copy.box = whole, np.array(part.shape, np.float64)


def _permute(copy: _Copy, rng: np.random.Generator) -> None:
    order = rng.permutation(3)
    if (order == np.arange(3)).all():
        order = np.array([1, 2, 0])
    flips = tuple(axis for axis in range(3) if rng.random() < 0.5)
    copy.image = np.flip(np.transpose(copy.image, order), flips)
    copy.box, copy.voxel_mm = copy.box[order], float("nan")
    if copy.map is not None:
        copy.map = np.flip(np.transpose(copy.map, order), flips)


def _strip(copy: _Copy) -> None:
    smooth = ndimage.gaussian_filter(copy.image, 1.0)
    low, high = smooth.min(), np.quantile(smooth, 0.99)
    body = ndimage.binary_fill_holes(smooth > low + 0.12 * (high - low))
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(body, 1)))[1:-1, 1:-1, 1:-1]
    keep = depth > _EDGE * depth.max()
    copy.image = np.where(keep, copy.image, copy.image.min())
    if copy.map is not None:
        copy.map = np.where(keep, copy.map, 0)
