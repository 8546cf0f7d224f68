"""Frontal chest films of nobody, so that an encoder sees more than brains.

Contract: float32 [n, h, w] in [0, 1]; the key is the identity: one key always gives the same
pictures. A film is drawn as its shadows add up: soft tissue as thick as a body is, minus the air
of the lungs, plus bones, heart and what lies below the domes; then exposed, framed and marked.
Positions in a body run from -1 (neck, its right side) to 1; `s` is the same from the midline
outwards, on either side. Sizes and angles follow textbook proportions, in wide ranges.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from deepssim_jax.data.phantom_textures import grid, layers, to_unit
from deepssim_jax.typing import Array

_About = Callable[[float, float], Array]  # (mean, spread) to [n, 1, 1], uniform
_EDGE = 0.02
_DRAWS = 168


def _soft(inside: Array, width: float = _EDGE) -> Array:
    """1 well inside, 0 well outside, of a signed distance."""
    return jax.nn.sigmoid(inside / (0.5 * width))


def _oval(y: Array, x: Array, ry: Array | float, rx: Array | float) -> Array:
    """Distance from an ellipse's edge, about; positive inside."""
    return (1 - jnp.hypot(y / ry, x / rx)) * jnp.minimum(ry, rx)


def _tube(across: Array, radius: Array | float) -> Array:
    """What a full tube absorbs at a distance from its axis: 1 in the middle."""
    return jnp.sqrt(jnp.maximum(1 - (across / radius) ** 2, 0.0))


@functools.partial(jax.jit, static_argnames=("n", "size"))
def chests(key: Array, n: int, *, size: tuple[int, int] = (128, 128)) -> jax.Array:
    """Frontal chest films.

    Args:
      key: typed PRNG key.
      n: pictures, each of its own person.
      size: (height, width).
    """
    keys = jax.random.split(key, 8)
    draws = iter(jax.random.uniform(keys[0], (_DRAWS, n, 1, 1), minval=-1.0))

    def about(mean: float, spread: float) -> Array:
        return mean + spread * next(draws)

    film_y, film_x = (jnp.asarray(g, jnp.float32)[None] for g in grid(size))
    turn, zoom = about(0.0, 0.06), about(0.88, 0.17)
    y = (film_y - film_x * turn) * zoom * about(1.0, 0.12) + about(0.0, 0.12)
    x = (film_x + film_y * turn) * zoom + about(0.0, 0.08)
    # Bent coordinates give every person a different frame.
    y = y + 0.03 * layers(keys[1], n, size, (3, 5))
    x = x + 0.03 * layers(keys[2], n, size, (3, 5))
    texture = layers(keys[3], n, size, (16, 32, 48))
    haze = layers(keys[4], n, size, (3, 6))

    width, top, base = about(0.92, 0.12), about(-0.74, 0.05), about(0.42, 0.16)
    shadow = _trunk(y, x, width, about)
    chest = jnp.zeros_like(shadow)
    for side in (-1.0, 1.0):
        lung, bones = _half(y, side * x, texture, haze, top, base, about)
        chest = jnp.maximum(chest, lung)
        shadow = shadow - about(0.5, 0.06) * lung * (1 + about(0.1, 0.1) * texture) + bones
    shadow = shadow + _middle(y, x, base, about)
    shadow = shadow + _below(y, x, base, about) * (1 - chest)
    shadow = shadow + 0.04 * layers(keys[5], n, size, (4, 9)) * (1 - chest)
    shadow = shadow + _devices(y, x, about)
    film = _exposed(jnp.maximum(shadow, 0), about)
    film = film + 0.01 * jax.random.normal(keys[6], film.shape)
    return _framed(jnp.clip(film, 1e-4, 1.0), film_y, film_x, about)


def _sometimes(about: _About, share: float) -> Array:
    """1 in a share of the people, else 0."""
    return (about(0.5, 0.5) < share).astype(jnp.float32)


def _trunk(y: Array, x: Array, width: Array, about: _About) -> Array:
    """Neck, shoulders, flanks, arms and breasts: thick in the middle, thin at the edges."""
    shoulder = jnp.maximum(-y - about(0.55, 0.1), 0)
    outline = width * jnp.sqrt(jnp.maximum(1 - (shoulder / 0.5) ** 2, 0.05))
    inside = outline - jnp.abs(x)
    body = (0.35 + 0.65 * _tube(x, outline)) * _soft(inside)
    for side in (-1.0, 1.0):
        away = side * x - outline - about(0.12, 0.06) - about(0.08, 0.1) * y
        arm = 0.6 * _tube(away, 0.17) + 0.35 * _tube(away, 0.05)
        body = jnp.maximum(body, arm * _soft(y + 0.45, 0.1) * _sometimes(about, 0.5))
        oval = _oval(y - about(0.4, 0.12), side * x - about(0.45, 0.06), about(0.3, 0.1), 0.33)
        body = body + about(0.08, 0.06) * _soft(oval, 0.05) * _sometimes(about, 0.5)
    return body


def _half(
    y: Array, s: Array, texture: Array, haze: Array, top: Array, base: Array, about: _About
) -> tuple[Array, Array]:
    """The air of one lung, and the bones around it."""
    down = jnp.clip((y - top) / (base - top), 0, 1)
    inner = about(0.1, 0.03) + 0.04 * down
    reach = about(0.62, 0.07)
    outer = 0.08 + reach * (1 - (1 - down) ** about(2.3, 0.4)) ** 0.45
    # A dome stands highest near its middle; an effusion flattens and raises it.
    dome = base - about(0.06, 0.08) + about(0.3, 0.1) * jnp.square((s - 0.33) / 0.4)
    dome = dome - about(0.25, 0.25) * _sometimes(about, 0.15)
    inside = jnp.minimum(jnp.minimum(s - inner, outer - s), jnp.minimum(dome - y, y - top))
    lung = _soft(inside) * (0.55 + 0.45 * jnp.sqrt(jnp.clip(inside / 0.25, 0, 1)))
    hilum = jnp.exp(-(jnp.square(s - 0.17) + 0.5 * jnp.square(y - about(-0.1, 0.06))) / 0.03)
    lung = lung * (1 - about(0.35, 0.15) * hilum * (1 + 0.5 * texture))
    opaque = _soft(haze - about(0.6, 0.5), 1.0) * about(0.5, 0.4) * _sometimes(about, 0.3)
    lung = lung * (1 - opaque)

    within = _soft(s - 0.06) * _soft(outer + 0.05 - s) * _soft(base + 0.25 - y, 0.2)
    within = within * _soft(y - top + 0.05)
    step, start = about(0.155, 0.02), about(0.0, 0.1)
    fall = about(0.75, 0.2) * jnp.maximum(s - 0.12, 0) ** 1.7 - 0.1 * jnp.minimum(s, 0.3)
    ribs = _ribs((y + 0.08 * y**2 - fall - start) / step) * within
    front = y + about(0.75, 0.2) * s - about(0.0, 0.1)
    ribs = ribs * about(0.1, 0.04) + about(0.06, 0.03) * _ribs(front / (1.1 * step)) * (
        within * _soft(s - about(0.3, 0.05), 0.1)
    )
    run = jnp.clip((s - 0.06) / 0.7, 0, 1)
    course = about(-0.55, 0.06) - about(0.14, 0.1) * run + 0.04 * jnp.sin(2 * jnp.pi * run)
    clavicle = _tube(y - course, about(0.035, 0.008)) * _soft(s - 0.06) * _soft(0.75 - s)
    edge = jnp.minimum(s - about(0.6, 0.1) - 0.25 * (y + 0.3), about(0.05, 0.15) - y)
    blade = _soft(jnp.minimum(edge, jnp.minimum(0.95 - s, y + 0.65)), 0.03)
    bones = ribs + about(0.14, 0.05) * clavicle
    return lung, bones + about(0.07, 0.04) * blade * _sometimes(about, 0.7)


def _ribs(turns: Array) -> Array:
    """Bands, one a turn, brighter along their edges."""
    wave = jnp.cos(2 * jnp.pi * turns)
    return jax.nn.sigmoid(8 * (wave - 0.2)) - 0.45 * jax.nn.sigmoid(8 * (wave - 0.75))


def _middle(y: Array, x: Array, base: Array, about: _About) -> Array:
    """Heart, great vessels, windpipe and spine."""
    large = about(0.33, 0.1)
    across, along = x - about(0.13, 0.07), y - base + about(0.22, 0.06)
    lean = about(0.4, 0.25)
    heart = _oval(along - lean * across, across + lean * along, 0.75 * large, large)
    knob = _oval(y + about(0.33, 0.05), x - about(0.13, 0.04), 0.09, about(0.09, 0.03))
    vessels = jnp.minimum(about(0.13, 0.04) - jnp.abs(x), base - y)
    solid = jnp.maximum(_soft(heart, 0.03), jnp.maximum(_soft(knob), _soft(vessels, 0.04)))
    lie = about(0.0, 0.04) * jnp.sin(about(2.0, 1.0) * y + about(0.0, 3.0))
    bodies = 0.7 + 0.3 * jnp.cos(y * about(50.0, 8.0) + about(0.0, 3.0))
    spine = about(0.08, 0.05) * _soft(0.09 - jnp.abs(x - lie)) * bodies
    windpipe = _tube(x - lie - about(0.0, 0.02), 0.045) * _soft(about(-0.25, 0.05) - y, 0.05)
    return about(0.27, 0.1) * solid + spine - about(0.1, 0.05) * windpipe


def _below(y: Array, x: Array, base: Array, about: _About) -> Array:
    """The liver's density, and gas under the left dome."""
    liver = about(0.1, 0.08) * _soft(y - base, 0.1)
    depth = base + about(0.2, 0.06)
    gas = _oval(y - depth, x - about(0.4, 0.1), about(0.09, 0.05), about(0.15, 0.07))
    return liver - about(0.15, 0.1) * _soft(gas) * _sometimes(about, 0.5)


def _devices(y: Array, x: Array, about: _About) -> Array:
    """Lines and tubes, electrodes, a pacemaker: on some people, not on most."""
    total = jnp.zeros_like(y + x)
    for upright in (True, True, False):
        along, across = (y, x) if upright else (x, y)
        course = about(0.0, 0.3) + about(0.0, 0.3) * along
        course = course + about(0.1, 0.1) * jnp.sin(about(3.0, 2.0) * along + about(0.0, 3.0))
        length = jnp.minimum(along - about(-0.9, 0.3), about(0.4, 0.5) - along)
        wire = jnp.exp(-jnp.square((across - course) / 0.015)) * _soft(length)
        total = total + about(0.15, 0.1) * wire * _sometimes(about, 0.25)
    wired = _sometimes(about, 0.25)
    for _ in range(3):
        disc = _soft(0.04 - jnp.hypot(y - about(0.0, 0.6), x - about(0.0, 0.7)))
        total = total + about(0.25, 0.1) * disc * wired
    box = _oval(y + about(0.45, 0.1), jnp.abs(x) - about(0.5, 0.08), 0.09, 0.12)
    return total + 0.4 * _soft(box) * _soft(x * about(0.0, 1.0)) * _sometimes(about, 0.1)


def _exposed(shadow: Array, about: _About) -> Array:
    """A film's tone: thick parts look alike, and what is too dark or too bright is cut off."""
    tone = to_unit(1 - jnp.exp(-shadow * about(1.3, 0.8))) ** jnp.exp(about(0.4, 0.5))
    cut = _sometimes(about, 0.6)
    low, high = about(0.06, 0.06) * cut, 1 - about(0.05, 0.05) * cut
    return jnp.clip((tone - low) / (high - low), 0, 1)


def _framed(film: Array, y: Array, x: Array, about: _About) -> Array:
    """Collimated at times, a little askew, and marked with a letter's worth of brightness."""
    turn = about(0.0, 0.08)
    across, along = x + turn * y, y - turn * x
    inside = jnp.minimum(
        jnp.minimum(about(1.0, 0.15) - across, about(1.0, 0.15) + across),
        jnp.minimum(about(1.0, 0.15) - along, about(1.0, 0.15) + along),
    )
    outside = (1 - _soft(inside)) * _sometimes(about, 0.4)
    film = film * (1 - outside) + outside * _sometimes(about, 0.15)
    corner_y, corner_x = about(-0.8, 0.15), about(0.0, 1.0)
    corner_x = jnp.sign(corner_x) * (0.75 + 0.18 * jnp.abs(corner_x))
    side = jnp.maximum(jnp.abs(y - corner_y) - about(0.05, 0.02), jnp.abs(x - corner_x) - 0.03)
    mark = _soft(-side) * _sometimes(about, 0.7)
    return film * (1 - mark) + about(0.85, 0.15) * mark
