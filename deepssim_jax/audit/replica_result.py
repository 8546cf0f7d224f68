"""What a search for replicas of volumes found, as plain data.

The report, `replicas.csv` and `summary.json` are all written from one `ReplicaResult`.
"""

import dataclasses
import enum
from collections.abc import Mapping

import numpy as np

from deepssim_jax.audit.result import Exclusion, Verdict
from deepssim_jax.scoring.decide import Proportion
from deepssim_jax.scoring.ratings import MeasureRating
from deepssim_jax.scoring.volume_search import Level


class Kind(enum.StrEnum):
    """How a synthetic volume relates to the closest real one.

    A `replica` shows the same scan; `same_person` agrees as two scans of one person do, and better
    than two people; `different` is anything else.
    """

    REPLICA = "replica"
    SAME_PERSON = "same_person"
    DIFFERENT = "different"


@dataclasses.dataclass(frozen=True)
class LevelMatch:
    """The closest real volume at one level; `score` is the level's deciding measure.

    `measures` are all of the level's; `mirrored`, `rotation_deg` and `shift_mm` say how the real
    volume was moved to give the synthetic one.
    """

    real_id: str
    subject_id: str | None
    score: float
    kind: Kind
    measures: Mapping[str, float]
    mirrored: bool
    rotation_deg: float
    shift_mm: float


@dataclasses.dataclass(frozen=True)
class VolumeMatch:
    """One synthetic volume: its closest real volume at each level, and what they say together.

    `votes` is how many levels call it a replica of one and the same patient; it is a `REPLICA` where
    they are more than half of the levels, and the `SAME_PERSON` where at least half say that or more.
    `disputed` if the levels do not agree.
    """

    synthetic_id: str
    levels: Mapping[Level, LevelMatch]
    kind: Kind
    votes: int
    disputed: bool


@dataclasses.dataclass(frozen=True)
class LevelThresholds:
    """Scores from which a level calls a pair a replica, and at least the same person.

    `null` are best matches of real volumes with other patients', `repeats` with the same patient's
    other scans; `planted` those of replicas planted in memory, of which `recall` were found.
    """

    replica: float
    same_person: float
    origin: str
    null: np.ndarray
    repeats: np.ndarray
    planted: np.ndarray
    false_rate: Proportion | None
    recall: Proportion | None
    calibrated: bool


@dataclasses.dataclass(frozen=True)
class ReplicaResult:
    """The whole outcome. `ratings` is None where nobody rated; `overlap_by_label` holds, for each
    synthetic volume in the order of `matches`, the overlap measures of each label in `label_names`.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    counts: Mapping[str, int]
    rate: Proportion
    matches: tuple[VolumeMatch, ...]
    thresholds: Mapping[Level, LevelThresholds]
    label_names: tuple[str, ...]
    overlap_by_label: np.ndarray | None
    ratings: "RatingSummary | None"
    repeats: tuple["Repeat", ...]
    exclusions: tuple[Exclusion, ...]
    notes: tuple[str, ...]
    settings: Mapping[str, object]
    versions: Mapping[str, str]

    @property
    def replicas(self) -> tuple[VolumeMatch, ...]:
        """The synthetic volumes that most levels call replicas."""
        return tuple(m for m in self.matches if m.kind is Kind.REPLICA)

    @property
    def disputed(self) -> tuple[VolumeMatch, ...]:
        """Those on which the levels do not agree."""
        return tuple(m for m in self.matches if m.disputed)


@dataclasses.dataclass(frozen=True)
class Repeat:
    """Two real scans of one patient, and how alike they are at each level.

    That they are of one person is known; `kinds` says where they would be taken for replicas.
    """

    first_id: str
    second_id: str
    subject_id: str
    scores: Mapping[Level, float]
    kinds: Mapping[Level, Kind]


@dataclasses.dataclass(frozen=True)
class RatingSummary:
    """What people said, and how well each measure agrees with them.

    `kappa` is Fleiss', None for one rater; `agreement` the share of volumes on which all raters agree.
    """

    raters: int
    rated: int
    replicas: int
    kappa: float | None
    agreement: float
    measures: tuple[MeasureRating, ...]
