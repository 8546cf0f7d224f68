"""Pictures of pairs of a data set: one image, the other brought onto it, and their difference."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from deepssim_jax.jobs.duplicates_result import DuplicatePair, DuplicatesResult, VolumePair


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


_Drawn = tuple[PairPicture, ...] | tuple[VolumePicture, ...]


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Of the least certain copies, least first, and of the most certain pairs that are only alike."""

    copies: _Drawn
    similar: _Drawn

    @classmethod
    def of(
        cls,
        result: DuplicatesResult,
        rows: tuple[np.ndarray, np.ndarray],
        draw: Callable[[Sequence[DuplicatePair], np.ndarray], _Drawn],
        most: tuple[int, int],
    ) -> "Pictures":
        """Draws some pairs of a result.

        Args:
          result: its pairs.
          rows: of the copies and of the similar pairs, in the order that the result has them in.
          draw: draws some pairs from their rows.
          most: of copies, and of similar pairs.
        """
        copies = [pair for pair in result.pairs if pair.evidence is not None]
        last, first = slice(None, -most[0] - 1, -1), slice(most[1])
        return cls(
            copies=draw(copies[last], rows[0][last]),
            similar=draw(result.similar[first], rows[1][first]),
        )
