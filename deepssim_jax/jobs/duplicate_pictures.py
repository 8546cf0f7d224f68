"""Pictures of pairs of a data set: one image, the other brought onto it, and their difference."""

import dataclasses

import numpy as np

from deepssim_jax.jobs.duplicates_result import DuplicatePair, VolumePair


@dataclasses.dataclass(frozen=True)
class PairPicture:
    """uint8 images [h, w] of a pair: `second`, and `first` moved onto it with its intensities fitted;
    `difference` is 128 where both agree.
    """

    pair: DuplicatePair
    second: np.ndarray
    first: np.ndarray
    difference: np.ndarray


@dataclasses.dataclass(frozen=True)
class VolumePicture:
    """As `audit.replica_pictures.Picture`, of a pair: `frames` show the second volume, the first moved
    onto it, and their difference.
    """

    pair: VolumePair
    frames: tuple[np.ndarray, ...]
    inverted: bool


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Of the least certain copies, least first, and of the most certain pairs that are only alike."""

    copies: tuple[PairPicture, ...] | tuple[VolumePicture, ...]
    similar: tuple[PairPicture, ...] | tuple[VolumePicture, ...]
