"""Descriptors in fewer numbers, mirror parts kept apart.

Contract: RootSIFT float32 [..., 128] becomes float32 [..., d] of unit norm: first the part that a
mirror keeps, then the part that it negates, each by the principal axes of descriptors like the real
side's. `signs` turns a descriptor into that of the mirror image.
"""

import dataclasses

import numpy as np

from deepssim_jax.features.descriptors import mirrored

EVEN, ODD = 40, 24
_SAMPLE = 40_000


@dataclasses.dataclass(frozen=True)
class Basis:
    """`mean` float32 [128]; `axes` float32 [128, d], of the kept part first, then of the negated one."""

    mean: np.ndarray
    axes: np.ndarray
    even: int

    @property
    def signs(self) -> np.ndarray:
        """float32 [d]: 1 for what a mirror keeps, -1 for what it negates."""
        return np.where(np.arange(self.axes.shape[1]) < self.even, 1, -1).astype(np.float32)

    def project(self, descriptors: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """float32 [..., d] of unit norm; zeros where there is no point."""
        z = (np.asarray(descriptors, np.float32) - self.mean) @ self.axes
        z /= np.linalg.norm(z, axis=-1, keepdims=True) + 1e-9
        return z * valid[..., None]


def sample_points(valid: np.ndarray) -> np.ndarray:
    """Places in [n k] of an even sample of the points that exist, bool [n, k]."""
    rows = np.flatnonzero(valid.ravel())
    return rows[np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).astype(int)]


def learn(sample: np.ndarray, *, even: int = EVEN, odd: int = ODD) -> Basis:
    """Principal axes of each mirror part.

    Args:
      sample: float32 [m, 128], descriptors of points that exist.
      even: axes of the part that a mirror keeps, at most 72.
      odd: axes of the part that it negates, at most 56.
    """
    sample = sample.astype(np.float64)
    turned = sample[:, mirrored()]
    mean = (sample + turned).sum(0) / (2 * max(len(sample), 1))
    axes = []
    for part, count in (((sample + turned) / 2 - mean, even), ((sample - turned) / 2, odd)):
        vectors = np.linalg.eigh(part.T @ part)[1][:, ::-1][:, :count]
        # The sign of an axis is free; a fixed one makes the same file on every machine.
        largest = np.abs(vectors).argmax(0)
        axes.append(vectors * np.sign(vectors[largest, np.arange(count)]))
    return Basis(mean.astype(np.float32), np.concatenate(axes, 1).astype(np.float32), even)
