"""Pictures of pairs of a data set: one image, the other brought onto it, and their difference."""

import dataclasses

import numpy as np

from deepssim_jax.audit.gallery import grey_bytes, shown
from deepssim_jax.data.store import ImageStore
from deepssim_jax.jobs.duplicates_result import DuplicatePair, DuplicatesResult
from deepssim_jax.jobs.findings import Found
from deepssim_jax.scoring.match import transform_of
from deepssim_jax.scoring.verify import show_from

MOST_COPIES, MOST_SIMILAR = 48, 12


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
class Pictures:
    """Of the least certain copies, least first, and of the most certain pairs that are only alike."""

    copies: tuple[PairPicture, ...]
    similar: tuple[PairPicture, ...]


def build_pictures(result: DuplicatesResult, found: Found, images: ImageStore) -> Pictures:
    """Draws them.

    Args:
      result: of the job; its copies and similar pairs are in the order of `found`.
      found: rows and transformations of these pairs.
      images: the store.
    """
    copies = [pair for pair in result.pairs if pair.evidence is not None]
    last = slice(None, -MOST_COPIES - 1, -1)
    return Pictures(
        copies=_drawn(copies[last], found.pairs[last], images),
        similar=_drawn(result.similar[:MOST_SIMILAR], found.similar[:MOST_SIMILAR], images),
    )


def _drawn(
    pairs: list[DuplicatePair] | tuple[DuplicatePair, ...], rows: np.ndarray, images: ImageStore
) -> tuple[PairPicture, ...]:
    if not len(rows):
        return ()
    moving, fixed = images.take(rows["query"]), images.take(rows["reference"])
    aligned, reference = show_from(moving, fixed, transform_of(rows), rows["negative"])
    out = []
    for pair, moved, still in zip(pairs, aligned, reference, strict=True):
        second, first, difference = shown(still, moved)
        out.append(PairPicture(pair, grey_bytes(second), grey_bytes(first), difference))
    return tuple(out)
