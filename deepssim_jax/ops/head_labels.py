"""Label maps of heads by absolute or relative intensity: CT and angiography.

Contract: volumes are real [n, d, h, w], axes as in `data.volume`; label maps uint8 of the same shape,
0 the background. These are rules of thumb that answer "do two volumes show the same structures?",
not a diagnosis. `ops.tissue` parts the tissues of brain MR.
"""

import numpy as np
from scipy import ndimage

from deepssim_jax.typing import Volumes

CT_NAMES = ("brain", "haemorrhage", "bone")
VESSEL_NAMES = ("vessels",)
# Hounsfield units of brain and blood: what an encoder and people look at.
BRAIN_WINDOW = (0.0, 80.0)
# Hounsfield units: Hounsfield, Br. J. Radiol. 46, 1973; clotted blood 50 to 90.
_BONE, _BLOOD, _WATER = 150.0, (50.0, 100.0), 0.0
_SMALLEST = 12  # voxels; smaller specks of "blood" are noise
_VESSEL_SHARE = 0.015  # of the voxels of the head


def ct_labels(hounsfield: Volumes) -> np.ndarray:
    """1 brain, 2 haemorrhage, 3 bone, by thresholds inside of what bone encloses in axial slices."""
    out = np.zeros(hounsfield.shape, np.uint8)
    in_plane = ndimage.generate_binary_structure(3, 1)
    in_plane[0], in_plane[2] = False, False
    for volume, labels in zip(np.asarray(hounsfield, np.float32), out, strict=True):
        bone = volume > _BONE
        closed = ndimage.binary_closing(np.pad(bone, 2), iterations=2)[2:-2, 2:-2, 2:-2]
        inside = ndimage.binary_fill_holes(closed | bone, structure=in_plane) & ~bone
        # Smoothed by what lies inside alone: beside bone, brain would get the value of blood.
        weight = ndimage.gaussian_filter(inside.astype(np.float32), 0.8)
        smooth = ndimage.gaussian_filter(volume * inside, 0.8) / np.maximum(weight, 0.05)
        blood = ndimage.binary_erosion(inside) & (smooth > _BLOOD[0]) & (smooth < _BLOOD[1])
        parts, count = ndimage.label(blood)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        blood &= sizes[parts] >= _SMALLEST
        labels[inside & (smooth > _WATER)] = 1
        labels[blood] = 2
        labels[bone] = 3
    return out


def vessel_labels(volumes: Volumes) -> np.ndarray:
    """1 where the smoothed volume is brightest: 1.5 % of the head, so that no contrast changes it."""
    out = np.zeros(volumes.shape, np.uint8)
    for volume, labels in zip(np.asarray(volumes, np.float32), out, strict=True):
        smooth = ndimage.gaussian_filter(volume, 0.7)
        head = smooth > smooth.mean()
        if head.any():
            labels[head & (smooth > np.quantile(smooth[head], 1 - _VESSEL_SHARE))] = 1
    return out
