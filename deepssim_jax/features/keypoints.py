"""Where the points of an image lie, how large they are and how they are turned.

Contract: a fixed number of points an image, with a mask of those that exist. Extrema of the
difference of Gaussians in space and scale (Lowe, IJCV 60, 2004, sections 3 to 5), kept by a quota
for each octave, so that neither fine texture nor coarse outlines take all places.
"""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.features.scale_space import LEVELS, Octave
from deepssim_jax.ops.products import einsum
from deepssim_jax.ops.topk import top_k
from deepssim_jax.typing import Array

# Points of each octave, of 256; places that one does not need go to the others.
QUOTA = (64, 128, 48, 16)
_CELL = 4  # pixels of an octave; one point a cell is looked at
_BORDER = 4  # pixels of an octave without neighbours to judge by
_WEAKER = 0.25  # what a point with a stronger one in a neighbouring cell counts
_SPARE = 2.0  # an octave proposes this many times its quota, for places that others do not need
_FLAT = 3e-4  # weaker differences are rounding
_EDGE = 10.0  # ratio of the principal curvatures beyond which a point lies on a line
_BINS = 36
_SECOND = 0.8  # a second orientation as strong as this beside the first makes a second point
_HARMONICS = 9  # of the histogram that its smoothing leaves
_WINDOW = 13  # samples a side for the orientation ...
_REACH = 4.5  # ... up to this many sigmas from the point
_WIDTH = 1.5  # of the Gaussian window in sigmas


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("octave", "level", "y", "x", "sigma", "polarity", "response"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Points:
    """Points of n images, each array [n, k], in the pixels of their own octave.

    `octave` int from 0, `level` int from 1 to LEVELS, `sigma` the blur at which the point stands out,
    `polarity` 1 for bright and -1 for dark points, `response` 0 where there is no point.
    """

    octave: Array
    level: Array
    y: Array
    x: Array
    sigma: Array
    polarity: Array
    response: Array

    def take(self, order: Array) -> "Points":
        """Points by their places [n, m]."""
        leaves, kind = jax.tree.flatten(self)
        # Whole numbers are small. One reading of all: the places are worked out once.
        rows = jnp.stack([leaf.astype(jnp.float32) for leaf in leaves], -1)
        rows = jnp.take_along_axis(rows, order[..., None], 1, mode="promise_in_bounds")
        taken = [rows[..., i].astype(leaf.dtype) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(kind, taken)


def detect(pyramid: list[Octave], content: Array, *, count: int) -> Points:
    """The strongest extrema of all octaves by quota, in the order of their worth.

    Every octave's first points come before any's second ones, so that a prefix is a fair sample.

    Args:
      pyramid: of `scale_space.build`, one octave for each of `QUOTA`.
      content: float32 [n, 2], the rows and columns of the canvas that hold the image, in its middle.
      count: points an image.
    """
    found, ranks = [], []
    for number, (octave, share) in enumerate(zip(pyramid, QUOTA, strict=True)):
        quota = share * count / sum(QUOTA)
        points = _strongest(octave, number, content, count=round(_SPARE * quota))
        rank = jnp.arange(points.response.shape[1])[None] / quota
        found.append(points)
        ranks.append(jnp.where(points.response > _FLAT, -rank, -jnp.inf))
    points = jax.tree.map(lambda *a: jnp.concatenate(a, 1), *found)
    return points.take(top_k(jnp.concatenate(ranks, 1), count)[1])


def _strongest(octave: Octave, number: int, content: Array, *, count: int) -> Points:
    """The strongest extrema of one octave, best first."""
    response = _extrema(octave, content)
    n, h, w = response[0].shape
    best = functools.reduce(jnp.maximum, response)
    best = (
        best.reshape(n, h // _CELL, _CELL, w)
        .max(2)
        .reshape(n, h // _CELL, w // _CELL, _CELL)
        .max(3)
    )
    best = jax.lax.optimization_barrier(best)
    best = jnp.where(best < _maximum3(best), _WEAKER * best, best)
    strength, cell = top_k(best.reshape(n, -1), min(3 * count, best[0].size))
    # Which of the cell's pixels it was, and at which level.
    # Whole numbers from 0 on: `//` and `%` would ask for signs, which takes longer to compile.
    row, column = jax.lax.div(cell, w // _CELL), jax.lax.rem(cell, w // _CELL)
    corner = row * _CELL * w + column * _CELL
    pixels = np.add.outer(np.arange(_CELL) * w, np.arange(_CELL)).ravel()
    places = (corner[..., None] + pixels[None, None]).reshape(n, -1)
    inside = jnp.concatenate(
        [_along(r.reshape(n, -1), places).reshape(n, -1, _CELL**2) for r in response],
        -1,
    )
    place = jnp.argmax(inside, -1)
    level = 1 + jax.lax.div(place, _CELL**2)
    y = row * _CELL + jax.lax.div(jax.lax.rem(place, _CELL**2), _CELL)
    x = column * _CELL + jax.lax.rem(place, _CELL)
    strength = jnp.where(inside.max(-1) > _FLAT, strength, 0.0)
    points = _refine(octave, number, level, y, x, strength)
    return points.take(top_k(points.response, min(count, strength.shape[1]))[1])


def _extrema(octave: Octave, content: Array) -> list[Array]:
    """|difference| [n, h, w] of each level where it is the largest among its 26 neighbours, else 0."""
    sizes = [jnp.abs(d) for d in octave.differences]
    n, h, w = sizes[0].shape
    # Half of the content's extent, in pixels of the octave, less the border.
    half = content[:, :, None] / (2 * octave.step) - _BORDER
    allowed = [
        jnp.abs(jnp.arange(side) - (side - 1) / 2)[None] <= half[:, axis]
        for axis, side in enumerate((h, w))
    ]
    mask = allowed[0][:, :, None] & allowed[1][:, None, :]
    out = []
    for i in range(1, LEVELS + 1):
        # Over the levels first: three fields have their neighbours asked instead of five.
        top = jnp.maximum(jnp.maximum(sizes[i - 1], sizes[i + 1]), sizes[i])
        out.append(jnp.where(mask & (sizes[i] >= _maximum3(top)), sizes[i], 0.0))
    return jax.lax.optimization_barrier(out)


def _maximum3(x: Array) -> Array:
    """Maximum of 3 x 3 neighbours; zeros beyond the border."""
    for axis in (-2, -1):
        widths = [(0, 0)] * x.ndim
        widths[axis % x.ndim] = (1, 1)
        wide = jnp.pad(x, widths)
        n = x.shape[axis]
        before, here, after = (jax.lax.slice_in_dim(wide, i, i + n, axis=axis) for i in range(3))
        x = jnp.maximum(jnp.maximum(before, after), here)
    return x


def _refine(
    octave: Octave, number: int, level: Array, y: Array, x: Array, strength: Array
) -> Points:
    """Position and scale between the pixels by a parabola; points on lines lose their strength."""
    d = jnp.stack(octave.differences, 1)
    n, _, h, w = d.shape
    flat = d.reshape(n, -1)
    y, x = jnp.clip(y, 1, h - 2), jnp.clip(x, 1, w - 2)

    around = [*itertools.product((0,), (-1, 0, 1), (-1, 0, 1)), (-1, 0, 0), (1, 0, 0)]
    place = (level * h + y) * w + x
    places = place[..., None] + np.array(
        [[[(dl * h + dy) * w + dx for dl, dy, dx in around]]], np.int32
    )
    read = _along(flat, places.reshape(n, -1)).reshape(places.shape)

    def at(dl: int, dy: int, dx: int) -> Array:
        return read[..., around.index((dl, dy, dx))]

    centre = at(0, 0, 0)
    gy, gx = (at(0, 1, 0) - at(0, -1, 0)) / 2, (at(0, 0, 1) - at(0, 0, -1)) / 2
    hyy = at(0, 1, 0) + at(0, -1, 0) - 2 * centre
    hxx = at(0, 0, 1) + at(0, 0, -1) - 2 * centre
    hxy = (at(0, 1, 1) + at(0, -1, -1) - at(0, 1, -1) - at(0, -1, 1)) / 4
    determinant, trace = hxx * hyy - hxy**2, hxx + hyy
    round_enough = (determinant > 0) & (trace**2 * _EDGE < (_EDGE + 1) ** 2 * determinant)
    safe = jnp.where(jnp.abs(determinant) < 1e-12, 1.0, determinant)
    oy = jnp.clip(-(hxx * gy - hxy * gx) / safe, -0.6, 0.6)
    ox = jnp.clip(-(hyy * gx - hxy * gy) / safe, -0.6, 0.6)
    below, above = at(-1, 0, 0), at(1, 0, 0)
    curvature = above + below - 2 * centre
    offset = jnp.where(jnp.abs(curvature) < 1e-12, 0.0, -(above - below) / 2 / curvature)
    offset = jnp.clip(offset, -0.6, 0.6)
    return Points(
        octave=jnp.full_like(level, number),
        level=level,
        y=y + oy,
        x=x + ox,
        sigma=octave.sigmas[0] * 2 ** ((level + offset) / LEVELS),
        # The difference is finer minus coarser with the sign turned: bright points are minima.
        polarity=jnp.where(centre < 0, 1.0, -1.0),
        response=jnp.where(round_enough, strength, 1e-3 * strength),
    )


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("values",), meta_fields=("sizes",)
)
@dataclasses.dataclass(frozen=True)
class GradientField:
    """The detection levels of all octaves, one after the other: float32 [n, pixels].

    `sizes` are the octaves' (height, width).
    """

    values: Array
    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, pyramid: list[Octave]) -> "GradientField":
        levels = [level for octave in pyramid for level in octave.gaussians[1 : LEVELS + 1]]
        values = jnp.concatenate([level.reshape(len(level), -1) for level in levels], 1)
        sizes = tuple((o.gaussians[0].shape[1], o.gaussians[0].shape[2]) for o in pyramid)
        return cls(jax.lax.optimization_barrier(values), sizes)

    def sample(self, points: Points, dy: Array, dx: Array) -> Array:
        """Gradients x + iy, complex64 [n, k, m], at offsets [n, k, m] in the octave's pixels, as of a
        bright point.

        Central differences at the nearest pixel; zero outside of the canvas and at its border.
        """
        sizes = np.array(self.sizes)
        starts = np.concatenate([[0], np.cumsum(LEVELS * sizes.prod(1))[:-1]])
        h, w, start = (jnp.asarray(a)[points.octave][..., None] for a in (*sizes.T, starts))
        row = jnp.round(points.y[..., None] + dy).astype(jnp.int32)
        column = jnp.round(points.x[..., None] + dx).astype(jnp.int32)
        inside = (row >= 1) & (row <= h - 2) & (column >= 1) & (column <= w - 2)
        row, column = jnp.clip(row, 1, h - 2), jnp.clip(column, 1, w - 2)
        place = start + ((points.level[..., None] - 1) * h + row) * w + column

        def at(offset: Array | int) -> Array:
            flat = (place + offset).reshape(len(place), -1)
            read = jax.vmap(lambda f, i: f.at[i].get(mode="promise_in_bounds"))
            return read(self.values, flat).reshape(place.shape)

        worth = inside * points.polarity[..., None] / 2
        return jax.lax.complex((at(1) - at(-1)) * worth, (at(w) - at(-w)) * worth)


def _along(values: Array, places: Array) -> Array:
    """Values [..., n] at places [..., m] that exist, along the last axis."""
    return jnp.take_along_axis(values, places, -1, mode="promise_in_bounds")


def orient(field: GradientField, points: Points, *, count: int) -> tuple[Points, Array]:
    """Each point with the strongest direction around it; where there is a second one, twice.

    Returns:
      `count` points and their angles float32 [n, count], in radians from the x axis towards the y axis.
    """
    steps = np.linspace(-_REACH, _REACH, _WINDOW, dtype=np.float32)
    ty, tx = (jnp.asarray(a.reshape(1, 1, -1)) for a in np.meshgrid(steps, steps, indexing="ij"))
    scale = points.sigma[..., None]
    gradient = field.sample(points, ty * scale, tx * scale)
    magnitude = jnp.abs(gradient)
    weight = magnitude * jnp.exp(-(ty**2 + tx**2) / (2 * _WIDTH**2))
    # The smoothed histogram of directions as a Fourier series: its coefficients are sums of powers of
    # the unit vectors, which costs a fraction of sorting every sample into bins.
    unit = gradient / jnp.maximum(magnitude, 1e-12)
    power, coefficients = jax.lax.complex(weight, jnp.zeros_like(weight)), []
    for _ in range(_HARMONICS + 1):
        coefficients.append(power.sum(-1))
        power = power * unit
    terms = jnp.stack(coefficients, -1)
    parts = jnp.concatenate([terms.real, terms.imag], -1)
    histogram = einsum("nkm,mb->nkb", parts, _series())
    before, after = jnp.roll(histogram, 1, -1), jnp.roll(histogram, -1, -1)
    peaks = jnp.where((histogram >= before) & (histogram > after), histogram, 0.0)
    angles, heights = [], []
    for _ in range(2):
        top = jnp.argmax(peaks, -1)[..., None]
        left, middle, right, height = (
            _along(a, top)[..., 0] for a in (before, histogram, after, peaks)
        )
        bend = jnp.minimum(left - 2 * middle + right, -1e-12)
        shift = jnp.clip(0.5 * (left - right) / bend, -1, 1)
        angles.append((top[..., 0] + shift) * (2 * math.pi / _BINS))
        heights.append(height)
        peaks = jnp.where(jnp.arange(_BINS)[None, None] == top, 0.0, peaks)
    # First the points as they come, then the second directions in the same order.
    order = jnp.arange(points.response.shape[1], dtype=jnp.float32)[None]
    second = jnp.where(heights[1] > _SECOND * heights[0], -1.5 * order - 1, -jnp.inf)
    exists = points.response > _FLAT
    rank = jnp.concatenate(
        [jnp.where(exists, -order, -jnp.inf), jnp.where(exists, second, -jnp.inf)], 1
    )
    worth, place = top_k(rank, count)
    twice = jax.tree.map(lambda a: jnp.concatenate([a, a], 1), points).take(place)
    twice = dataclasses.replace(twice, response=jnp.where(worth > -jnp.inf, twice.response, 0.0))
    return twice, _along(jnp.concatenate(angles, 1), place)


def _series() -> np.ndarray:
    """float32 [2 _HARMONICS + 2, _BINS]: from the coefficients' real parts and then their imaginary ones to
    the histogram at each bin's middle.

    That of triangular bins, smoothed three times by the mean of three neighbours.
    """
    m = np.arange(_HARMONICS + 1)
    transfer = np.sinc(m / _BINS) ** 2 * ((1 + 2 * np.cos(2 * np.pi * m / _BINS)) / 3) ** 3
    transfer *= np.where(m == 0, 1, 2) / _BINS
    waves = np.exp(-2j * np.pi * m[:, None] * np.arange(_BINS) / _BINS)
    waves = transfer[:, None] * waves
    return np.concatenate([waves.real, -waves.imag]).astype(np.float32)


def circular(difference: Array, period: int) -> Array:
    """The distance of two angles, both in units of which `period` make a turn."""
    return jnp.abs(difference - period * jnp.round(difference / period))
