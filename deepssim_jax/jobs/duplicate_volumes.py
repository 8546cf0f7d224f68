"""Volumes of a data set searched against themselves, in any pose, by the keypoints of `replicas`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from deepssim_jax.audit.doubles import stand_for
from deepssim_jax.audit.replica_pictures import PairDrawer
from deepssim_jax.audit.volume_join import VolumeJoin, measure_noted, placed_noted
from deepssim_jax.data.manifest import InputError, Role
from deepssim_jax.data.store import ImageStore
from deepssim_jax.jobs.collection import Collection
from deepssim_jax.jobs.duplicate_pictures import Pictures, VolumePicture
from deepssim_jax.jobs.duplicate_search import Found
from deepssim_jax.jobs.duplicate_settings import DuplicateSettings
from deepssim_jax.jobs.duplicates_result import (
    Compared,
    DuplicatePair,
    DuplicatesResult,
    VolumePair,
)
from deepssim_jax.jobs.volume_copy_rule import VOLUME_PAIR, VolumeCopyRule, copies_of
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.volume_evidence import scaled
from deepssim_jax.scoring.volume_match import Reference
from deepssim_jax.scoring.volume_measure import Alignment, MatchSettings
from deepssim_jax.scoring.volume_search import Level
from deepssim_jax.scoring.volume_sides import LevelSources, Modality, build_volume_side
from deepssim_jax.workspace import Section, Workspace

_MOST_COPIES, _MOST_SIMILAR = 16, 8
_MEASURES = (
    "points", "share", "structure", "covered", "mirrored", "rotation_deg", "shift_mm",
)  # fmt: skip
_NOTES = (
    "Two volumes are duplicates where one was made from the other, or both from one volume: turned, "
    "mirrored, cropped, with their axes changed, relit, or in part.",
    "Two scans of one person and other contrasts are none; scans that agree closely, as two phases of a "
    "heart, can be listed all the same. What is more similar than unrelated volumes, and no duplicate, is "
    "listed as similar. Crops, turns and strong changes of intensity can be there, or nowhere.",
)


@dataclasses.dataclass(frozen=True)
class SearchedVolumes:
    """Volumes that were searched against themselves.

    `references` are the volumes that stand for equal ones, in the order of `stands`, their rows; `noted` the
    pairs of these that keypoints place, see `audit.volume_join`. `images` are what could be read, and `found`
    is by their rows. `compared`, `pair` (what says what was found of a pair) and `notes` (what is a
    duplicate, in sentences) tell them from images.
    """

    references: Reference
    stands: np.ndarray
    noted: np.ndarray
    images: ImageStore
    found: Found
    drawer: PairDrawer
    collection: Collection
    compared: Compared = Compared.VOLUMES
    pair: type[DuplicatePair] = VolumePair
    notes: tuple[str, ...] = _NOTES

    @property
    def comparable(self) -> np.ndarray:
        """Bool [n]: what has keypoints."""
        index = self.references.index
        if index is None:
            return np.ones(len(self.images), bool)
        some = index.valid.reshape(len(self.stands), -1).sum(1) > 0
        return some[np.searchsorted(self.stands, self.found.equal)]

    def placed(self, row: np.void) -> dict[str, Any]:
        """Score and pose, the fields of a `pair`, from a row of `found`, which is of `VOLUME_PAIR`."""
        shift = float(row["shift_mm"])
        return {
            "verified_score": float(row["structure"]),
            "flip": "mirrored" if row["mirrored"] else "none",
            "rotation_deg": float(row["rotation_deg"]),
            "shift_mm": shift if np.isfinite(shift) else None,
            "covered": float(row["covered"]),
            "points": float(row["points"]),
            "evidence": float(row["evidence"]),
        }

    def pictures(self, result: DuplicatesResult) -> Pictures:
        """Of pairs of the result, whose copies and similar pairs are in the order of `found`: both volumes
        in three planes, from their files.
        """
        rows = self.found.pairs, self.found.similar
        return Pictures.of(result, rows, self._drawn, (_MOST_COPIES, _MOST_SIMILAR))

    def _drawn(self, pairs: Sequence[DuplicatePair], rows: np.ndarray) -> tuple[VolumePicture, ...]:
        files = {record.image_id: record for record in self.collection.manifest.records}
        out = []
        for pair, row in zip(pairs, rows, strict=True):
            noted = self.noted[[int(row["noted"])]]
            frames, inverted = self.drawer.frames(
                files[pair.second_id],
                files[pair.first_id],
                placed_noted(noted, self.references),
                self.references.side.geometry.box[int(noted["reference"][0])],
            )
            assert isinstance(pair, VolumePair)
            out.append(VolumePicture(pair, frames, inverted))
        return tuple(out)


def search_volumes(
    collection: Collection, out: Workspace, settings: DuplicateSettings, on_progress: Progress
) -> SearchedVolumes:
    """Reads a collection of volumes and searches it against itself.

    Raises:
      InputError: none of them can be read.
    """
    grid = settings.volume_settings
    try:
        side, images = build_volume_side(
            collection.manifest,
            out,
            settings=grid,
            sources=LevelSources(),
            on_progress=on_progress,
            what=collection.manifest.reading("reading volumes"),
        )
    except InputError as error:
        raise InputError(str(error).replace(f"--{Role.REAL.value}", "FOLDER")) from error
    # Equal volumes are one: the first of each stands for all.
    equal = stand_for(images.decoded())
    stands = np.unique(equal)
    journal = out.section("duplicates", images.fingerprint)
    references = Reference.of(
        side.rows(stands), alignment=Alignment.AFFINE, journal=journal, on_progress=on_progress
    )
    join = VolumeJoin.of(
        references, journal=journal, on_progress=on_progress, what="volumes with each other"
    )
    noted = join.pairs()
    pairs, rule = _judged(join, noted, references, settings.false_discoveries, journal, on_progress)
    for name in ("query", "reference"):
        pairs[name] = stands[pairs[name]]
    pairs = pairs[np.lexsort((pairs["reference"], pairs["query"], -pairs["evidence"]))]
    found = Found.of(pairs, copies_of(pairs), equal=equal, rule=rule)
    unsure = rule.unsure(found.pairs)
    return SearchedVolumes(
        references=references,
        stands=stands,
        noted=noted,
        images=images,
        found=found,
        drawer=PairDrawer(grid, Modality.OTHER.contrast),
        collection=collection,
        notes=_NOTES if unsure is None else (*_NOTES, unsure),
    )


def _judged(
    join: VolumeJoin,
    noted: np.ndarray,
    references: Reference,
    rate: float,
    journal: Section,
    on_progress: Progress,
) -> tuple[np.ndarray, VolumeCopyRule]:
    """Rows of `VOLUME_PAIR` of `noted` that are copies or alike, by rows of the references, and the rule."""

    def measured(rows: np.ndarray) -> np.ndarray:
        some = noted[rows]
        found = measure_noted(
            some, references, settings=MatchSettings(), journal=journal, on_progress=on_progress
        )
        pairs = np.zeros(len(rows), VOLUME_PAIR)
        for name in _MEASURES:
            pairs[name] = found[name]
        pairs["query"], pairs["reference"] = some["query"], some["reference"]
        pairs["noted"], pairs["evidence"] = rows, evidence[rows]
        return pairs

    evidence = scaled(noted["evidence"], Level.POINTS)
    strong = evidence >= VolumeCopyRule.least_evidence
    first = measured(np.flatnonzero(strong))
    doubles = first[copies_of(first)]
    known = np.stack([doubles["query"], doubles["reference"]], axis=1)
    rule = VolumeCopyRule.of(join, known, own=references.own, rate=rate)
    # Those that are no more than alike are measured where they are.
    rest = measured(np.flatnonzero(~strong & (evidence >= rule.evidence)))
    return np.concatenate([first, rest]), rule
