"""Volumes brought to one grid, with their proportions kept, for work in 3D.

Contract: what comes out is uint16 [d, h, w], axes as in `data.volume`, with voxels of one size in all
directions. Intensities are rescaled linearly, from a volume's own extremes or from a window of
absolute values; labels are copied from the nearest voxel. What lies outside of the file is the
border's median, or label 0.

A file without a spacing is taken by its field of view: each axis fills the cube, because a number of
voxels says nothing of millimetres. `geometry` float32 [4] goes with every volume: how many voxels of
the cube the file fills along each axis, and the mm of a voxel, NaN where no spacing is known;
`two_spacings` is 1 where the file's header contradicts itself (`data.nifti_reader` has the rule).
"""

import dataclasses
import enum

import numpy as np

from deepssim_jax.data import nifti_reader
from deepssim_jax.data.decoded import digest_of
from deepssim_jax.data.manifest import Record
from deepssim_jax.data.preprocess import quantize, without_outliers
from deepssim_jax.data.readers import Limits, read_volume
from deepssim_jax.data.volume import Unreadable

_LEVELS = 65535


class Content(enum.StrEnum):
    """What the numbers of a file are."""

    INTENSITIES = "intensities"
    LABELS = "labels"


@dataclasses.dataclass(frozen=True)
class VolumeSettings:
    """The grid: `size` voxels along each axis; `spacing` mm each, or None, which fits the whole
    field of view of each file; `window` lowest and highest value kept (Hounsfield units, say).
    """

    size: tuple[int, int, int] = (64, 64, 64)
    spacing: float | None = None
    window: tuple[float, float] | None = None
    content: Content = Content.INTENSITIES

    @property
    def chunk(self) -> int:
        """Records of one chunk of a store."""
        return 32

    def validate(self) -> None:
        """Raises ValueError for values that cannot work."""
        if min(self.size) < 16:
            raise ValueError(f"size {self.size} must be at least 16 along each axis, e.g. 64")
        if self.spacing is not None and not 0.05 <= self.spacing <= 50:
            raise ValueError(f"spacing {self.spacing} mm must lie in [0.05, 50], for example 3.5")

    def load(self, record: Record, limits: Limits = Limits()) -> dict[str, np.ndarray]:
        """One volume: `pixels` uint16 of `size`, `decoded` of `digest_of`, `geometry`, `two_spacings`.

        Raises:
          Unreadable: with the reason.
        """
        volume, spacing = read_volume(record, assumed=float("nan"), limits=limits)
        pixels, geometry = self.fitted(volume, spacing if np.isfinite(spacing).all() else None)
        doubtful = nifti_reader.two_spacings(record.path)
        return {
            "pixels": pixels,
            "decoded": digest_of(volume),
            "geometry": geometry,
            "two_spacings": np.array(doubtful, np.uint8),
        }

    def fitted(
        self, volume: np.ndarray, spacing: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """`load` of a float32 volume [d, h, w] in memory; `spacing` in mm, None if it is not known."""
        if min(volume.shape) < 2:
            raise Unreadable("is a single slice, and a volume has several")
        known = spacing is not None
        size = np.array(volume.shape)
        spacing = np.asarray(spacing) if known else np.array(self.size) / size
        steps = self._steps(volume.shape, spacing, known=known)
        box = np.minimum(size / steps, self.size)
        voxel_mm = float((steps * spacing)[0]) if known else float("nan")
        return self._pixels(volume, steps), np.array([*box, voxel_mm], np.float32)

    def _pixels(self, volume: np.ndarray, steps: np.ndarray) -> np.ndarray:
        if self.content is Content.LABELS:
            return self._labels(volume, steps)
        if self.window is None:
            volume = without_outliers(volume)
        low, high = float(volume.min()), float(volume.max())
        if high <= low:
            raise Unreadable(f"is constant: every voxel is {low:g}")
        if self.window is not None:
            if high - low < 0.25 * (self.window[1] - self.window[0]):
                raise Unreadable(
                    f"its values run from {low:g} to {high:g}, and absolute values from about "
                    f"{self.window[0]:g} to {self.window[1]:g} are needed (Hounsfield units)"
                )
            volume = np.clip(volume, *self.window)
        fitted = self._resampled(volume, steps)
        if self.window is not None:
            low, high = self.window
            return np.round((fitted - low) * (_LEVELS / (high - low))).astype(np.uint16)
        fitted = quantize(fitted)
        if fitted.max() == 0:
            raise Unreadable("is constant at the declared size")
        return fitted

    def values(self, stored: np.ndarray) -> np.ndarray:
        """float32 absolute values of what `load` gave.

        Raises:
          ValueError: there is no window, and each volume was scaled by itself.
        """
        if self.window is None:
            raise ValueError("window None keeps no absolute values; set the window they lie in")
        low, high = self.window
        return stored.astype(np.float32) * ((high - low) / _LEVELS) + low

    def _steps(self, shape: tuple[int, ...], spacing: np.ndarray, *, known: bool) -> np.ndarray:
        """Voxels of the file from one voxel of the grid to the next, along each axis."""
        extent = np.array(shape) * spacing
        voxel = float((extent / np.array(self.size)).max())
        if known and self.spacing is not None:
            voxel = self.spacing
        return voxel / spacing

    def _resampled(self, volume: np.ndarray, steps: np.ndarray) -> np.ndarray:
        faces = [np.take(volume, i, axis).ravel() for axis in range(3) for i in (0, -1)]
        border = np.float32(np.median(np.concatenate(faces)))
        out = volume - border  # so that what lies outside adds nothing
        for axis, step in enumerate(steps):
            weights = _triangles(self.size[axis], volume.shape[axis], float(step))
            out = np.moveaxis(np.tensordot(weights, out, axes=(1, axis)), 0, axis)
        return out.astype(np.float32) + border

    def _labels(self, volume: np.ndarray, steps: np.ndarray) -> np.ndarray:
        if (volume != np.round(volume)).any() or volume.min() < 0 or volume.max() > _LEVELS:
            raise Unreadable(f"is no label map: labels are whole numbers from 0 to {_LEVELS}")
        rows, known = [], []
        for size, length, step in zip(self.size, volume.shape, steps, strict=True):
            at = np.round((np.arange(size) - (size - 1) / 2) * step + (length - 1) / 2).astype(int)
            known.append((at >= 0) & (at < length))
            rows.append(np.clip(at, 0, length - 1))
        inside = known[0][:, None, None] & known[1][:, None] & known[2]
        return np.where(inside, volume[np.ix_(*rows)], 0).astype(np.uint16)


def _triangles(size: int, length: int, step: float) -> np.ndarray:
    """float32 [size, length]: linear interpolation, widened by the step so that nothing aliases."""
    at = (np.arange(size) - (size - 1) / 2) * step + (length - 1) / 2
    away = np.abs(at[:, None] - np.arange(length)[None, :]) / max(step, 1.0)
    weights = np.maximum(1 - away, 0)
    total = weights.sum(1, keepdims=True)
    # A voxel beyond the file's end is not stretched from its last one.
    inside = ((at > -0.5 * max(step, 1)) & (at < length - 1 + 0.5 * max(step, 1)))[:, None]
    return np.where(inside, weights / np.maximum(total, 1e-9), 0.0).astype(np.float32)
