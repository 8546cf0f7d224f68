"""Whole heads of nobody at little cost: CT with a haemorrhage, and angiography with its vessel tree.

Contract: the key is the identity: one key always gives the same people. Volumes are float32
[n, d, h, w], axes as in `data.volume`; label maps uint8 of the same shape say what was drawn.
Positions run from -1 to 1 along each axis. `data.phantom` makes brains of finer anatomy; a
thousand of them take an hour, a thousand of these a minute.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops.resample import gaussian_blur
from deepssim_jax.typing import Array

CT_LABELS = ("background", "brain", "haemorrhage", "bone")
VESSEL_LABELS = ("background", "vessel")
_STEPS = 96  # points of a vessel: closer together than a voxel of 64 along any of them
# Arteries at the base of a brain, as (z, y, x) of four control points each: the carotid, middle,
# anterior and posterior cerebral arteries of one side, the other being its mirror image.
_ARTERIES = np.array(
    [
        [(-0.8, 0.1, 0.22), (-0.5, 0.12, 0.24), (-0.3, 0.0, 0.2), (-0.15, -0.05, 0.22)],
        [(-0.15, -0.05, 0.22), (-0.1, -0.1, 0.38), (0.0, -0.05, 0.52), (0.2, 0.1, 0.6)],
        [(-0.15, -0.05, 0.22), (-0.1, -0.25, 0.08), (0.15, -0.4, 0.05), (0.45, -0.2, 0.05)],
        [(-0.25, 0.25, 0.05), (-0.2, 0.28, 0.2), (-0.1, 0.45, 0.25), (0.05, 0.65, 0.2)],
    ],
    np.float32,
)
_BRANCHES = 40


@dataclasses.dataclass(frozen=True)
class Heads:
    """`volumes` [n, d, h, w] and `labels` of the same shape."""

    volumes: jax.Array
    labels: jax.Array


def _field(key: Array, n: int, size: tuple[int, ...], points: int) -> Array:
    """[n, *size], smooth, of about unit variance, with `points` independent values along an axis."""
    coarse = jax.random.normal(key, (n,) + (points,) * 3)
    field = jax.image.resize(coarse, (n, *size), "cubic")
    return field / (field.std((1, 2, 3), keepdims=True) + 1e-6)


def _axes(size: tuple[int, ...]) -> list[Array]:
    grids = np.meshgrid(*(np.linspace(-1, 1, s) for s in size), indexing="ij")
    return [jnp.asarray(g, jnp.float32)[None] for g in grids]


def _skull(key: Array, n: int, size: tuple[int, ...]) -> tuple[Array, list[Array]]:
    """How deep below the scalp each position lies (negative outside), and bent coordinates."""
    keys = jax.random.split(key, 4)
    z, y, x = (
        axis + 0.035 * _field(k, n, size, 4) for axis, k in zip(_axes(size), keys[:3], strict=True)
    )
    radii = jnp.array([[0.84, 0.9, 0.7]]) * (
        1 + 0.04 * jnp.clip(jax.random.normal(keys[3], (n, 3)), -2, 2)
    )
    lead = (slice(None), None, None, None)
    ratios = [axis / radii[:, i][lead] for i, axis in enumerate((z, y, x))]
    return 0.75 * (1 - jnp.sqrt(sum(r**2 for r in ratios))), [z, y, x]


@functools.partial(jax.jit, static_argnames=("n", "size"))
def _ct(key: Array, *, n: int, size: tuple[int, int, int]) -> tuple[Array, Array]:
    keys = jax.random.split(key, 9)
    depth, (z, y, x) = _skull(keys[0], n, size)
    draws = iter(jax.random.uniform(keys[1], (24, n, 1, 1, 1), minval=-1.0))

    def about(mean: float, spread: float) -> Array:
        return mean + spread * next(draws)

    def oval(centre: tuple[Array, ...], radii: tuple[Array, ...]) -> Array:
        squares = [((g - c) / r) ** 2 for g, c, r in zip((z, y, x), centre, radii, strict=True)]
        return 1 - jnp.sqrt(sum(squares, jnp.zeros(())))

    scalp, table = about(0.045, 0.01), about(0.08, 0.015)
    bone = (depth > scalp) & (depth < scalp + table)
    brain = depth >= scalp + table
    folds = jnp.abs(_field(keys[2], n, size, 14))
    inner = depth - scalp - table
    sulcus = brain & (folds < about(0.14, 0.05)) & (inner < 0.3)
    grey = brain & ((inner < 0.09) | (folds < 0.45) & (inner < 0.33))
    height, width, back = about(0.1, 0.06), about(0.1, 0.035), about(0.0, 0.08)
    sides = [
        oval((height, back, side * about(0.14, 0.03)), (about(0.1, 0.03), about(0.38, 0.08), width))
        for side in (-1.0, 1.0)
    ]
    ventricle = jnp.maximum(*sides) > 0.06 * _field(keys[3], n, size, 10)
    place = (about(0.08, 0.3), about(0.0, 0.4), about(0.0, 0.32))
    bleed = oval(place, (about(0.2, 0.08), about(0.22, 0.1), about(0.18, 0.08)))
    bleed = bleed + 0.12 * _field(keys[4], n, size, 12)
    blood = brain & (bleed > 0)
    swollen = brain & (bleed > about(-0.28, 0.08))

    image = jnp.where(depth > 0, 35.0, -1000.0)
    image = jnp.where(bone, about(950.0, 150.0), image)
    image = jnp.where(brain, jnp.where(grey, 38.0, 29.0), image)
    image = image + 2.5 * _field(keys[5], n, size, 9) * brain
    image = jnp.where(sulcus | (ventricle & brain), 8.0, image)
    image = jnp.where(swollen, jnp.minimum(image, 20.0), image)
    image = jnp.where(blood, about(66.0, 7.0) + 3.0 * _field(keys[6], n, size, 12), image)
    image = gaussian_blur(image, 0.6, radius=2, spatial_dims=3)
    image = image + 4.0 * jax.random.normal(keys[7], image.shape)
    labels = jnp.where(bone, 3, jnp.where(blood, 2, jnp.where(brain, 1, 0)))
    return image, labels.astype(jnp.uint8)


def ct_heads(key: Array, n: int, *, size: tuple[int, int, int] = (64, 64, 64)) -> Heads:
    """Non-contrast CT of n people, each with an intracerebral haemorrhage of their own.

    Args:
      key: typed PRNG key.
      n: people.
      size: voxels along each axis.

    Returns:
      Hounsfield units, and labels numbered as `CT_LABELS`.
    """
    return Heads(*_ct(key, n=n, size=size))


def _splines(points: Array) -> Array:
    """Catmull-Rom curves [n, p, steps, 3] through control points [n, p, c, 3]."""
    count = points.shape[2]
    ends = jnp.concatenate([points[:, :, :1], points, points[:, :, -1:]], 2)
    at = np.linspace(0, count - 1 - 1e-4, _STEPS)
    first, t = at.astype(int), (at % 1)[None, None, :, None].astype(np.float32)
    a, b, c, d = (ends[:, :, first + i] for i in range(4))
    cubic = (3 * b - a - 3 * c + d) * t**3 + (2 * a - 5 * b + 4 * c - d) * t**2
    return b + 0.5 * (cubic + (c - a) * t)


@functools.partial(jax.jit, static_argnames=("n", "size"))
def _angiograms(key: Array, *, n: int, size: tuple[int, int, int]) -> tuple[Array, Array]:
    keys = jax.random.split(key, 10)
    template = np.concatenate([_ARTERIES, _ARTERIES * np.array([1, 1, -1], np.float32)])
    common = 0.05 * jax.random.normal(keys[0], (n, 1, 1, 3))
    wander = 0.07 * jax.random.normal(keys[1], (n, *template.shape))
    # Vessels that meet in everybody meet in each person as well.
    wander = wander.at[:, (1, 2), 0].set(wander[:, (0, 0), 3])
    wander = wander.at[:, (5, 6), 0].set(wander[:, (4, 4), 3])
    mains = _splines(jnp.asarray(template)[None] + common + wander)
    # Each branch leaves an artery somewhere and wanders outwards.
    parent = jax.random.randint(keys[2], (n, _BRANCHES), 0, len(template))
    leave = jax.random.randint(keys[3], (n, _BRANCHES), _STEPS // 3, _STEPS)
    rows = jnp.arange(n)[:, None]
    start = mains[rows, parent, leave]
    outward = start / (jnp.linalg.norm(start, axis=-1, keepdims=True) + 1e-3)
    bends = 0.1 * jax.random.normal(keys[4], (n, _BRANCHES, 4, 3))
    steps = 0.09 * outward[:, :, None] + bends
    branches = _splines(start[:, :, None] + jnp.cumsum(steps.at[:, :, 0].set(0.0), 2))
    curves = jnp.concatenate([mains, branches], 1)
    calibre = jnp.concatenate(
        [
            jax.random.uniform(keys[5], (n, len(template)), minval=0.7, maxval=1.4),
            jax.random.uniform(keys[6], (n, _BRANCHES), minval=0.2, maxval=0.7),
        ],
        1,
    )
    weight = jnp.broadcast_to(calibre[:, :, None], curves.shape[:3]).reshape(n, -1)
    thin = _drawn(curves.reshape(n, -1, 3), weight, size)
    vessels = 1 - jnp.exp(-2.2 * gaussian_blur(thin, 0.75, radius=3, spatial_dims=3))

    depth, _ = _skull(keys[7], n, size)
    tissue = jnp.clip(depth / 0.04, 0, 1) * (0.16 + 0.02 * _field(keys[8], n, size, 10))
    image = jnp.maximum(tissue, 0.0) + 0.8 * vessels * (depth > 0)
    image = image + 0.03 * jax.random.normal(keys[9], image.shape)
    return jnp.maximum(image, 0.0), ((vessels > 0.3) & (depth > 0)).astype(jnp.uint8)


def _drawn(points: Array, weight: Array, size: tuple[int, ...]) -> Array:
    """[n, *size]: how much of the points [n, p, 3] lies in each voxel; outside ones at the edge."""
    n, total = points.shape[0], int(np.prod(size))
    flat = jnp.zeros(points.shape[:2], jnp.int32)
    for axis, side in enumerate(size):
        index = jnp.round((points[:, :, axis] + 1) / 2 * (side - 1)).astype(jnp.int32)
        flat = flat * side + jnp.clip(index, 0, side - 1)
    flat = flat + total * jnp.arange(n, dtype=jnp.int32)[:, None]
    drawn = jnp.zeros(n * total).at[flat.reshape(-1)].max(weight.reshape(-1))
    return drawn.reshape(n, *size)


def angiograms(key: Array, n: int, *, size: tuple[int, int, int] = (64, 64, 64)) -> Heads:
    """Time-of-flight angiography of n people: dim tissue, and bright arteries of their own.

    Everybody has the same large arteries, which wander; their branches are anybody's.

    Args:
      key: typed PRNG key.
      n: people.
      size: voxels along each axis.

    Returns:
      Intensities from 0 to about 1, and labels numbered as `VESSEL_LABELS`.
    """
    return Heads(*_angiograms(key, n=n, size=size))
