"""Whether a label map that was made here can be what its labels say; else it is refused.

Contract: `labels` are integers [d, h, w], numbered as the segmentation numbers them; `volume` real
[d, h, w] is what was segmented. Limits are wide: they are for an abdomen that was taken for a head,
not for disease. Shares are of the voxels of the volume, or of all labelled ones.
"""

import dataclasses
import enum
from collections.abc import Callable

import numpy as np
from scipy import ndimage

_MIDDLE = (0.25, 0.75)  # where the centre of a brain lies along each axis, as a share of the side
_HEAD = (0.03, 0.7)  # of the volume: a brain, or all of its tissues
_BONE, _TISSUE = 0.01, 0.04
_WHOLE = 0.35  # of a brain, its largest connected part
# Vessels are brighter than the rest and thin: so many times its median, so much left by erosion.
_BRIGHTER, _SOLID = 1.8, 0.2


class Segmented(enum.Enum):
    """What a label map shows: a head in CT (brain, haemorrhage, bone), tissues (csf, grey, white) or
    vessels.
    """

    CT_HEAD = "ct head"
    TISSUES = "tissues"
    VESSELS = "vessels"


@dataclasses.dataclass(frozen=True)
class _Part:
    """One label: its share of the volume, of its largest part, and its centre as shares of the sides."""

    share: float
    largest: float
    centre: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> "_Part":
        if not mask.any():
            return cls(0.0, 0.0, np.full(3, np.nan))
        parts, _ = ndimage.label(mask)
        largest = np.bincount(parts.ravel())[1:].max() / mask.sum()
        centre = (np.array(ndimage.center_of_mass(mask)) + 0.5) / mask.shape
        return cls(float(mask.mean()), float(largest), centre)

    @property
    def in_the_middle(self) -> bool:
        return bool(((self.centre > _MIDDLE[0]) & (self.centre < _MIDDLE[1])).all())


def implausible(labels: np.ndarray, volume: np.ndarray, kind: Segmented) -> str | None:
    """Why a label map is refused, or None."""
    rule: Callable[[np.ndarray, np.ndarray], str | None] = {
        Segmented.CT_HEAD: _ct_head,
        Segmented.TISSUES: _tissues,
        Segmented.VESSELS: _vessels,
    }[kind]
    return rule(labels, volume)


def _ct_head(labels: np.ndarray, volume: np.ndarray) -> str | None:
    del volume
    brain, bone = _Part.of(np.isin(labels, (1, 2))), float((labels == 3).mean())
    if bone < _BONE:
        return f"bone is {bone:.1%} of the volume, and of a head it is more than {_BONE:.0%}"
    if not _HEAD[0] <= brain.share <= _HEAD[1]:
        return f"what bone encloses is {brain.share:.1%} of the volume, which no brain is"
    if brain.largest < _WHOLE or not brain.in_the_middle:
        return "what bone encloses lies in pieces or at the side, and a brain does not"
    return None


def _tissues(labels: np.ndarray, volume: np.ndarray) -> str | None:
    del volume
    brain = _Part.of(labels > 0)
    if not _HEAD[0] <= brain.share <= _HEAD[1] or not brain.in_the_middle:
        return f"what was taken for a brain is {brain.share:.1%} of the volume, or at its side"
    shares = [float((labels == k).sum() / (labels > 0).sum()) for k in (1, 2, 3)]
    if min(shares) < _TISSUE:
        return (
            "fluid, grey and white matter are "
            + ", ".join(f"{s:.0%}" for s in shares)
            + f" of it, and each is more than {_TISSUE:.0%} of a brain"
        )
    return None


def _vessels(labels: np.ndarray, volume: np.ndarray) -> str | None:
    mask = labels > 0
    values = np.asarray(volume, np.float32)
    low = float(values.min())
    head = values > values.mean()
    if not mask.any() or not head.any():
        return "nothing in it is bright enough for a vessel"
    ratio = (float(values[mask].mean()) - low) / max(float(np.median(values[head])) - low, 1e-6)
    solid = float(ndimage.binary_erosion(mask).sum() / mask.sum())
    if ratio < _BRIGHTER or solid > _SOLID:
        return (
            f"its brightest part is {ratio:.1f} times as bright as the rest and {solid:.0%} of it is no "
            f"surface; vessels are at least {_BRIGHTER} times as bright, and thin"
        )
    return None
