"""Volumes on the two grids in which they are searched: millimetres, and the field of view.

Contract: a stored volume is a cube [s, s, s]; its file fills a centred box of it, `box` voxels along
each axis, and a voxel is `voxel_mm` wide, NaN where the file does not say. Positions are centred. A
grid has `size` points along each axis, `step` stored voxels apart: on the grid of millimetres all
volumes have one step in mm, on that of the field of view the box fills the grid along every axis, so
that neither a forgotten affine nor a wrong spacing counts.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import products
from deepssim_jax.ops.resample import blur_matrix, sample_at
from deepssim_jax.typing import Array

# Of the references' longest sides this share fits on the grid of millimetres.
_FITS = 0.9


@dataclasses.dataclass(frozen=True)
class Geometry:
    """`box` float32 [n, 3], in voxels of the stored cubes, and `voxel_mm` float32 [n], NaN if not known."""

    box: np.ndarray
    voxel_mm: np.ndarray

    @classmethod
    def filled(cls, count: int, size: int) -> "Geometry":
        """Of volumes that fill their cubes, of a spacing that nobody knows."""
        return cls(np.full((count, 3), size, np.float32), np.full(count, np.nan, np.float32))

    def __getitem__(self, rows: np.ndarray) -> "Geometry":
        return Geometry(self.box[rows], self.voxel_mm[rows])

    @property
    def field_mm(self) -> float | None:
        """The side in mm of a cube that holds nearly all of these volumes; None if no spacing is known."""
        known = np.isfinite(self.voxel_mm)
        if not known.any():
            return None
        longest = self.box[known].max(1) * self.voxel_mm[known]
        return float(np.quantile(longest, _FITS))

    def steps(self, size: int, field_mm: float | None) -> np.ndarray:
        """float32 [n, 2, 3]: stored voxels from point to point of both grids, that of millimetres first.

        A volume of unknown spacing is taken to fill the grid of millimetres, too.
        """
        view = self.box / size
        if field_mm is None:
            return np.stack([view, view], 1).astype(np.float32)
        known = np.isfinite(self.voxel_mm)
        step = field_mm / size / np.where(known, self.voxel_mm, 1.0)
        metric = np.where(known[:, None], step[:, None], view)
        return np.stack([metric, view], 1).astype(np.float32)


def blurred(volume: Array, sigma: float) -> Array:
    """A Gaussian blur of [d, h, w], the edge repeated, as three products of matrices."""
    for axis, side in enumerate(volume.shape):
        matrix = jnp.asarray(blur_matrix(side, sigma))
        volume = jnp.moveaxis(products.tensordot(matrix, volume, axes=(1, axis)), 0, axis)
    return volume


def on_grid(volume: Array, box: Array, step: Array, *, size: int) -> tuple[Array, Array]:
    """A stored volume [s, s, s] at the points of a grid, and float 0 or 1, where its file has data."""
    middle = (volume.shape[0] - 1) / 2
    axes = [(np.arange(size, dtype=np.float32) - (size - 1) / 2) * step[axis] for axis in range(3)]
    inside = [jnp.abs(at) <= box[axis] / 2 for axis, at in enumerate(axes)]
    places = jnp.meshgrid(*(at + middle for at in axes), indexing="ij")
    held = inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None]
    return sample_at(volume[None], [p[None] for p in places])[0], held.astype(jnp.float32)


def local_structure(volume: Array, held: Array, *, sigma: float) -> Array:
    """Values [d, h, w] against the mean and the spread of their neighbourhood, 0 where not `held`.

    Neither contrast, gamma nor a bias field change it much, and inversion only its sign. Flat regions
    stay flat: the spread has a floor of a fifth of the whole volume's.
    """
    total = jnp.maximum(held.sum(), 1.0)
    mean = (volume * held).sum() / total
    spread = jnp.sqrt(((volume - mean) ** 2 * held).sum() / total)
    volume = (volume - mean) / jnp.maximum(spread, 1e-6) * held
    near = jnp.maximum(blurred(held, sigma), 1e-3)
    middle = blurred(volume, sigma) / near
    away = (volume - middle) * held
    return away / jnp.sqrt(blurred(away**2, sigma) / near + 0.05)
