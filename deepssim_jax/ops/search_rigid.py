"""The global search for a rigid alignment of volumes: every rotation, shift and mirroring of a grid.

Contract: volumes are float [n, d, h, w] with isotropic voxels, the last axis from side to side.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import arguments, products, resample
from deepssim_jax.ops.search_grid import check_turns
from deepssim_jax.ops.transform import VOLUME_FLIP_SIGNS, Transform, ellipsoid
from deepssim_jax.typing import Array, Volumes


@dataclasses.dataclass(frozen=True)
class RigidGrid:
    """The transformations that the global search of volumes tries.

    `size` is the longest side of the low-resolution volumes, in which an ellipsoid of `radius`
    times the half sides is compared; rotations about each axis in `rotations` steps up to
    `max_rotation_deg`; `max_shift` is a share of the longest side. `high_pass` is the width, in
    low-resolution voxels, of the blur that is taken off.

    Examples:
      >>> import deepssim_jax as ds
      >>> ds.RigidGrid(max_shift=0.2).max_shift
      0.2
    """

    size: int = 24
    radius: float = 0.8
    max_rotation_deg: float = 15.0
    rotations: int = 5
    max_shift: float = 0.125
    high_pass: float = 3.0

    def __post_init__(self) -> None:
        """Raises ValueError for values that cannot work."""
        arguments.whole(self.size, "size", least=8, most=128)
        arguments.number(self.radius, "radius", low=0.25, high=1, example=0.8)
        check_turns(self.max_rotation_deg, self.rotations, most=32)
        arguments.number(self.max_shift, "max_shift", low=0, high=0.5, example=0.125)
        wide = {"low": 0, "high": self.size, "open_low": True}
        arguments.number(self.high_pass, "high_pass", **wide, example=3)

    @property
    def shift_voxels(self) -> int:
        """Largest shift in low-resolution voxels."""
        return int(self.max_shift * self.size)

    @property
    def matrices(self) -> np.ndarray:
        """[r, 3, 3] float32: R_z R_y R_x for every combination of angles."""
        angles = np.deg2rad(
            np.linspace(-self.max_rotation_deg, self.max_rotation_deg, self.rotations)
        )
        out = []
        for triple in itertools.product(angles, repeat=3):
            matrix = np.eye(3)
            for axis, angle in enumerate(triple):
                a, b = (i for i in range(3) if i != axis)
                turn = np.eye(3)
                turn[a, a] = turn[b, b] = np.cos(angle)
                turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
                matrix = matrix @ turn
            out.append(matrix)
        return np.stack(out).astype(np.float32)


@functools.partial(jax.jit, static_argnames="grid")
def coarse_rigid(moving: Volumes, fixed: Volumes, *, grid: RigidGrid) -> Transform:
    """The transformation of the grid with the highest correlation, for each pair.

    Args:
      moving: [n, d, h, w].
      fixed: [n, d, h, w].
      grid: what to try.

    Returns:
      n transformations in voxels of these volumes.
    """
    size = fixed.shape[1:]
    factor = grid.size / max(size)
    shape = tuple(max(4, round(side * factor)) for side in size)
    ratio = [a / b for a, b in zip(shape, size)]
    low = [_detail(resample.resize(x, shape), grid) for x in (moving, fixed)]
    reach = grid.shift_voxels
    frame = tuple(side + 2 * reach for side in shape)
    moves = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))
    turns = jnp.asarray(grid.matrices)

    ball = ellipsoid(shape, radius=grid.radius)
    kernel = _everywhere(jnp.asarray(ball, jnp.float32), moves, reach)  # [moves, frame]
    count = float(ball.sum())

    def positions(turn: Array) -> list[Array]:
        # Rotations act in voxels of the full size, should rounding make the axes' ratios differ.
        turned = Transform(jnp.zeros(1, jnp.int32), turn[None], jnp.zeros((1, 3)))
        size = tuple(side / r for side, r in zip(frame, ratio))
        return [p - reach for p in turned.positions(frame, size=size)]

    def one(pair: tuple[Array, Array]) -> tuple[Array, ...]:
        moving, fixed = pair
        inside = jnp.where(ball, fixed - (fixed * ball).sum() / count, 0.0)
        inside = inside / jnp.maximum(jnp.sqrt((inside**2).sum()), 1e-6)
        reference = _everywhere(inside, moves, reach)

        def of(flip: int) -> Array:
            image = moving if flip == 0 else moving[:, :, ::-1]
            versions = jax.lax.map(
                lambda turn: resample.sample_at(image[None], positions(turn)).reshape(-1), turns
            )
            mean = products.matmul(versions, kernel.T) / count
            energy = products.matmul(versions**2, kernel.T) - count * mean**2
            return products.matmul(versions, reference.T) / jnp.sqrt(jnp.maximum(energy, 1e-12))

        scores = jnp.stack([of(flip) for flip in range(len(VOLUME_FLIP_SIGNS))])
        return jnp.unravel_index(jnp.argmax(scores), scores.shape)

    flip, turn, move = jax.lax.map(one, (low[0], low[1]))
    # The grid moves first and turns afterwards: t = R (shift).
    shift = jnp.asarray(moves / np.array(ratio), jnp.float32)[move]
    matrix = turns[turn]
    return Transform(
        flip=flip.astype(jnp.int32),
        matrix=matrix,
        shift=products.einsum("nij,nj->ni", matrix, shift),
    )


def _detail(low: Array, grid: RigidGrid) -> Array:
    """Without slow changes, so that details count and not the outline that all heads share."""
    radius = int(3 * grid.high_pass)
    return low - resample.gaussian_blur(low, grid.high_pass, radius=radius, spatial_dims=3)


def _everywhere(small: Array, moves: np.ndarray, reach: int) -> Array:
    """[d, h, w] -> [moves, frame]: in a frame grown by `reach`, at every shift."""
    padded = jnp.pad(small, reach)
    return jnp.stack([jnp.roll(padded, tuple(move), (0, 1, 2)).reshape(-1) for move in moves])
