"""A finished audit, or search for duplicates or replicas, as pairs for people to look at.

Contract: a `ReviewSource` lists every pair that the job had to decide, each in one stratum, its label by
the program. Of an audit, or of replicas, these are the synthetic images with their best matches, and of
duplicates the pairs that were found. Images are read again from where they lay; a pair of images keeps
the transformation that was found.
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from deepssim_jax.data.records import Record
from deepssim_jax.data.store import InputSettings
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.scoring.match import Moved
from deepssim_jax.scoring.volume_measure import Alignment
from deepssim_jax.scoring.volume_sides import Modality

SAMPLE = "sample"  # the kind of a pair that was drawn from those of the job


class Job(enum.StrEnum):
    """Whose folder it is."""

    AUDIT = "audit"
    DUPLICATES = "duplicates"
    REPLICAS = "replicas"

    @property
    def table(self) -> str:
        """The file that only this job writes."""
        return {"audit": "nearest.csv", "duplicates": "groups.csv"}.get(self, "replicas.csv")

    @property
    def pairs(self) -> str:
        """The file that lists the pairs that are reviewed."""
        return "pairs.csv" if self is Job.DUPLICATES else self.table


@dataclasses.dataclass(frozen=True)
class ReviewPair:
    """A pair to decide: `moving` (the synthetic image, or the first of two) and `fixed` by image id, and how
    the fixed image was moved to give the moving one.

    `margin` is how far the evidence lies beyond the nearest threshold, relative to it: below 0 the program
    says that it is no copy. `facts` are shown beside the pictures unless the reader is blind.
    """

    stratum: str
    moving: str
    fixed: str
    placed: Moved
    margin: float
    facts: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class VolumeForm:
    """How volumes are read, aligned and shown."""

    grid: VolumeSettings
    alignment: Alignment
    modality: Modality


@dataclasses.dataclass(frozen=True)
class ReviewSource:
    """What can be reviewed of a finished job.

    `names` are what both pictures of a pair are called. `pairs` are all that were decided; `moving` and
    `fixed` their files by image id. `rate` is the program's own, as in `summary.json`; `copies` are the
    strata that the program calls copies. `doubles` are fixed images that are copies of each other.
    `left_out` images that lie in the folders were to be forgotten; nobody noted which.
    """

    job: Job
    names: tuple[str, str]
    pairs: tuple[ReviewPair, ...]
    moving: Mapping[str, Record]
    fixed: Mapping[str, Record]
    form: InputSettings | VolumeForm
    rate: Mapping[str, Any]
    copies: frozenset[str]
    doubles: frozenset[str] = frozenset()
    left_out: int = 0

    @property
    def strata(self) -> dict[str, int]:
        """How many pairs have which label."""
        found: dict[str, int] = {}
        for pair in self.pairs:
            found[pair.stratum] = found.get(pair.stratum, 0) + 1
        return dict(sorted(found.items()))
