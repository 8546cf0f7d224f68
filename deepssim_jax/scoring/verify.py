"""Verification: align a pair, then say how well it agrees.

Contract: pairs are two arrays [n, s, s] of any real dtype, `moving` beside `fixed`, square and of
one size; each image is z-scored here. The score is `ops.agreement.Agreement.score` over the
region where both have data, after `ops.registration` has brought `moving` onto `fixed`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import agreement, arguments, programs, registration, resample
from deepssim_jax.ops.batches import batch_size, in_batches
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.ops.transform import Transform, ellipsoid
from deepssim_jax.typing import Array, Images

_batch = functools.partial(batch_size, cpu=16, accelerator=256)  # pairs at a time
FEW = 4  # where single images are looked up
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

    `score` float32 in [0, 1], made of `structure` and `unchanged` (see `ops.agreement`); `flip` int
    index into `FLIP_NAMES`; `rotation_deg` counter-clockwise; `scale`; `shift` [n, 2] (y, x) in
    pixels, `matrix` [n, 2, 2]: how `fixed` was zoomed, turned, moved and then mirrored to give `moving`.

    Examples:
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(5)
      >>> pairs = ds.verify_pairs(phantoms[:1], phantoms[:1])
      >>> pairs.score.round(2), pairs.flip
      (array([1.], dtype=float32), array([0], dtype=int32))
    """

    score: np.ndarray
    structure: np.ndarray
    unchanged: np.ndarray
    flip: np.ndarray
    rotation_deg: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    matrix: np.ndarray


@functools.partial(jax.jit, static_argnames=("grid",))
def _verify(
    moving: Array, fixed: Array, *, grid: SearchGrid
) -> tuple[agreement.Agreement, Transform, Array, Array]:
    moving, fixed = zscore(moving), zscore(fixed)
    return _judged(registration.locate(moving, fixed, grid=grid), fixed)


@jax.jit
def _verify_from(
    moving: Array, fixed: Array, start: Transform, sign: Array
) -> tuple[agreement.Agreement, Transform, Array, Array]:
    moving, fixed = zscore(moving) * sign[:, None, None], zscore(fixed)
    return _judged(registration.align_affine(moving, fixed, start), fixed)


@jax.jit
def _score_at(moving: Array, fixed: Array, transform: Transform, sign: Array) -> tuple[Array, ...]:
    moving, fixed = zscore(moving) * sign[:, None, None], zscore(fixed)
    return (_judged(registration.at(moving, fixed, transform), fixed)[0].score,)


def _judged(
    found: registration.Registration, fixed: Array
) -> tuple[agreement.Agreement, Transform, Array, Array]:
    """How well an aligned pair agrees where both have data, with what brought it there."""
    size = fixed.shape[-1]
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
      Scores and transformations; none for no pairs. A constant image has no structure to agree in: its
      score is 0.

    Raises:
      ValueError: if the shapes differ, or the images are not square or hold NaN or infinite values. Inside
        `jax.jit` the values cannot be seen: the score of such a pair is NaN there.

    Examples:
      >>> import numpy as np
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(5)
      >>> synthetic = np.stack(
      ...     [phantoms[0, :, ::-1], phantoms[1]]
      ... )  # a mirrored copy, an unrelated one
      >>> score = ds.verify_pairs(synthetic, phantoms[[0, 2]]).score
      >>> bool(score[0] > 0.95), bool(score[1] < 0.8)
      (True, True)
    """
    moving, fixed = (
        arguments.levelled(
            arguments.images(
                images,
                name,
                shape="[n, s, s]",
                dims=(3,),
                square=True,
                least=registration.LEAST_SIDE,
            ),
            name,
        )
        for name, images in (("moving", moving), ("fixed", fixed))
    )
    if moving.shape != fixed.shape:
        raise ValueError(
            f"moving {moving.shape} and fixed {fixed.shape} must be alike, [n, s, s]; bring them to one "
            "size with data.preprocess.fit_to_size"
        )
    arguments.instance(grid, "grid", SearchGrid, remedy="the global search of images")
    figures = functools.partial(_figures, grid=grid)
    columns = in_batches(figures, moving, fixed, size=_batch())
    found = VerifiedPairs(*cast(tuple[np.ndarray, ...], columns))
    if not arguments.is_traced(moving, fixed):
        return found
    good = arguments.finite_rows(moving) & arguments.finite_rows(fixed)
    score = cast(np.ndarray, jnp.where(good, found.score, jnp.nan))
    return dataclasses.replace(found, score=score)


def _figures(moving: Array, fixed: Array, *, grid: SearchGrid) -> tuple[Array, ...]:
    """The columns of `VerifiedPairs`, by the program that `align_for_display` uses, too."""
    found, moved, _, _ = _verify(*_floats(moving, fixed), grid=grid)
    return _columns(found, moved)


def _floats(moving: Array, fixed: Array) -> tuple[Array, Array]:
    """Of whatever kind they come, one program serves them."""
    return jnp.asarray(moving, jnp.float32), jnp.asarray(fixed, jnp.float32)


@jax.jit
def _columns(found: agreement.Agreement, moved: Transform) -> tuple[Array, ...]:
    """On the device: outside of a batch, each number of pairs would compile."""
    return (
        found.score,
        found.structure,
        found.unchanged,
        moved.flip,
        moved.rotation_deg,
        moved.scale,
        moved.shift,
        moved.matrix,
    )


_kept_verify_from = programs.kept(Transform, agreement.Agreement)(_verify_from)
_kept_columns = programs.kept(Transform, agreement.Agreement)(_columns)


def verify_from(
    moving: Images,
    fixed: Images,
    start: Transform,
    negative: np.ndarray,
    *,
    together: int | None = None,
) -> VerifiedPairs:
    """`verify_pairs` from a start that is known, of any affine map, and for negatives.

    Args:
      moving: [n, s, s] synthetic images.
      fixed: [n, s, s] real images, row for row.
      start: n transformations, to be refined.
      negative: bool [n], whether bright and dark of `moving` change places first.
      together: pairs at a time, None as many as suit a long list; four and more give the same numbers.
    """

    def run(moving: Array, fixed: Array, start: Transform, sign: Array) -> tuple[Array, ...]:
        found, moved, _, _ = _kept_verify_from(moving, fixed, start, sign)
        return _kept_columns(found, moved)

    return VerifiedPairs(*_from(run, moving, fixed, start, negative, together))


def load_verify(images: Images) -> None:
    """Loads the program of `verify_from` for `FEW` pairs of images [1, s, s]; another thread can do so."""
    start = Transform.of(
        np.zeros(1, np.int32), np.eye(2, dtype=np.float32)[None], np.zeros((1, 2), np.float32)
    )
    verify_from(images, images, start, np.zeros(1, bool), together=FEW)


def score_at(
    moving: Images, fixed: Images, transform: Transform, negative: np.ndarray
) -> np.ndarray:
    """The score of each pair as it lies by a transformation that is known; float32 [n].

    The arguments are those of `verify_from`; nothing is refined.
    """
    return _from(_score_at, moving, fixed, transform, negative)[0]


def _from(
    run: Callable[[Array, Array, Transform, Array], tuple[Array, ...]],
    moving: Images,
    fixed: Images,
    start: Transform,
    negative: np.ndarray,
    together: int | None = None,
) -> tuple[np.ndarray, ...]:
    """`run` in batches over pairs, their starts, and -1 for each negative."""

    def batch(
        a: Array, b: Array, flip: Array, matrix: Array, shift: Array, sign: Array
    ) -> tuple[Array, ...]:
        return run(*_floats(a, b), Transform(flip, matrix, shift), sign)

    sign = np.where(negative, -1.0, 1.0).astype(np.float32)
    columns = (np.asarray(moving), np.asarray(fixed), start.flip, start.matrix, start.shift, sign)
    return tuple(np.asarray(x) for x in in_batches(batch, *columns, size=together or _batch()))


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

    def shown(a: Array, b: Array) -> tuple[Array, Array]:
        _, _, aligned, inside = _verify(*_floats(a, b), grid=grid)
        return _fitted(aligned, zscore(b), inside)

    aligned, reference = in_batches(shown, moving, fixed, size=_batch())
    return np.asarray(aligned), np.asarray(reference)


def show_from(
    moving: Images, fixed: Images, start: Transform, negative: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`align_for_display` from a start that is known; the arguments are those of `verify_from`."""

    def shown(a: Array, b: Array, start: Transform, sign: Array) -> tuple[Array, ...]:
        _, _, aligned, inside = _verify_from(a, b, start, sign)
        return _fitted(jnp.where(inside, aligned, 0.0), zscore(b), inside)

    aligned, reference = _from(shown, moving, fixed, start, negative)
    return aligned, reference


@jax.jit
def _fitted(aligned: Array, fixed: Array, inside: Array) -> tuple[Array, Array]:
    """Least squares over the region that both see, image by image."""
    means = [jnp.mean(x, (1, 2), where=inside, keepdims=True) for x in (aligned, fixed)]
    x, y = aligned - means[0], fixed - means[1]
    cross, own = (jnp.mean(x * z, (1, 2), where=inside, keepdims=True) for z in (y, x))
    return cross / jnp.maximum(own, 1e-9) * x + means[1], fixed
