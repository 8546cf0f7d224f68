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

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import products
from deepssim_jax.ops.resample import blur_matrix
from deepssim_jax.typing import Array, Volumes

NAMES = ("csf", "grey", "white")
_ROUNDS, _BETA = 10, 0.6
_LEAST_LOG = float(np.log(1e-6))  # of a prior
_FIELD_SHARE = 0.18  # width of the coil's field, as a share of the side
_FIELD_ROUNDS = 3
_OUTSIDE = 0.06  # of the range of intensities: less is no brain


def _blurred(volume: Array, share: float) -> Array:
    """[d, h, w] under a wide Gaussian."""
    for axis, side in enumerate(volume.shape):
        blur = jnp.asarray(blur_matrix(side, share * side))
        volume = jnp.moveaxis(products.tensordot(blur, volume, axes=(1, axis)), 0, axis)
    return volume


@dataclasses.dataclass(frozen=True)
class _Flat:
    """Volumes [..., d, h, w] with a border of one voxel, each as one row [..., m]: what lies beside a voxel
    lies so many places on, and a loop over voxels is a vector.
    """

    shape: tuple[int, ...]

    @property
    def _wide(self) -> tuple[int, ...]:
        return tuple(side + 2 for side in self.shape)

    def rows(self, volumes: Array) -> Array:
        """The border is 0."""
        before = volumes.shape[:-3]
        wide = jnp.pad(volumes, [(0, 0)] * len(before) + [(1, 1)] * 3)
        return wide.reshape(*before, -1)

    def volumes(self, rows: Array) -> Array:
        """Without the border."""
        return rows.reshape(*rows.shape[:-1], *self._wide)[..., 1:-1, 1:-1, 1:-1]

    def neighbours(self, rows: Array) -> Array:
        """Sums over the six neighbours of every voxel within, where the border is 0."""
        _, height, width = self._wide
        far, count = height * width, rows.shape[-1]
        padded = jnp.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(far, far)])
        shifts = [far + step for step in (-far, -width, -1, 1, width, far)]
        parts = [jax.lax.slice_in_dim(padded, x, x + count, axis=-1) for x in shifts]
        return functools.reduce(jnp.add, parts)


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


def _maximisation(powers: Array, p: Array, middle: Array) -> tuple[Array, Array, Array]:
    """Mean, deviation and share of each class, from p [3, m] and powers 0 to 2 of y - middle, [m, 3]."""
    total, first, second = products.matmul(p, powers).T
    total = jnp.maximum(total, 1.0)
    mean = first / total
    deviation = jnp.sqrt(jnp.maximum(second / total - mean**2, 0.0))
    # A class must not shrink onto a few voxels of one value.
    return mean + middle, jnp.maximum(deviation, 0.01), total / total.sum()


def _one(volume: Array, log_prior: Array) -> Array:
    edge = volume[0, 0, 0]
    low, high = volume.min(), volume.max()
    x = (volume - edge) / jnp.maximum(high - low, 1e-9)
    # Outside, noise has no mean; at the brain's edge, the mean alone would reach too far.
    inside = (_box_mean(x) > _OUTSIDE) & (x > 0.7 * _OUTSIDE)
    x = jnp.where(inside, x, 0.0)
    start = _quantiles(x, inside, (0.06, 0.4, 0.8))
    spread = jnp.full(3, 0.15) * jnp.maximum(start[2] - start[0], 1e-3)
    flat = _Flat(volume.shape)
    within = flat.rows(inside.astype(jnp.float32))
    log_prior = flat.rows(jnp.broadcast_to(log_prior, (len(NAMES), *volume.shape)))
    shares = jnp.full(3, 1 / 3)
    field = jnp.ones_like(x)
    middle = start[1]  # near the means, so that squares lose no digits

    def expectation(y: Array, p: Array, mean: Array, deviation: Array, shares: Array) -> Array:
        pull = _BETA * flat.neighbours(p)
        logs = [
            -0.5 * ((y - mean[k]) / deviation[k]) ** 2
            - jnp.log(deviation[k])
            + jnp.maximum(log_prior[k] + jnp.log(shares[k]), _LEAST_LOG)
            + pull[k]
            for k in range(len(NAMES))
        ]
        highest = functools.reduce(jnp.maximum, logs)
        parts = [jnp.exp(log - highest) for log in logs]
        return jnp.stack(parts) * (within / functools.reduce(jnp.add, parts))[None]

    def rounds(x: Array, state: tuple[Array, ...], count: int) -> tuple[Array, ...]:
        y = flat.rows(x)
        powers = jnp.stack([jnp.ones_like(y), y - middle, (y - middle) ** 2], -1)

        def step(_: int, state: tuple[Array, ...]) -> tuple[Array, ...]:
            p, mean, deviation, shares = state
            p = expectation(y, p, mean, deviation, shares)
            return (p, *_maximisation(powers, p, middle))

        return jax.lax.fori_loop(0, count, step, state)

    state = (jnp.broadcast_to(within / 3, (3, len(within))), start, spread, shares)
    for _ in range(_FIELD_ROUNDS):
        state = rounds(x / field, state, _ROUNDS)
        # What the tissues leave over, smoothed, is the coil's.
        p = flat.volumes(state[0])
        expected = (p * state[1][:, None, None, None]).sum(0)
        sure = inside * (p[0] < 0.5)  # fluid is the noisiest
        ratio = _blurred(sure * x, _FIELD_SHARE) / jnp.maximum(
            _blurred(sure * expected, _FIELD_SHARE), 1e-6
        )
        field = jnp.where(inside, jnp.clip(ratio, 0.5, 2.0), 1.0)
    p = flat.volumes(rounds(x / field, state, _ROUNDS)[0])
    return jnp.where(inside, jnp.argmax(p, 0) + 1, 0).astype(jnp.uint8)


@jax.jit
def _tissues(volumes: Array, prior: Array) -> Array:
    log_prior = jnp.log(jnp.moveaxis(prior, -1, 0))
    return jax.lax.map(lambda volume: _one(volume, log_prior), jnp.asarray(volumes, jnp.float32))


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
