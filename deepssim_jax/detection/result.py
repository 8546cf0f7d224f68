"""What a search for copies leaves as plain data, whatever it searched; each job adds its matches."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from deepssim_jax.data.manifest import Role
from deepssim_jax.data.store import ImageStore
from deepssim_jax.detection.assessment import Assessment, Verdict
from deepssim_jax.scoring.decide import Proportion


@dataclasses.dataclass(frozen=True)
class Exclusion:
    """A file that was not tested, and why."""

    role: str  # "real", "synthetic" or "holdout"
    image_id: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Detection:
    """The assessment and what it rests on.

    `counts` are of images or volumes, by keys that each job documents; `notes` state in sentences what was
    done to the images and what was not tested; `settings` and `versions` are those that can change a score.
    """

    assessment: Assessment
    counts: Mapping[str, int]
    exclusions: tuple[Exclusion, ...]
    notes: tuple[str, ...]
    settings: Mapping[str, object]
    versions: Mapping[str, str]

    @property
    def verdict(self) -> Verdict:
        """The one-word answer."""
        return self.assessment.verdict

    @property
    def copy_rate(self) -> Proportion:
        """Share of the compared images that are copies."""
        return self.assessment.copy_rate


def not_compared(
    role: Role, images: ImageStore, comparable: np.ndarray, reason: str
) -> tuple[Exclusion, ...]:
    """The images of a side that were read and, by bool [n], could not be compared."""
    return tuple(
        Exclusion(role.value, images.image_ids[row], reason) for row in np.flatnonzero(~comparable)
    )


def excluded(stores: Mapping[Role, ImageStore]) -> tuple[Exclusion, ...]:
    """The files of every side that could not be read."""
    return tuple(
        Exclusion(role.value, item.image_id, item.reason)
        for role, images in stores.items()
        for item in images.rejected
    )
