"""A search over all 48 axis permutations and mirrorings, and small shifts, by matrix products.

Contract: a volume is its local structure on a coarse grid (`ops.volume_grid`), float32 [c, c, c] with
c `SIZE`, where a pose acts exactly: it permutes the axes and reverses some. `pose` numbers rows of
`POSES`, `shift` rows of `SHIFTS`, in points of the grid. Correlations count whatever their sign is.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import products
from deepssim_jax.ops.volume_grid import blurred, local_structure, on_grid
from deepssim_jax.typing import Array

SIZE = 16
_FINER, _BLUR, _NEAR = 2, 1.0, 5.0  # the structure is made on a grid so much finer; points of that
SHIFTS = np.array(list(itertools.product((-1, 0, 1), repeat=3)))


def _poses() -> np.ndarray:
    out = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3), np.float32)
            matrix[np.arange(3), order] = signs
            out.append(matrix)
    return np.stack(out)


# [48, 3, 3]: places of the query to those of the posed query.
POSES = _poses()


@jax.jit
def coarse(volumes: Array, boxes: Array, steps: Array) -> Array:
    """[n, SIZE, SIZE, SIZE] of stored cubes; `steps` [n, 3] are those of a grid of SIZE points."""

    def one(item: tuple[Array, Array, Array]) -> Array:
        volume, box, step = item
        wide = volume.shape[0] / (_FINER * SIZE)
        volume = blurred(volume, 0.45 * wide) if wide > 1 else volume
        seen, held = on_grid(volume, box, step / _FINER, size=_FINER * SIZE)
        field = blurred(local_structure(seen, held, sigma=_NEAR), _BLUR) * held
        return field.reshape(SIZE, _FINER, SIZE, _FINER, SIZE, _FINER).mean((1, 3, 5))

    return jax.lax.map(one, (jnp.asarray(volumes, jnp.float32), boxes, steps))


def unit(fields: Array) -> Array:
    """[n, ...] as rows of unit norm, [n, points]."""
    flat = fields.reshape(fields.shape[0], -1)
    return flat / jnp.maximum(jnp.linalg.norm(flat, axis=1, keepdims=True), 1e-9)


@functools.partial(jax.jit)
def best_poses(query: Array, references: Array) -> tuple[Array, Array, Array]:
    """Of each reference the best pose and shift of a query.

    Args:
      query: [SIZE, SIZE, SIZE].
      references: [r, points], of unit norm.

    Returns:
      Correlations' absolute values [r], and int32 [r] poses and shifts.
    """
    posed = []
    for matrix in POSES:
        order = np.argmax(np.abs(matrix), axis=1)
        turned = jnp.transpose(query, order)
        flip = [axis for axis in range(3) if matrix[axis, order[axis]] < 0]
        posed.append(jnp.flip(turned, flip))
    fields = jnp.pad(jnp.stack(posed), ((0, 0), (1, 1), (1, 1), (1, 1)))
    moved = [
        fields[:, 1 - z : 1 - z + SIZE, 1 - y : 1 - y + SIZE, 1 - x : 1 - x + SIZE]
        for z, y, x in SHIFTS
    ]
    rows = unit(jnp.stack(moved, 1).reshape(-1, SIZE, SIZE, SIZE))
    found = jnp.abs(products.matmul(rows, references.T))
    best = jnp.argmax(found, 0).astype(jnp.int32)
    return found.max(0), best // len(SHIFTS), best % len(SHIFTS)


def pose_maps(pose: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps of places of a reference to those of the query, [n, 3, 3] and [n, 3], on this grid.

    The posed and moved query lies as the reference does: x_reference = P x_query + s.
    """
    back = np.swapaxes(POSES[pose], 1, 2)
    return back, -np.einsum("nij,nj->ni", back, SHIFTS[shift].astype(np.float32))
