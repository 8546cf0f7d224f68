"""Batched alignment of image pairs: mirroring, rotation, scale and shift, in 2D and 3D.

Contract: `moving` and `fixed` are float [n, s, s], square, or [n, d, h, w] with isotropic voxels,
one row a pair; transformations are those of `ops.transform`. Lengths are in pixels of the arrays
given.

The search is global first, local second: the correlation inside a central disc or ball is
evaluated at low resolution for every transformation of a grid (`ops.search_grid`,
`ops.search_rigid`); `ops.refine` goes on from its maximum.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from deepssim_jax.ops import arguments, refine, resample, search_grid
from deepssim_jax.ops.batches import in_batches
from deepssim_jax.ops.intensity import local_zscore, zscore
from deepssim_jax.ops.local_likelihood import likelihoods
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.ops.search_rigid import RigidGrid, coarse_rigid
from deepssim_jax.ops.transform import MotionModel, Transform, mirrorings
from deepssim_jax.typing import Array, Images, Scores, Volumes

LEAST_SIDE = 8  # of images in pixels: smaller ones hold no grid of transformations
_KEPT = 4  # starts that are refined roughly
_MARGIN = 0.02  # of the likelihood: by less, a refinement that made it smaller is believed
_NEIGHBOURHOOD = 16  # the side is this many times the width of what a pixel is compared with
_BATCH = {2: 32, 3: 1}  # by dimension: what fits caches; a volume fills them alone


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("transform", "aligned", "inside", "correlation"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Registration:
    """Pairs brought together.

    `transform` says how fixed became moving; `aligned` [n, *space] is moving on the frame of
    fixed, `inside` where it had data; `correlation` [n] is Pearson's over that region.

    Examples:
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(5)
      >>> found = ds.register(phantoms[:1, :, ::-1], phantoms[:1])
      >>> found.aligned.shape, bool(found.correlation[0] > 0.99)
      ((1, 96, 96), True)
    """

    transform: Transform
    aligned: Array
    inside: Array
    correlation: Scores


def locate(
    moving: Array,
    fixed: Array,
    *,
    grid: SearchGrid,
    model: MotionModel = MotionModel.SIMILARITY,
) -> Registration:
    """Global search and refinement of image pairs [n, s, s]; jit-compilable.

    The best of every mirroring and scale are compared by `local_likelihood`, which a changed region
    does not mislead; the most likely ones are refined roughly, compared again, and the winner is
    refined further, as far as that makes it likelier. Pixels are seen against their neighbourhood, so
    that neither a bias field nor a bright patch decides.
    """
    size = fixed.shape[-1]
    a, b = (local_zscore(zscore(x), sigma=size / _NEIGHBOURHOOD) for x in (moving, fixed))
    index = search_grid.candidates(a, b, grid=grid)[0]
    starts = jax.vmap(lambda i: search_grid.grid_transform(i, grid=grid, size=size))(index)
    # A copy was often not moved at all; where much of it was changed, correlation may not say so.
    starts = jax.tree.map(lambda *x: jnp.concatenate(x, 1), starts, mirrorings(len(index)))
    starts = _most_likely(a, b, starts, keep=_KEPT, side=max(size // 4, 32), tiles=4)
    several = (jnp.repeat(x, _KEPT, axis=0) for x in (a, b))
    first = MotionModel.SIMILARITY if model is MotionModel.AFFINE else model
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), starts)
    rough = refine.refine(*several, flat, model=first, levels=refine.PYRAMID[:1])
    # A large changed region can pull a refinement away from a start that was right: where it became
    # less likely, it is not believed.
    both = jax.tree.map(lambda x, y: jnp.concatenate([x, y.reshape(x.shape)], 1), starts, rough)
    best = _most_likely(a, b, both, keep=1, side=max(size // 2, 32), tiles=8, rougher=_KEPT)
    start = jax.tree.map(lambda x: x[:, 0], best)
    # Plain intensities place a copy most exactly, where no bias field stands against it: both kinds
    # are tried at half of the size, and the likelier one goes on.
    plain = zscore(moving), zscore(fixed)
    middle, last = refine.PYRAMID[1:2], refine.PYRAMID[2:]
    ends = [_refined(*pair, start, model=first, levels=middle) for pair in ((a, b), plain)]
    ends = jax.tree.map(lambda *x: jnp.stack(x, 1), start, *ends)
    chosen = _most_likely(*plain, ends, keep=1, side=max(size // 2, 32), tiles=8, rougher=1)
    bare = (chosen.shift[:, 0] == ends.shift[:, 2]).all(1)[:, None, None]
    a, b = (jnp.where(bare, far, near) for near, far in zip((a, b), plain, strict=True))
    chosen = jax.tree.map(lambda x: x[:, 0], chosen)
    final = _refined(a, b, chosen, model=model, levels=last)
    return at(moving, fixed, _likelier(*plain, chosen, final, side=size))


def _most_likely(
    moving: Array,
    fixed: Array,
    starts: Transform,
    *,
    keep: int,
    side: int,
    tiles: int,
    rougher: int = 0,
) -> Transform:
    """Of [n, c] transformations the `keep` most likely ones of each pair, [n, keep], seen at this side.

    The first `rougher` ones are refined less; a hair's breadth decides nothing for them.
    """
    a, b = (resample.resize(x, (side, side)) for x in (moving, fixed))
    likely = likelihoods(a, b, starts, size=fixed.shape[-1], tiles=tiles)
    likely = likely * jnp.where(jnp.arange(likely.shape[1]) < rougher, 1 - _MARGIN, 1.0)[None]
    place = jax.lax.top_k(likely, keep)[1]
    return jax.tree.map(lambda x: jax.vmap(lambda row, p: row[p])(x, place), starts)


def _likelier(
    moving: Array, fixed: Array, start: Transform, refined: Transform, *, side: int
) -> Transform:
    """Of a start and its refinement the likelier one of each pair, seen at this side."""
    two = jax.tree.map(lambda x, y: jnp.stack([x, y], 1), start, refined)
    best = _most_likely(moving, fixed, two, keep=1, side=side, tiles=8, rougher=1)
    return jax.tree.map(lambda x: x[:, 0], best)


def align(
    moving: Array, fixed: Array, start: Transform, *, model: MotionModel = MotionModel.SIMILARITY
) -> Registration:
    """Refines pairs from a start near the answer and resamples `moving`; jit-compilable."""
    # Without a unit of intensity, no threshold of the refinement depends on the scanner.
    a, b = (zscore(x, spatial_dims=moving.ndim - 1) for x in (moving, fixed))
    return at(moving, fixed, _refined(a, b, start, model=model))


def align_affine(moving: Array, fixed: Array, start: Transform) -> Registration:
    """Refines image pairs [n, s, s] by an affine map, where that makes them likelier; jit-compilable.

    Local features place even an eighth of an image exactly; what surrounds it would pull it away.
    """
    a, b = zscore(moving), zscore(fixed)
    found = _refined(a, b, start, model=MotionModel.AFFINE)
    return at(moving, fixed, _likelier(a, b, start, found, side=max(fixed.shape[-1] // 2, 32)))


def _refined(
    moving: Array,
    fixed: Array,
    start: Transform,
    *,
    model: MotionModel,
    levels: tuple[tuple[int, int], ...] = refine.PYRAMID,
) -> Transform:
    first = MotionModel.SIMILARITY if model is MotionModel.AFFINE else model
    found = refine.refine(moving, fixed, start, model=first, levels=levels)
    if model is MotionModel.AFFINE:
        found = refine.refine(moving, fixed, found, model=model, levels=refine.AFFINE_PYRAMID)
    return found


def at(moving: Array, fixed: Array, transform: Transform) -> Registration:
    """`moving` [n, *space] on the frame of `fixed` by known transformations, and how they correlate there."""
    positions = transform.positions(moving.shape[1:])
    aligned = resample.sample_at(moving.astype(jnp.float32), positions)
    inside = resample.inside(positions, moving.shape[1:])
    space = tuple(range(1, moving.ndim))
    total = jnp.maximum(inside.sum(space, keepdims=True), 1.0)

    def centred(images: Array) -> Array:
        return (images - (images * inside).sum(space, keepdims=True) / total) * inside

    a, b = centred(aligned), centred(fixed)
    # Not the root of a product: of large values float32 does not hold the fourth power.
    norm = jnp.sqrt((a * a).sum(space)) * jnp.sqrt((b * b).sum(space))
    correlation = (a * b).sum(space) / jnp.maximum(norm, 1e-9)
    return Registration(transform, aligned, inside, correlation)


_align = jax.jit(align, static_argnames="model")
_locate = jax.jit(locate, static_argnames=("grid", "model"))


def register(
    moving: Images | Volumes,
    fixed: Images | Volumes,
    *,
    model: MotionModel | None = None,
    grid: SearchGrid | RigidGrid | None = None,
    batch_size: int | None = None,
) -> Registration:
    """Aligns each moving image to the fixed image of its row: global search, then refinement.

    Images are searched over four mirrorings, rotation, scale and shift; volumes over left-right
    mirroring, rotation and shift.

    Args:
      moving: [n, s, s] or [n, d, h, w] real, any intensity scale.
      fixed: likewise, of the same shape.
      model: what the refinement may change; a similarity for images, rigid for volumes if None.
      grid: transformations of the global search, the defaults if None; refinement may leave it a
        little.
      batch_size: pairs on the device at a time; it does not change the result.

    Returns:
      The registration of all pairs; transformations are in pixels of these images. Where float32 would round
      `moving`, because it lies far from zero for its range, `aligned` is less its minimum.

    Raises:
      ValueError: if the shapes differ, or images are not square or hold NaN or infinite values, or there
        is no pair, or the grid is for another dimension. A constant image is brought nowhere: its
        correlation is 0. Inside `jax.jit` the values cannot be seen: the correlation of a pair with NaN or
        infinite values is NaN there.

    Examples:
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(5)
      >>> turned = testing.edited(phantoms[0], "rotation 5 degrees")[None]
      >>> found = ds.register(turned, phantoms[:1])
      >>> bool(found.correlation[0] > 0.99)
      True
    """
    moving, fixed = _checked(moving, "moving"), _checked(fixed, "fixed")
    if moving.shape != fixed.shape:
        raise ValueError(
            f"moving {moving.shape} and fixed {fixed.shape} must be alike; bring them to one size "
            "first, for example with data.preprocess.fit_to_size"
        )
    if not len(moving):
        raise ValueError("there is no pair to register; n is 0")
    dims = moving.ndim - 1
    usual_model = MotionModel.SIMILARITY if dims == 2 else MotionModel.RIGID
    model = usual_model if model is None else arguments.member(model, "model", MotionModel)
    if grid is not None:
        kind = SearchGrid if dims == 2 else RigidGrid
        arguments.instance(grid, "grid", kind, remedy=f"that is the search of {dims}D images")
    size = arguments.batch(batch_size, "batch_size", count=len(moving), usual=_BATCH[dims])
    if dims == 3:
        volume_grid = grid if isinstance(grid, RigidGrid) else RigidGrid()

        def run(a: Array, b: Array) -> Registration:
            normal = (zscore(x, spatial_dims=3) for x in (a, b))
            return _align(a, b, coarse_rigid(*normal, grid=volume_grid), model=model)

    else:
        # Refinement without scale keeps the scale of its start.
        unscaled = {"min_scale": 1.0, "max_scale": 1.0, "scales": 1}
        default = SearchGrid(**unscaled) if model is MotionModel.RIGID else SearchGrid()
        image_grid = grid if isinstance(grid, SearchGrid) else default

        def run(a: Array, b: Array) -> Registration:
            return _locate(a, b, grid=image_grid, model=model)

    found = in_batches(run, moving, fixed, size=size)
    if not arguments.is_traced(moving, fixed):
        return found
    good = arguments.finite_rows(moving) & arguments.finite_rows(fixed)
    return dataclasses.replace(found, correlation=jnp.where(good, found.correlation, jnp.nan))


def _checked(images: Images | Volumes, name: str) -> Images | Volumes:
    images = arguments.images(images, name, shape="[n, s, s] or [n, d, h, w]", dims=(3, 4))
    arguments.levelled(images, name)
    if images.ndim == 3:
        how = {"square": True, "finite": False, "least": LEAST_SIDE}
        arguments.images(images, name, shape="[n, s, s]", dims=(3,), **how)
    return images
