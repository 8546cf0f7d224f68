"""Keypoints of volumes with descriptors that no rotation, mirroring or inversion changes.

Contract: what comes in are stored cubes and their grids (`ops.volume_grid`); what comes out are, for
each volume, the `POINTS` keypoints of largest response of two octaves, one after the other: `places`
float32 [n, k, 3] in points of the finer grid from its centre, `descriptors` float32 [n, k, d] not yet
whitened, and `valid` bool [n, k].

A keypoint is a local maximum of the difference of two blurs of the local structure. Its descriptor
is the power spectrum of the structure around it: expanded in shells and spherical harmonics, the
products of the coefficients of two shells, summed over the orders of a degree, are the same for
every orthogonal map (Bartok, Kondor and Csanyi, Phys. Rev. B 87, 2013, eq. 25-31); of a field with
the other sign they are the same, because they are quadratic.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import sph_harm_y

from deepssim_jax.ops import products
from deepssim_jax.ops.volume_grid import blurred, local_structure, on_grid
from deepssim_jax.typing import Array

# (points of the grid along an axis, keypoints): the second octave is half as fine.
OCTAVES = ((64, 256), (32, 128))
SIZE = OCTAVES[0][0]
POINTS = sum(count for _, count in OCTAVES)
_RADIUS, _SHELLS, _WIDTH, _DEGREES = 5, (1.2, 2.4, 3.6, 4.8), 0.8, 4
_FINE, _NEAR, _FAR, _NEIGHBOURHOOD = 0.7, 1.0, 2.0, 3.5  # blurs, in points of the octave's grid


@functools.cache
def _kernels() -> np.ndarray:
    """float32 [shells, (degrees + 1)^2, voxels of a patch]: real spherical harmonics on Gaussian shells."""
    axis = np.arange(-_RADIUS, _RADIUS + 1)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    radius = np.sqrt(z**2 + y**2 + x**2)
    polar = np.arccos(np.where(radius > 0, z / np.maximum(radius, 1e-9), 1.0))
    around = np.arctan2(y, x)
    out = []
    for shell in _SHELLS:
        weight = np.exp(-0.5 * ((radius - shell) / _WIDTH) ** 2)
        weight = weight / np.sqrt((weight**2).sum())
        for degree in range(_DEGREES + 1):
            for order in range(-degree, degree + 1):
                value = sph_harm_y(degree, abs(order), polar, around)
                real = value.real if order >= 0 else value.imag
                # The middle lies in no direction.
                real = np.where((radius > 0) | (degree == 0), real, 0.0)
                out.append(weight * real * (np.sqrt(2) if order else 1.0) * np.sqrt(4 * np.pi))
    return np.stack(out).reshape(len(_SHELLS), (_DEGREES + 1) ** 2, -1).astype(np.float32)


def _octave(volume: Array, box: Array, step: Array, *, size: int, count: int) -> tuple[Array, ...]:
    ratio = SIZE / size
    if ratio > 1:
        volume = blurred(volume, 0.45 * ratio)
    seen, held = on_grid(volume, box, step * ratio, size=size)
    field = local_structure(blurred(seen, _FINE), held, sigma=_NEIGHBOURHOOD)
    response = jnp.abs(blurred(field, _NEAR) - blurred(field, _FAR)) * held
    highest = jax.lax.reduce_window(response, -jnp.inf, jax.lax.max, (3, 3, 3), (1, 1, 1), "SAME")
    peaks = jnp.where((response >= highest) & (held > 0), response, -1.0)
    strength, index = jax.lax.top_k(peaks.reshape(-1), count)
    places = jnp.stack(jnp.unravel_index(index, peaks.shape), -1)
    descriptors = _power(_patches(field, places))
    return (places - (size - 1) / 2) * ratio, descriptors, strength > 0


def _patches(field: Array, places: Array) -> Array:
    """[k, voxels of a patch] around places [k, 3]; nothing lies beyond the grid."""
    padded = jnp.pad(field, _RADIUS)
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    window = np.stack(np.meshgrid(*[np.arange(2 * _RADIUS + 1)] * 3, indexing="ij"), -1)
    start = (places * jnp.asarray(strides)[None]).sum(-1)
    return padded.reshape(-1)[start[:, None] + (window.reshape(-1, 3) @ strides)[None]]


def _power(patches: Array) -> Array:
    """[k, d] of patches: the roots of the spectrum's entries, with their signs."""
    found = products.einsum("kp,smp->ksm", patches, jnp.asarray(_kernels()))
    rows, columns = np.triu_indices(len(_SHELLS))
    out, first = [], 0
    for degree in range(_DEGREES + 1):
        part = found[:, :, first : first + 2 * degree + 1]
        first += 2 * degree + 1
        pair = products.einsum("ksm,ktm->kst", part, part) / (2 * degree + 1)
        out.append(pair[:, rows, columns])
    flat = jnp.concatenate(out, -1)
    return jnp.sign(flat) * jnp.sqrt(jnp.abs(flat))


@jax.jit
def keypoints(volumes: Array, boxes: Array, steps: Array) -> tuple[Array, Array, Array]:
    """`places`, `descriptors` and `valid` of stored volumes; see the module.

    Args:
      volumes: [n, s, s, s].
      boxes: [n, 3] and
      steps: [n, 3], of the finer grid: see `ops.volume_grid`.
    """

    def one(item: tuple[Array, Array, Array]) -> tuple[Array, ...]:
        parts = [_octave(*item, size=size, count=count) for size, count in OCTAVES]
        return tuple(jnp.concatenate(column) for column in zip(*parts, strict=True))

    return jax.lax.map(one, (jnp.asarray(volumes, jnp.float32), boxes, steps))
