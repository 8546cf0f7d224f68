"""Gauss-Newton refinement of an alignment, for every model of `ops.transform`, in 2D and 3D.

Contract: `moving` and `fixed` are float [n, *space] of one shape, one row a pair.

An inverse-compositional iteration (Baker and Matthews, IJCV 56, 2004) minimises the difference of
the images, normalised where both have data, from coarse to fine. Pixels whose difference is large
against that of the rest count less, by the weight of Geman and McClure (Black and Anandan, CVIU 63,
1996, section 3): a region that was changed shall not pull the rest out of place.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import products, resample
from deepssim_jax.ops.transform import MotionModel, Transform, ellipsoid
from deepssim_jax.typing import Array, Images

PYRAMID = ((4, 8), (2, 5), (1, 2))
# All of M's coefficients need a good start, so they come after those of a similarity.
AFFINE_PYRAMID = ((2, 6), (1, 4))
# Squared differences, in units of their weighted mean, at which a pixel's weight falls to a quarter.
_TOLERANCE = 4.0
# Each makes the weights from the residual under the ones before.
_REWEIGHTINGS = 3


@functools.partial(jax.jit, static_argnames=("model", "levels"))
def refine(
    moving: Images,
    fixed: Images,
    start: Transform,
    *,
    model: MotionModel,
    levels: tuple[tuple[int, int], ...] = PYRAMID,
) -> Transform:
    """The transformation near `start` that brings `moving` closest to `fixed`.

    Args:
      moving: [n, *space].
      fixed: [n, *space].
      start: within about two pixels of a quarter of the size; of a similarity, or rigid.
      model: what may change.
      levels: (the side is divided by this, Gauss-Newton steps), from coarse to fine.

    Returns:
      The refined transformations.
    """
    size = fixed.shape[1:]
    for divisor, steps in levels:
        shape = tuple(-(-side // divisor) for side in size)
        a, b = (
            jnp.asarray(x) if shape == size else resample.resize(x, shape) for x in (moving, fixed)
        )
        start = _descend(a, b, start, model=model, steps=steps, size=size)
    return start


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
        a, b, residual = resample.sample_at(moving, positions), fixed, jnp.zeros_like(fixed)
        counts = mask
        for _ in range(_REWEIGHTINGS):
            total = jnp.maximum(_sum(counts), 1.0)
            a, b = (x - _sum(x * counts) / total for x in (a, b))
            gain = _sum(a * b * counts) / jnp.maximum(_sum(a * a * counts), 1e-12 * total)
            residual = jnp.maximum(gain, 0.0) * a - b
            spread = _TOLERANCE * _sum(residual**2 * counts) / total + 1e-9
            counts = mask / (1 + residual**2 / spread) ** 2
        masked = jacobian * counts.reshape(n, 1, -1)
        hessian = products.einsum("nis,njs->nij", masked, jacobian)
        # A little of the trace keeps a flat image's system solvable.
        ridge = 2.5e-4 * jnp.trace(hessian, axis1=1, axis2=2) + 1e-9
        hessian = hessian + ridge[:, None, None] * jnp.eye(unknowns)[None]
        slope = products.einsum("nis,ns->ni", masked, residual.reshape(n, -1))
        delta = jnp.linalg.solve(hessian, slope[..., None])[..., 0]
        return current.after_inverse(generators, jnp.clip(delta, -furthest, furthest))

    return jax.lax.fori_loop(0, steps, step, transform)


def _sum(images: Array) -> Array:
    return images.sum(tuple(range(1, images.ndim)), keepdims=True)
