"""Gauss-Newton refinement of an alignment, for every model of `ops.transform`, in 2D and 3D.

Contract: `moving` and `fixed` are float [n, *space] of one shape, one row a pair.

An inverse-compositional iteration (Baker and Matthews, IJCV 56, 2004) minimises the difference of
the images, normalised where both have data, from coarse to fine.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import resample
from deepssim_jax.ops.transform import MotionModel, Transform, ellipsoid
from deepssim_jax.typing import Array, Images

# (the side is divided by this, Gauss-Newton steps)
PYRAMID = ((4, 8), (2, 5), (1, 2))
# All of M's coefficients need a good start, so they come after those of a similarity.
_AFFINE_PYRAMID = ((2, 6), (1, 4))


@functools.partial(jax.jit, static_argnames="model")
def refine(moving: Images, fixed: Images, start: Transform, *, model: MotionModel) -> Transform:
    """The transformation near `start` that brings `moving` closest to `fixed`.

    Args:
      moving: [n, *space].
      fixed: [n, *space].
      start: within about two pixels of a quarter of the size; of a similarity, or rigid.
      model: what may change.

    Returns:
      The refined transformations.
    """
    first = MotionModel.SIMILARITY if model is MotionModel.AFFINE else model
    transform = _pyramid(moving, fixed, start, model=first, levels=PYRAMID)
    if model is MotionModel.AFFINE:
        transform = _pyramid(moving, fixed, transform, model=model, levels=_AFFINE_PYRAMID)
    return transform


def _pyramid(
    moving: Images,
    fixed: Images,
    transform: Transform,
    *,
    model: MotionModel,
    levels: tuple[tuple[int, int], ...],
) -> Transform:
    size = fixed.shape[1:]
    for divisor, steps in levels:
        shape = tuple(-(-side // divisor) for side in size)
        a, b = (
            jnp.asarray(x) if shape == size else resample.resize(x, shape) for x in (moving, fixed)
        )
        transform = _descend(a, b, transform, model=model, steps=steps, size=size)
    return transform


def _descend(
    moving: Array,
    fixed: Array,
    transform: Transform,
    *,
    model: MotionModel,
    steps: int,
    size: tuple[int, ...],
) -> Transform:
    """`steps` of Gauss-Newton on images that stand for ones of shape `size`.

    A gain and an offset between the images do not matter. The Jacobian belongs to the fixed image
    alone and is built once.
    """
    n, shape = len(fixed), fixed.shape[1:]
    factor = [a / b for a, b in zip(shape, size)]
    axes = np.meshgrid(*(np.arange(s) - (s - 1) / 2 for s in shape), indexing="ij", sparse=True)
    weight = jnp.asarray(ellipsoid(shape, radius=0.9), jnp.float32)[None]
    gradients = jnp.gradient(fixed, axis=tuple(range(1, fixed.ndim)))
    gradients = [g * f for g, f in zip(gradients, factor)]
    places = [jnp.asarray(axis / f, jnp.float32)[None] for axis, f in zip(axes, factor)]
    # Coefficients of M are multiplied by half the side, so that all have the unit of pixels.
    generators = model.generators(len(shape)) / (min(size) / 2)
    columns = [
        sum(
            float(generator[i, j]) * gradients[i] * places[j]
            for i, j in zip(*np.nonzero(generator), strict=True)
        )
        for generator in generators
    ]
    jacobian = (jnp.stack([*columns, *gradients], 1) * weight[:, None]).reshape(
        n, -1, int(np.prod(shape))
    )
    unknowns = jacobian.shape[1]
    furthest = 3.0 / min(factor)  # pixels a step

    def step(iteration: int, current: Transform) -> Transform:
        del iteration
        positions = current.positions(shape, size=size)
        mask = weight * resample.inside(positions, shape)
        total = jnp.maximum(_sum(mask), 1.0)

        def normal(images: Array) -> Array:
            return (images - _sum(images * mask) / total) * mask

        a, b = normal(resample.sample_at(moving, positions)), normal(fixed)
        gain = _sum(a * b) / jnp.maximum(_sum(a * a), 1e-12 * total)
        masked = jacobian * mask.reshape(n, 1, -1)
        hessian = jnp.einsum("nis,njs->nij", masked, jacobian)
        # A little of the trace keeps a flat image's system solvable.
        ridge = 2.5e-4 * jnp.trace(hessian, axis1=1, axis2=2) + 1e-9
        hessian = hessian + ridge[:, None, None] * jnp.eye(unknowns)[None]
        residual = (jnp.maximum(gain, 0.0) * a - b).reshape(n, -1)
        slope = jnp.einsum("nis,ns->ni", masked, residual)
        delta = jnp.linalg.solve(hessian, slope[..., None])[..., 0]
        return current.after_inverse(generators, jnp.clip(delta, -furthest, furthest))

    return jax.lax.fori_loop(0, steps, step, transform)


def _sum(images: Array) -> Array:
    return images.sum(tuple(range(1, images.ndim)), keepdims=True)
