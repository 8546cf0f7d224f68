"""Images of a data set searched against themselves, by the local features of an audit."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from deepssim_jax.audit.doubles import stand_for
from deepssim_jax.audit.gallery import grey_bytes, shown
from deepssim_jax.audit.self_join import SelfJoin, self_join
from deepssim_jax.data.manifest import InputError
from deepssim_jax.data.store import ImageStore
from deepssim_jax.jobs.collection import Collection
from deepssim_jax.jobs.copy_rule import CopyRule, score_of
from deepssim_jax.jobs.duplicate_pictures import PairPicture, Pictures
from deepssim_jax.jobs.duplicate_search import Found
from deepssim_jax.jobs.duplicate_settings import DuplicateSettings
from deepssim_jax.jobs.duplicates_result import Compared, DuplicatePair, DuplicatesResult
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.scoring.embed import build_side
from deepssim_jax.scoring.match import Progress, placement, transform_of
from deepssim_jax.scoring.side import Side
from deepssim_jax.scoring.verify import show_from
from deepssim_jax.workspace import Workspace

_MOST_COPIES, _MOST_SIMILAR = 48, 12
_NOTES = (
    "Two images are duplicates where one was made from the other, or both from one image: turned, "
    "mirrored, cropped, resized, compressed, relit, or in part.",
    "Neighbouring slices, other images of one patient and other contrasts are none. What is more similar "
    "than unrelated images, and no duplicate, is listed as similar; copies under strong noise or blur may be "
    "among them.",
    "Images that hold too little structure for local features are compared by their pixels alone.",
)


@dataclasses.dataclass(frozen=True)
class SearchedImages:
    """Images that were searched against themselves.

    `images` are what could be read, `side` has their features; `found` is by their rows, and `rule` is its
    own. `compared`, `pair` (what says what was found of a pair) and `notes` (what is a duplicate, in
    sentences) tell them from volumes.
    """

    side: Side
    images: ImageStore
    found: Found
    rule: CopyRule
    compared: Compared = Compared.IMAGES
    pair: type[DuplicatePair] = DuplicatePair
    notes: tuple[str, ...] = _NOTES

    @property
    def comparable(self) -> np.ndarray:
        """Bool [n]: what has enough local features."""
        return self.side.comparable

    def placed(self, row: np.void) -> dict[str, Any]:
        """Score and transformation, the fields of a `pair`, from a row of `found`, which is of `PAIR`."""
        return {**placement(row), "verified_score": score_of(row)}

    def pictures(self, result: DuplicatesResult) -> Pictures:
        """Of pairs of the result, whose copies and similar pairs are in the order of `found`: both images
        and their difference.
        """
        rows = self.found.pairs, self.found.similar
        return Pictures.of(result, rows, self._drawn, (_MOST_COPIES, _MOST_SIMILAR))

    def _drawn(self, pairs: Sequence[DuplicatePair], rows: np.ndarray) -> tuple[PairPicture, ...]:
        if not len(rows):
            return ()
        moving, fixed = self.images.take(rows["query"]), self.images.take(rows["reference"])
        aligned, reference = show_from(moving, fixed, transform_of(rows), rows["negative"])
        out = []
        for pair, moved, still in zip(pairs, aligned, reference, strict=True):
            second, first, difference = shown(still, moved)
            out.append(PairPicture(pair, grey_bytes(second), grey_bytes(first), difference))
        return tuple(out)


def search_images(
    collection: Collection, out: Workspace, settings: DuplicateSettings, on_progress: Progress
) -> SearchedImages:
    """Reads a collection of images and searches it against itself.

    Raises:
      InputError: none of them can be read.
    """
    side, images = build_side(
        collection.manifest,
        out,
        settings=settings.image_settings,
        encoder=functools.cache(encoders.load_encoder),
        encoder_id=encoders.encoder_hash("default"),
        on_progress=on_progress,
        what=collection.manifest.reading("reading images"),
    )
    if not len(images):
        first = images.rejected[0].reason if images.rejected else "it is empty"
        raise InputError(
            f"FOLDER: none of its {len(collection.manifest.records)} images could be read; the first "
            f"reason: {first}"
        )
    # Equal images are one: the first of each stands for all.
    equal = stand_for(images.decoded())
    stands = np.unique(equal)
    joined = self_join(
        side.rows(stands),
        journal=out.section("duplicates", images.fingerprint),
        on_progress=on_progress,
    )
    rule = CopyRule.of(
        joined.pairs, joined.unrelated, count=len(stands), rate=settings.false_discoveries
    )
    return SearchedImages(side, images, _judged(joined, stands, equal, rule), rule)


def _judged(joined: SelfJoin, stands: np.ndarray, equal: np.ndarray, rule: CopyRule) -> Found:
    """Which pairs are copies, and which are merely alike.

    Args:
      joined: what was found among the images that stand for equal ones.
      stands: rows of these.
      equal: int [n], the row that stands for each image.
      rule: of copies.
    """
    pairs = joined.pairs.copy()
    pairs["query"], pairs["reference"] = stands[pairs["query"]], stands[pairs["reference"]]
    pairs = pairs[np.lexsort((pairs["reference"], pairs["query"], -pairs["evidence"]))]
    return Found.of(pairs, rule.copies(pairs), equal=equal, rule=rule)
