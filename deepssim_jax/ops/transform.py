"""Geometric transformations of image pairs, in 2D and 3D.

Contract: positions are centred, in pixels of the arrays, in the order of the axes (y, x or
z, y, x; the last axis runs from side to side of the patient). A transformation maps positions of
a fixed image to those of a moving one,

    x_moving = F (M x_fixed + t),

with F a mirroring. For a similarity in 2D, M = s R with R = [[c, -s], [s, c]]: it says how the fixed
image was zoomed by s, turned by R, moved by t and then mirrored to give the moving one.
"""

import dataclasses
import enum
import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import products
from deepssim_jax.typing import Array

FLIP_NAMES = ("none", "horizontal", "vertical", "both")
# Rows are (y, x): none, horizontal (left and right change places), vertical, both.
FLIP_SIGNS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], np.float32)
# A body is upright, so of volumes only left and right change places.
VOLUME_FLIP_SIGNS = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, -1.0]], np.float32)


class MotionModel(enum.Enum):
    """Which maps M are allowed: rotations, those and one scale, or all.

    Examples:
      >>> import deepssim_jax as ds
      >>> [model.name for model in ds.MotionModel]
      ['RIGID', 'SIMILARITY', 'AFFINE']
    """

    RIGID = "rigid"
    SIMILARITY = "similarity"
    AFFINE = "affine"

    def generators(self, dims: int) -> np.ndarray:
        """[g, dims, dims] float32: M = exp(sum of a_i generators[i]) near the identity."""
        units = np.eye(dims * dims, dtype=np.float32).reshape(-1, dims, dims)
        if self is MotionModel.AFFINE:
            return units
        turns = [
            units[b * dims + a] - units[a * dims + b]
            for a in range(dims)
            for b in range(a + 1, dims)
        ]
        return np.stack(
            turns if self is MotionModel.RIGID else [np.eye(dims, dtype=np.float32), *turns]
        )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("flip", "matrix", "shift"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Transform:
    """A batch: `flip` int [n], row of the signs; `matrix` [n, d, d] is M; `shift` [n, d] is t."""

    flip: Array
    matrix: Array
    shift: Array

    @classmethod
    def of(cls, flip: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> "Transform":
        """From NumPy arrays."""
        return cls(jnp.asarray(flip, jnp.int32), jnp.asarray(matrix), jnp.asarray(shift))

    @property
    def signs(self) -> Array:
        """[n, d]: the diagonal of F."""
        table = FLIP_SIGNS if self.shift.shape[-1] == 2 else VOLUME_FLIP_SIGNS
        return jnp.asarray(table)[self.flip]

    @property
    def rotation_deg(self) -> Array:
        """[n] degrees: in 2D counter-clockwise as seen on a screen (y points down); in 3D >= 0."""
        m = self.matrix
        if m.shape[-1] == 2:
            return jnp.rad2deg(jnp.arctan2(m[:, 1, 0] - m[:, 0, 1], m[:, 0, 0] + m[:, 1, 1]))
        # Half of the antisymmetric part has the norm sin(angle), (trace - 1) / 2 is its cosine.
        m = m / self.scale[:, None, None]
        sine = jnp.linalg.norm(m - m.swapaxes(1, 2), axis=(1, 2)) / np.sqrt(8)
        return jnp.rad2deg(jnp.arctan2(sine, (jnp.trace(m, axis1=1, axis2=2) - 1) / 2))

    @property
    def scale(self) -> Array:
        """[n] zoom of the moving image relative to the fixed one."""
        return jnp.abs(jnp.linalg.det(self.matrix)) ** (1 / self.matrix.shape[-1])

    def positions(
        self, shape: tuple[int, ...], *, size: tuple[float, ...] | None = None
    ) -> list[Array]:
        """Where in `moving` each pixel of `fixed` is read.

        Args:
          shape: of the arrays to be read, d numbers.
          size: shape of the arrays that the transformation is meant for; `shape` if None. Where it
            differs, both cover the same frame.

        Returns:
          d arrays [n, *shape], in pixels from the first one of an array of that shape.
        """
        factor = [1.0] * len(shape) if size is None else [a / b for a, b in zip(shape, size)]
        axes = np.meshgrid(*(np.arange(s) - (s - 1) / 2 for s in shape), indexing="ij", sparse=True)
        lead = (slice(None),) + (None,) * len(shape)
        out = []
        for row, length in enumerate(shape):
            position = self.shift[:, row][lead]
            for column, axis in enumerate(axes):
                full = jnp.asarray(axis / factor[column], jnp.float32)[None]
                position = position + self.matrix[:, row, column][lead] * full
            out.append(self.signs[:, row][lead] * position * factor[row] + (length - 1) / 2)
        return out

    def after_inverse(self, generators: np.ndarray, delta: Array) -> "Transform":
        """self o (1 + delta)^-1 with delta [n, g + d]: coefficients of the generators, then a shift."""
        turned, moved = delta[:, : len(generators)], delta[:, len(generators) :]
        back = _exponential(-products.einsum("ng,gij->nij", turned, jnp.asarray(generators)))
        matrix = products.einsum("nij,njk->nik", self.matrix, back)
        return Transform(
            flip=self.flip,
            matrix=matrix,
            shift=self.shift - products.einsum("nij,nj->ni", matrix, moved),
        )


def ellipsoid(shape: tuple[int, ...], *, radius: float) -> np.ndarray:
    """Boolean array of a shape: a centred disc or ball, `radius` a share of each half side."""
    axes = np.meshgrid(*(np.arange(s) - (s - 1) / 2 for s in shape), indexing="ij", sparse=True)
    squares = [(axis / (side / 2)) ** 2 for axis, side in zip(axes, shape, strict=True)]
    return np.broadcast_to(np.sqrt(sum(squares, np.zeros(()))) <= radius, shape)


def _exponential(matrices: Array) -> Array:
    """Of small matrices [n, d, d]; eight terms are float32's precision up to a norm of 0.5."""
    term = jnp.broadcast_to(jnp.eye(matrices.shape[-1]), matrices.shape)
    total = term
    for order in range(1, 9):
        term = products.einsum("nij,njk->nik", term, matrices) / order
        total = total + term
    return total


def mirrorings(count: int) -> Transform:
    """The four mirrorings without any motion, [count, 4] of each field, in 2D."""
    flip = jnp.broadcast_to(jnp.arange(len(FLIP_SIGNS)), (count, len(FLIP_SIGNS)))
    return Transform(
        flip=flip,
        matrix=jnp.broadcast_to(jnp.eye(2), (*flip.shape, 2, 2)),
        shift=jnp.zeros((*flip.shape, 2)),
    )
