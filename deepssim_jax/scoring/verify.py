"""Verification: align a pair, then say how well it agrees.

Contract: pairs are two arrays [n, s, s] of any real dtype, `moving` beside `fixed`, square and of
one size; each image is z-scored here. The score is `ops.agreement.Agreement.score` over the
region where both have data, after `ops.registration` has brought `moving` onto `fixed`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import agreement, registration, resample
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.search_grid import SearchGrid, device_operator
from deepssim_jax.ops.transform import FLIP_NAMES, Transform, ellipsoid
from deepssim_jax.typing import Array, Images

_BATCH = 32
# A region seen by both that is smaller than this share of the frame proves nothing.
_MIN_OVERLAP = 0.25
# Agreement is judged inside a disc: the corners of a zoomed or turned copy hold whatever its
# maker filled them with.
_DISC = 0.95
# Nor is a change looked for in the outer part of the copy, this share of its side.
_RIM = 0.1


@dataclasses.dataclass(frozen=True)
class VerifiedPairs:
    """What verification says of n pairs; NumPy arrays of length n.

    `score` float32 in [0, 1], made of `likeness` and `sameness` (see `ops.agreement`); `flip` int
    index into `FLIP_NAMES`; `rotation_deg` counter-clockwise; `scale`; `shift` [n, 2] (y, x) in
    pixels: how `fixed` was zoomed, turned, moved and then mirrored to give `moving`.
    """

    score: np.ndarray
    likeness: np.ndarray
    sameness: np.ndarray
    flip: np.ndarray
    rotation_deg: np.ndarray
    scale: np.ndarray
    shift: np.ndarray

    def flip_name(self, row: int) -> str:
        """The mirroring of one pair in words."""
        return FLIP_NAMES[int(self.flip[row])]

    @classmethod
    def concatenate(cls, parts: "list[VerifiedPairs]") -> "VerifiedPairs":
        """Joins the results of several calls."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


@functools.partial(jax.jit, static_argnames=("grid",))
def _verify(
    moving: Array, fixed: Array, operator: Array, *, grid: SearchGrid
) -> tuple[agreement.Agreement, Transform, Array, Array]:
    size = fixed.shape[-1]
    moving, fixed = zscore(moving), zscore(fixed)
    found = registration.locate(moving, fixed, operator, grid=grid)
    inside = found.inside & jnp.asarray(ellipsoid((size, size), radius=_DISC))[None]
    positions = found.transform.positions((size, size))
    core = inside & resample.inside(positions, (size, size), margin=_RIM * size)
    parts = agreement.agreement(found.aligned, fixed, inside, core=core)
    # Flat images have no direction to agree in; their score is 0, not 0 / 0.
    enough = inside.mean((1, 2)) >= _MIN_OVERLAP
    parts = jax.tree.map(lambda x: jnp.where(enough, jnp.nan_to_num(x), 0.0), parts)
    return parts, found.transform, found.aligned, inside


def verify_pairs(
    moving: Images,
    fixed: Images,
    *,
    grid: SearchGrid = SearchGrid(),
) -> VerifiedPairs:
    """Aligns every pair and scores it.

    Args:
      moving: [n, s, s] synthetic images.
      fixed: [n, s, s] real images, row for row.
      grid: transformations of the global search.

    Returns:
      Scores and transformations.

    Raises:
      ValueError: if the shapes differ or the images are not square.
    """
    moving, fixed = np.asarray(moving), np.asarray(fixed)
    if moving.shape != fixed.shape or moving.ndim != 3 or moving.shape[1] != moving.shape[2]:
        raise ValueError(
            f"moving and fixed must be square and alike, [n, s, s]; got {moving.shape} and "
            f"{fixed.shape}; bring them to one size with data.preprocess.fit_to_size"
        )
    operator = device_operator(grid)
    parts = []
    for first in range(0, len(moving), _BATCH):
        rows = slice(first, first + _BATCH)
        batch = [_padded(part[rows]) for part in (moving, fixed)]
        found, transform, _, _ = _verify(*batch, operator, grid=grid)
        count = len(moving[rows])
        parts.append(
            VerifiedPairs(
                score=np.asarray(found.score)[:count],
                likeness=np.asarray(found.likeness)[:count],
                sameness=np.asarray(found.sameness)[:count],
                flip=np.asarray(transform.flip)[:count],
                rotation_deg=np.asarray(transform.rotation_deg)[:count],
                scale=np.asarray(transform.scale)[:count],
                shift=np.asarray(transform.shift)[:count],
            )
        )
    return VerifiedPairs.concatenate(parts) if parts else _no_pairs()


def align_for_display(
    moving: Images,
    fixed: Images,
    *,
    grid: SearchGrid = SearchGrid(),
) -> tuple[np.ndarray, np.ndarray]:
    """`moving` on the frame of `fixed` with its intensities fitted, for people to look at.

    Args:
      moving: [n, s, s].
      fixed: [n, s, s].
      grid: as for `verify_pairs`.

    Returns:
      Aligned and fixed images, both z-scored float32 [n, s, s]; `aligned` has the gain and the
      offset that bring it closest to `fixed` where both have data.
    """
    moving, fixed = np.asarray(moving), np.asarray(fixed)
    operator = device_operator(grid)
    out = []
    for first in range(0, len(moving), _BATCH):
        rows = slice(first, first + _BATCH)
        batch = [_padded(part[rows]) for part in (moving, fixed)]
        _, _, aligned, inside = _verify(*batch, operator, grid=grid)
        a, b, mask = np.asarray(aligned), np.asarray(zscore(batch[1])), np.asarray(inside)
        for row in range(len(moving[rows])):
            x, y = a[row][mask[row]], b[row][mask[row]]
            gain = ((x - x.mean()) * (y - y.mean())).mean() / max(float(x.var()), 1e-9)
            out.append((gain * (a[row] - x.mean()) + y.mean(), b[row]))
    aligned, reference = (np.stack(column) for column in zip(*out, strict=True))
    return aligned, reference


def _padded(part: np.ndarray) -> jax.Array:
    """The last batch repeats its last row: one shape, one compilation."""
    missing = _BATCH - len(part)
    return jnp.asarray(np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]))


def _no_pairs() -> VerifiedPairs:
    empty = np.zeros(0, np.float32)
    whole = empty.astype(np.int32)
    return VerifiedPairs(empty, empty, empty, whole, empty, empty, np.zeros((0, 2), np.float32))
