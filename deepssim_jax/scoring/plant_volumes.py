"""Replicas of volumes planted in memory: what a detector must find, known by construction.

Contract: volumes are real [n, d, h, w] of any scale, label maps integers of the same shape; what
comes back is float32 in the same unit and the same integers. A replica is the volume turned by up to
8 degrees about each axis, moved by up to 4 % of its side, blurred by up to 0.8 voxels, with noise of 2
to 5 % of its standard deviation; in a near one a ball, 5 to 15 % of the volume, is another person's.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import products
from deepssim_jax.ops.resample import gaussian_blur, warp_affine
from deepssim_jax.ops.transform import Transform
from deepssim_jax.scoring.volume_match import warp_labels
from deepssim_jax.typing import Array, Volumes

_TURN_DEG, _MOVE, _BLUR, _NOISE, _SHARE = 8.0, 0.04, 0.8, (0.02, 0.05), (0.05, 0.15)
_BATCH = 8


@functools.partial(jax.jit, static_argnames="near")
def _replicas(
    key: Array, volumes: Array, donors: Array, maps: Array, donor_maps: Array, *, near: bool
) -> tuple[Array, Array]:
    keys = jax.random.split(key, 7)
    n, shape = volumes.shape[0], volumes.shape[1:]
    lead = (slice(None), None, None, None)
    if near:
        place = jax.random.uniform(keys[0], (n, 3), minval=-0.3, maxval=0.3)
        share = jax.random.uniform(keys[1], (n,), minval=_SHARE[0], maxval=_SHARE[1])
        radius = (share * 6 / np.pi) ** (1 / 3)  # as a share of the side
        squares = jnp.zeros((n, *shape))
        for axis, side in enumerate(shape):
            at = (np.arange(side, dtype=np.float32) - (side - 1) / 2) / side
            at = at.reshape([-1 if i == axis else 1 for i in range(3)])
            squares = squares + (jnp.asarray(at)[None] - place[:, axis][lead]) ** 2
        soft = jax.nn.sigmoid((radius[lead] / 2 - jnp.sqrt(squares)) * min(shape))
        volumes = volumes * (1 - soft) + donors * soft
        maps = jnp.where(soft > 0.5, donor_maps, maps)
    angles = jnp.deg2rad(jax.random.uniform(keys[2], (n, 3), minval=-_TURN_DEG, maxval=_TURN_DEG))
    shift = jax.random.uniform(keys[3], (n, 3), minval=-_MOVE, maxval=_MOVE) * max(shape)
    matrix = jnp.broadcast_to(jnp.eye(3)[None], (n, 3, 3))
    for axis in range(3):
        c, s = jnp.cos(angles[:, axis]), jnp.sin(angles[:, axis])
        i, j = [k for k in range(3) if k != axis]
        turn = jnp.broadcast_to(jnp.eye(3)[None], (n, 3, 3))
        turn = turn.at[:, i, i].set(c).at[:, j, j].set(c).at[:, i, j].set(-s).at[:, j, i].set(s)
        matrix = products.einsum("nij,njk->nik", matrix, turn)
    moved = warp_affine(volumes, jnp.concatenate([matrix, shift[:, :, None]], -1))
    motion = Transform(jnp.zeros(n, jnp.int32), matrix, shift)
    blur = jax.random.uniform(keys[4], (n,), maxval=_BLUR)
    moved = gaussian_blur(moved, blur, radius=3, spatial_dims=3)
    level = jax.random.uniform(keys[5], (n,), minval=_NOISE[0], maxval=_NOISE[1])
    level = level * volumes.std((1, 2, 3))
    noisy = moved + level[lead] * jax.random.normal(keys[6], moved.shape)
    return noisy, warp_labels(maps, motion)


def plant_replicas(
    volumes: Volumes,
    *,
    seed: int,
    donors: Volumes | None = None,
    maps: np.ndarray | None = None,
    donor_maps: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Replicas of each volume; near ones where there are donors.

    Args:
      volumes: [n, d, h, w].
      seed: of everything that is drawn.
      donors: [n, d, h, w] of other people, whose ball is taken over.
      maps: label maps of the volumes, moved along.
      donor_maps: of the donors.

    Returns:
      Replicas and their label maps, None without `maps`.
    """
    n = len(volumes)
    out, moved = [], []
    empty = np.zeros((_BATCH, *volumes.shape[1:]), np.int32)
    for first in range(0, n, _BATCH):
        rows = np.resize(np.arange(first, min(first + _BATCH, n)), _BATCH)
        key = jax.random.fold_in(jax.random.key(seed), first)
        columns = (volumes, volumes if donors is None else donors)
        images = [jnp.asarray(x[rows], jnp.float32) for x in columns]
        given = (maps, maps if donor_maps is None else donor_maps)
        labels = [jnp.asarray(empty if x is None else x[rows].astype(np.int32)) for x in given]
        image, label = _replicas(key, *images, *labels, near=donors is not None)
        count = min(_BATCH, n - first)
        out.append(np.asarray(image)[:count])
        moved.append(np.asarray(label)[:count].astype(np.uint8))
    return np.concatenate(out), None if maps is None else np.concatenate(moved)
