"""Other pictures of nobody: procedural chest films and textures, so that an encoder sees more
than brains.

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


def _layers(key: Array, n: int, size: tuple[int, int], scales: tuple[int, ...]) -> Array:
    keys = jax.random.split(key, len(scales))
    fields = [_smooth_field(k, n, size, p) * p**-0.5 for k, p in zip(keys, scales, strict=True)]
    total = jnp.stack(fields).sum(0)
    return total / (total.std((1, 2), keepdims=True) + 1e-6)


def _unit(images: Array) -> Array:
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
    smooth = _layers(keys[0], n, size, (4, 8, 16, 32))
    regions = jnp.tanh(6 * _layers(keys[1], n, size, (3, 6, 12)))
    share = jax.random.uniform(keys[2], (n, 1, 1))
    body = jax.nn.sigmoid(12 * (_radius(keys[3], n, size)))
    return _unit((share * smooth + (1 - share) * regions + 3) * body)


def _radius(key: Array, n: int, size: tuple[int, int]) -> Array:
    """Positive inside a random blob, negative outside."""
    y, x = (jnp.asarray(g, jnp.float32)[None] for g in _grid(size))
    draw = jax.random.uniform(key, (4, n, 1, 1))
    ry, rx = 0.7 + 0.6 * draw[0], 0.7 + 0.6 * draw[1]
    return 1 - jnp.hypot((y - 0.2 * draw[2] + 0.1) / ry, (x - 0.2 * draw[3] + 0.1) / rx)


def _grid(size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    return np.meshgrid(*(np.linspace(-1, 1, s) for s in size), indexing="ij")


@functools.partial(jax.jit, static_argnames=("n", "size"))
def chests(key: Array, n: int, *, size: tuple[int, int] = (128, 128)) -> jax.Array:
    """Frontal chest films: lungs, heart, spine, ribs, clavicles, diaphragm, shoulders.

    Args:
      key: typed PRNG key.
      n: pictures, each of its own person.
      size: (height, width).
    """
    keys = jax.random.split(key, 6)
    y, x = (jnp.asarray(g, jnp.float32)[None] for g in _grid(size))
    # Bent coordinates give every person a different frame.
    bend = 0.05
    y = y + bend * _layers(keys[0], n, size, (3, 5))
    x = x + bend * _layers(keys[1], n, size, (3, 5))
    draws = iter(jax.random.uniform(keys[2], (32, n, 1, 1), minval=-1.0))

    def about(mean: float, spread: float) -> Array:
        return mean + spread * next(draws)

    def soft(inside: Array, width: float = 0.03) -> Array:
        return jax.nn.sigmoid(inside / width)

    def oval(cy: Array, cx: Array, ry: Array, rx: Array) -> Array:
        power = 2.6  # a little squarer than an ellipse
        distance = (jnp.abs((y - cy) / ry) ** power + jnp.abs((x - cx) / rx) ** power) ** (
            1 / power
        )
        return (1 - distance) * jnp.minimum(ry, rx)

    width, half, top = about(0.88, 0.1), about(0.3, 0.05), about(-0.1, 0.1)
    lungs = jnp.zeros_like(y)
    for side in (-1.0, 1.0):
        lung = soft(oval(top, side * about(0.42, 0.05), about(0.62, 0.09), half))
        base = about(0.38, 0.14) + about(0.25, 0.15) * (x - side * 0.4) ** 2 * 4
        lungs = jnp.maximum(lungs, lung * soft(base - y))
    heart = soft(
        oval(about(0.3, 0.1), about(0.12, 0.08), about(0.33, 0.07), about(0.3, 0.08)), 0.05
    )
    neck = soft(0.2 - jnp.abs(x)) * soft(-0.6 - y, 0.06)
    trunk = soft(width - jnp.abs(x) - 0.25 * jnp.maximum(-y - 0.55, 0) * 2) * soft(y + 0.85, 0.05)
    spine = soft(about(0.09, 0.02) - jnp.abs(x - about(0.0, 0.03)), 0.02)
    discs = 0.5 + 0.5 * jnp.sin(y * about(26.0, 4.0) + about(0.0, 3.0))
    slope, count = about(0.45, 0.15), about(19.0, 3.0)
    arc = y + slope * jnp.abs(x) ** 1.5 - 0.25 * jnp.abs(x)
    ribs = jnp.exp(-(((jnp.sin(arc * count / 2 + about(0.0, 3.0))) / 0.35) ** 2))
    line = y - about(-0.62, 0.06) + about(0.12, 0.1) * jnp.abs(x)
    clavicle = jnp.exp(-((line / 0.03) ** 2)) * soft(0.65 - jnp.abs(x), 0.05)
    vessels = _layers(keys[3], n, size, (16, 32, 48))
    hilum = jnp.exp(-((jnp.abs(x) - 0.2) ** 2 + (y - top) ** 2) / 0.05)
    body = jnp.maximum(trunk, neck)
    film = 0.75 * body - about(0.45, 0.1) * lungs
    film = film + about(0.3, 0.1) * heart * body + 0.12 * spine * (0.7 + 0.3 * discs) * body
    film = film + about(0.09, 0.04) * ribs * lungs + 0.1 * clavicle * body
    film = film + about(0.05, 0.03) * vessels * lungs * (0.4 + 2 * hilum)
    film = film + 0.05 * _layers(keys[4], n, size, (4, 9)) * body
    exposure = jnp.exp(0.4 * jax.random.normal(keys[5], (n, 1, 1)))
    return jnp.clip(_unit(film), 1e-4, 1.0) ** exposure
