"""Maps of the head's tissues, from which phantoms are made.

Contract: maps are float32 [k, d, h, w] in [0, 1], axes as in `data.volume` (upwards, front to
back, right to left), isotropic; the order of the tissues is `TISSUES`. The maps come from the
ICBM152 2009a atlas (Fonov et al., NeuroImage 54, 2011) where the `phantom` extra brings it, else
from a small procedural head that needs nothing.
"""

import dataclasses
import functools
import importlib.util
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

TISSUES = ("csf", "grey", "white", "skull", "scalp")
_SPACING = 1.5  # mm; a slice of 128 pixels shows a head at about this
_ATLAS = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """Tissue maps, their spacing in millimetres, and where they come from."""

    maps: np.ndarray
    spacing: float
    source: str  # "icbm152" or "procedural"


def load_anatomy() -> Anatomy:
    """The atlas if the `phantom` extra is installed, else the procedural head."""
    return _atlas() or procedural()


def _atlas_folder() -> Path | None:
    spec = importlib.util.find_spec("nilearn")  # found, not imported: its import is slow
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    return folder if (folder / _ATLAS.format("gm")).exists() else None


@functools.cache
def _atlas() -> Anatomy | None:
    folder = _atlas_folder()
    if folder is None:
        return None

    def read(name: str) -> np.ndarray:
        volume = (
            np.asarray(
                nibabel.Nifti1Image.from_filename(folder / _ATLAS.format(name)).dataobj, np.float32
            )
            / 255
        )
        # Files are RAS; see the module for the order wanted.
        return volume.transpose(2, 1, 0)[:, ::-1, ::-1]

    grey, white, t1 = read("gm"), read("wm"), read("t1")
    closed = ndimage.binary_closing(t1 > 0.05, iterations=3)
    brain = np.asarray(ndimage.binary_fill_holes(closed))
    csf = np.clip(brain - grey - white, 0, 1)
    maps = np.stack([csf, grey, white, *_shells(brain, 1.0)])
    factor = 1 / _SPACING
    smooth = [ndimage.zoom(ndimage.gaussian_filter(m, 0.45), factor, order=1) for m in maps]
    return Anatomy(np.stack(smooth).astype(np.float32), _SPACING, "icbm152")


def _shells(brain: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Skull and scalp as soft shells around the brain; the atlas itself is brain only."""
    away = np.asarray(ndimage.distance_transform_edt(~brain, sampling=spacing))

    def shell(inner: float, outer: float) -> np.ndarray:
        rising = np.clip(away - inner + 0.5, 0, 1)
        return rising * np.clip(outer - away + 0.5, 0, 1) * ~brain

    return shell(2.0, 7.0), shell(7.0, 13.0)


@functools.cache
def procedural(seed: int = 0) -> Anatomy:
    """A head from ellipsoids and smooth noise: folded cortex, ventricles, deep grey matter."""
    spacing = 2.0
    shape = (84, 108, 92)
    axes = [(np.arange(s) - (s - 1) / 2) * spacing for s in shape]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    rng = np.random.default_rng(seed)

    def noise(sigma_mm: float) -> np.ndarray:
        field = ndimage.gaussian_filter(rng.standard_normal(shape), sigma_mm / spacing)
        return field / field.std()

    def soft(signed_mm: np.ndarray) -> np.ndarray:
        """1 inside (negative distance), 0 outside, about one voxel wide."""
        return 1 / (1 + np.exp(np.clip(signed_mm / 0.8, -30, 30)))

    def ellipsoid(centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
        scaled = [(g - c) / r for g, c, r in zip((z, y, x), centre, radii, strict=True)]
        return (np.sqrt(sum(s**2 for s in scaled)) - 1) * min(radii)

    surface = ellipsoid((0, 0, 0), (62, 84, 68)) + 1.5 * noise(14)
    brain = soft(surface)
    fold = np.minimum(np.abs(noise(7)), np.abs(noise(9)))
    sulcus = soft(fold * 11 - 1.6 + np.maximum(-surface - 22, 0) * 0.5)
    gap = soft(np.abs(x) - 1.0) * soft(-(z - 5) * 0.5)  # between the hemispheres
    depth = np.minimum(-surface, fold * 11)
    ribbon = soft(depth - 4.5)
    ventricles = np.maximum(
        soft(ellipsoid((8, 0, 11), (9, 34, 6))), soft(ellipsoid((8, 0, -11), (9, 34, 6)))
    )
    deep = np.maximum(
        soft(ellipsoid((0, -4, 22), (14, 22, 9))), soft(ellipsoid((0, -4, -22), (14, 22, 9)))
    )
    csf = brain * np.maximum.reduce([sulcus, gap, ventricles])
    grey = (brain - csf) * np.maximum(ribbon, deep)
    white = np.clip(brain - csf - grey, 0, 1)
    shells = [shell * (1 - brain) for shell in _shells(brain > 0.5, spacing)]
    maps = np.stack([csf, grey, white, *shells])
    return Anatomy(maps.astype(np.float32), spacing, "procedural")
