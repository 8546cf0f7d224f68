"""Tissues of a brain from one MR volume: a mixture of Gaussians with a smooth spatial prior.

Contract: volumes are real [n, d, h, w], brain-extracted (zero, or one flat value, outside), of a
T1-like contrast: fluid darker than grey, grey darker than white; axes as in `data.volume`. Label
maps are uint8 of the same shape: 0 outside, 1 fluid, 2 grey, 3 white matter.

Expectation and maximisation alternate (Dempster et al., J. R. Stat. Soc. B 39, 1977). In each
expectation the labels are pulled together by a Potts field in its mean-field form, p(k) ~ prior(k)
exp(beta sum of the six neighbours' p(k)) (Zhang et al., IEEE TMI 20, 2001, section III); the prior is
the same everywhere, or comes from maps such as an atlas. Intensities are first divided by a slow
field, because receiver coils shade a scan.
"""

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import products
from deepssim_jax.ops.resample import blur_matrix
from deepssim_jax.typing import Array, Volumes

NAMES = ("csf", "grey", "white")
_ROUNDS, _BETA = 10, 0.6
_FIELD_SHARE = 0.18  # width of the coil's field, as a share of the side
_FIELD_ROUNDS = 3
_OUTSIDE = 0.06  # of the range of intensities: less is no brain


def _blurred(volume: Array, share: float) -> Array:
    """[d, h, w] under a wide Gaussian."""
    for axis, side in enumerate(volume.shape):
        blur = jnp.asarray(blur_matrix(side, share * side))
        volume = jnp.moveaxis(products.tensordot(blur, volume, axes=(1, axis)), 0, axis)
    return volume


def _neighbours(p: Array) -> Array:
    """Sums of [d, h, w, k] over the six neighbours; nothing lies beyond the border."""
    total = jnp.zeros_like(p)
    for axis in range(3):
        width = [(0, 0)] * 4
        width[axis] = (1, 1)
        padded = jnp.pad(p, width)
        side = p.shape[axis]
        total = total + jax.lax.slice_in_dim(padded, 0, side, axis=axis)
        total = total + jax.lax.slice_in_dim(padded, 2, side + 2, axis=axis)
    return total


def _box_mean(x: Array) -> Array:
    """Over 3 x 3 x 3 voxels, the edge repeated."""
    for axis, side in enumerate(x.shape):
        padded = jnp.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        parts = [jax.lax.slice_in_dim(padded, i, i + side, axis=axis) for i in range(3)]
        x = (parts[0] + parts[1] + parts[2]) / 3
    return x


def _quantiles(values: Array, inside: Array, shares: tuple[float, ...]) -> Array:
    """Of the values inside; float32 [shares]."""
    ordered = jnp.sort(jnp.where(inside, values, jnp.inf).reshape(-1))
    count = inside.sum()
    places = jnp.asarray(shares) * (count - 1)
    return ordered[jnp.clip(places.astype(jnp.int32), 0, ordered.shape[0] - 1)]


def _one(volume: Array, prior: Array) -> Array:
    edge = volume[0, 0, 0]
    low, high = volume.min(), volume.max()
    x = (volume - edge) / jnp.maximum(high - low, 1e-9)
    # Outside, noise has no mean; at the brain's edge, the mean alone would reach too far.
    inside = (_box_mean(x) > _OUTSIDE) & (x > 0.7 * _OUTSIDE)
    x = jnp.where(inside, x, 0.0)
    start = _quantiles(x, inside, (0.06, 0.4, 0.8))
    spread = jnp.full(3, 0.15) * jnp.maximum(start[2] - start[0], 1e-3)
    p = jnp.broadcast_to(jnp.full(3, 1 / 3), (*volume.shape, 3)) * inside[..., None]
    shares = jnp.full(3, 1 / 3)
    field = jnp.ones_like(x)

    def expectation(y: Array, p: Array, mean: Array, deviation: Array, shares: Array) -> Array:
        z = (y[..., None] - mean[None, None, None]) / deviation[None, None, None]
        log = -0.5 * z**2 - jnp.log(deviation)[None, None, None]
        log = log + jnp.log(jnp.maximum(prior * shares[None, None, None], 1e-6))
        log = log + _BETA * _neighbours(p)
        return jax.nn.softmax(log, axis=-1) * inside[..., None]

    def maximisation(y: Array, p: Array) -> tuple[Array, Array, Array]:
        total = jnp.maximum(p.sum((0, 1, 2)), 1.0)
        mean = products.einsum("zyxk,zyx->k", p, y) / total
        away = (y[..., None] - mean[None, None, None]) ** 2
        deviation = jnp.sqrt((p * away).sum((0, 1, 2)) / total)
        # A class must not shrink onto a few voxels of one value.
        return mean, jnp.maximum(deviation, 0.01), total / total.sum()

    def rounds(y: Array, state: tuple[Array, ...], count: int) -> tuple[Array, ...]:
        def step(_: int, state: tuple[Array, ...]) -> tuple[Array, ...]:
            p, mean, deviation, shares = state
            p = expectation(y, p, mean, deviation, shares)
            return (p, *maximisation(y, p))

        return jax.lax.fori_loop(0, count, step, state)

    state = (p, start, spread, shares)
    for _ in range(_FIELD_ROUNDS):
        state = rounds(x / field, state, _ROUNDS)
        # What the tissues leave over, smoothed, is the coil's.
        expected = products.einsum("zyxk,k->zyx", state[0], state[1])
        sure = inside * (state[0][..., 0] < 0.5)  # fluid is the noisiest
        ratio = _blurred(sure * x, _FIELD_SHARE) / jnp.maximum(
            _blurred(sure * expected, _FIELD_SHARE), 1e-6
        )
        field = jnp.where(inside, jnp.clip(ratio, 0.5, 2.0), 1.0)
    p = rounds(x / field, state, _ROUNDS)[0]
    return jnp.where(inside, jnp.argmax(p, -1) + 1, 0).astype(jnp.uint8)


@jax.jit
def _tissues(volumes: Array, prior: Array) -> Array:
    return jax.lax.map(lambda volume: _one(volume, prior), jnp.asarray(volumes, jnp.float32))


def tissue_labels(volumes: Volumes, *, prior: np.ndarray | None = None) -> np.ndarray:
    """Fluid, grey and white matter of brains.

    Args:
      volumes: [n, d, h, w].
      prior: [d, h, w, 3] how likely each tissue is at each place of these volumes' frame, such as an
        atlas's maps; the same everywhere if None.

    Returns:
      uint8 [n, d, h, w], numbered as `NAMES` from 1.
    """
    if prior is None:
        prior = np.full((*volumes.shape[1:], 3), 1 / 3)
    # An atlas's own certainty is not that of another person's anatomy.
    soft = jnp.asarray(0.8 * prior + 0.2 / 3, jnp.float32)
    return np.asarray(_tissues(jnp.asarray(volumes), soft))
