"""Copies planted in memory: what a detector must find, with labels known by construction.

Contract: images float or integer [n, s, s]; the result is float32 [n, s, s], z-scored. An exact
copy keeps every structure (mirrored, turned, zoomed, moved, brighter, blurred, noisier); a near
copy is an exact one in which a region was replaced by the same region of another image.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import augment
from deepssim_jax.ops.batches import filled_up
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.typing import Array, Images

_TOGETHER = 32
# Share of the image's area that a near copy takes from elsewhere.
_REGION_AREA = (0.08, 0.25)


@functools.partial(jax.jit, static_argnames=("config",))
def _perturb(key: Array, images: Array, *, config: augment.AugmentConfig) -> Array:
    draw, noise = jax.random.split(key)
    images = zscore(images)
    params = augment.sample_params(draw, images.shape, config)
    return zscore(augment.augment(images, params, noise))


@jax.jit
def _replace_region(key: Array, images: Array, donors: Array) -> Array:
    """A soft-edged disc of each image from its donor, somewhere in the central part."""
    n, size = images.shape[0], images.shape[-1]
    place, extent = jax.random.split(key)
    centre = jax.random.uniform(place, (n, 2), minval=-0.25, maxval=0.25) * size
    low, high = _REGION_AREA
    area = jax.random.uniform(extent, (n,), minval=low, maxval=high) * size**2
    radius = jnp.sqrt(area / jnp.pi)
    axis = jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2
    y = axis[None, :, None] - centre[:, :1, None]
    x = axis[None, None, :] - centre[:, 1:, None]
    soft = jax.nn.sigmoid((radius[:, None, None] - jnp.hypot(y, x)) / (0.02 * size))
    return zscore(images * (1 - soft) + donors * soft)


def exact_copies(images: Images, *, seed: int) -> np.ndarray:
    """Copies under the transformations of `ops.augment.AugmentConfig.copies`."""
    key, config = jax.random.key(seed), augment.AugmentConfig.copies()
    return np.asarray(_perturb(key, _filled_up(images), config=config))[: len(images)]


def near_copies(images: Images, donors: Images, *, seed: int) -> np.ndarray:
    """Copies of which 8 to 25 % of the area comes from `donors` [n, s, s], then perturbed."""
    region, rest = jax.random.split(jax.random.key(seed))
    mixed = _replace_region(region, *(zscore(_filled_up(x)) for x in (images, donors)))
    copies = _perturb(rest, mixed, config=augment.AugmentConfig.copies())
    return np.asarray(copies)[: len(images)]


def _filled_up(images: Images) -> Array:
    """float32, the last image repeated up to a multiple of 32: few programs serve any number of images.

    What is drawn for an image does not depend on how many come after it.
    """
    return jnp.asarray(np.asarray(images)[filled_up(len(images), _TOGETHER)], jnp.float32)
