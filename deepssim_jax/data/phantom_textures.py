"""Pictures of nothing: smooth random fields and textures made of them.

Contract: float32 [n, h, w] in [0, 1]; the key is the identity: one key always gives the same
pictures. Two-dimensional only.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.typing import Array


def _smooth_field(key: Array, n: int, size: tuple[int, int], points: int) -> Array:
    """[n, h, w] of about unit variance whose details are size / points wide."""
    coarse = jax.random.normal(key, (n, points, points))
    field = jax.image.resize(coarse, (n, *size), "cubic")
    return field / (field.std((1, 2), keepdims=True) + 1e-6)


def layers(key: Array, n: int, size: tuple[int, int], scales: tuple[int, ...]) -> Array:
    """[n, h, w] of about unit variance: fields of these many details a side, finer ones fainter."""
    keys = jax.random.split(key, len(scales))
    fields = [_smooth_field(k, n, size, p) * p**-0.5 for k, p in zip(keys, scales, strict=True)]
    total = jnp.stack(fields).sum(0)
    return total / (total.std((1, 2), keepdims=True) + 1e-6)


def to_unit(images: Array) -> Array:
    """Each of [n, h, w] from its darkest, 0, to its brightest, 1."""
    low = images.min((1, 2), keepdims=True)
    return (images - low) / (images.max((1, 2), keepdims=True) - low + 1e-6)


@functools.partial(jax.jit, static_argnames=("n", "size"))
def textures(key: Array, n: int, *, size: tuple[int, int] = (128, 128)) -> jax.Array:
    """Smooth random fields, partly cut into flat regions as tissue is.

    Args:
      key: typed PRNG key.
      n: pictures.
      size: (height, width).
    """
    keys = jax.random.split(key, 4)
    smooth = layers(keys[0], n, size, (4, 8, 16, 32))
    regions = jnp.tanh(6 * layers(keys[1], n, size, (3, 6, 12)))
    share = jax.random.uniform(keys[2], (n, 1, 1))
    body = jax.nn.sigmoid(12 * (_radius(keys[3], n, size)))
    return to_unit((share * smooth + (1 - share) * regions + 3) * body)


def _radius(key: Array, n: int, size: tuple[int, int]) -> Array:
    """Positive inside a random blob, negative outside."""
    y, x = (jnp.asarray(g, jnp.float32)[None] for g in grid(size))
    draw = jax.random.uniform(key, (4, n, 1, 1))
    ry, rx = 0.7 + 0.6 * draw[0], 0.7 + 0.6 * draw[1]
    return 1 - jnp.hypot((y - 0.2 * draw[2] + 0.1) / ry, (x - 0.2 * draw[3] + 0.1) / rx)


def grid(size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """(y, x) [h, w] of every pixel, from -1 to 1."""
    return np.meshgrid(*(np.linspace(-1, 1, s) for s in size), indexing="ij")
