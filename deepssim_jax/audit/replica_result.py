"""What a search for replicas of volumes found, as plain data.

The report, `replicas.csv` and `summary.json` are all written from one `ReplicaResult`.
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from deepssim_jax.detection.result import Detection, Exclusion
from deepssim_jax.scoring.decide import Proportion
from deepssim_jax.scoring.ratings import MeasureRating
from deepssim_jax.scoring.volume_evidence import Law
from deepssim_jax.scoring.volume_search import Level

if TYPE_CHECKING:
    import pandas


UNKNOWN = 2  # best matches of unrelated volumes that can be of copies nobody knows of


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
    """The closest real volume at one level; `score` is the level's evidence (`scoring.volume_evidence`).

    `measures` are all of the level's; `p_value` that of the evidence among unrelated volumes; `mirrored`,
    `rotation_deg` and `shift_mm` say how the real volume was moved to give the synthetic one, in
    millimetres, NaN where no spacing is known.
    """

    real_id: str
    subject_id: str | None
    score: float
    p_value: float
    kind: Kind
    measures: Mapping[str, float]
    mirrored: bool
    rotation_deg: float
    shift_mm: float


@dataclasses.dataclass(frozen=True)
class VolumeMatch:
    """One synthetic volume: its closest real volume at each level, and what they say together.

    It is a `REPLICA` where a level that counts calls it one, at a threshold that allows for as many
    levels and volumes as there are, and the `SAME_PERSON` where one calls it that. `votes` is how many
    levels call it a replica of that patient. `disputed` if levels that count do not agree, or one that
    does not count calls it a replica alone. `p_value` and `q_value` are those of all counting levels
    together, None where none of them measured it; `reason` is a sentence.
    """

    synthetic_id: str
    levels: Mapping[Level, LevelMatch]
    kind: Kind
    votes: int
    disputed: bool
    p_value: float | None = None
    q_value: float | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class LevelThresholds:
    """Evidence from which a level calls a pair a replica, and at least the same person.

    `null` are best matches of real volumes with other patients', `repeats` with the same patient's
    other scans; `planted` those of the positive controls, of which `recall` were found, and
    `recall_by_edit` of how many each (`audit.replica_trials.EACH_EDIT`). `tells` says whether a replica has
    to agree as copies do, and not only as two scans of a patient can; `counts` whether the level counts;
    `law` is that of unrelated volumes.
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
    recall_by_edit: Mapping[str, int]
    tells: bool
    counts: bool
    law: Law

    def p_values(self, evidence: np.ndarray) -> np.ndarray:
        """Of evidence [n] among unrelated volumes: by the law, or the share of those at hand that reach it,
        whichever is more. A law of quantiles knows nothing of a heavy tail; two of them can be copies
        that nobody knows of.
        """
        reached = (self.null[None] >= np.asarray(evidence)[:, None]).sum(1) - UNKNOWN
        return np.maximum(
            self.law.p_values(evidence), np.maximum(reached, 0) / max(len(self.null), 1)
        )


@dataclasses.dataclass(frozen=True)
class ReplicaResult(Detection):
    """The whole outcome. `ratings` is None where nobody rated; `overlap_by_label` holds, for each
    synthetic volume in the order of `matches`, the overlap measures of each label in `label_names`;
    `two_spacings` are volumes that were used though their headers contradict themselves, `without_labels`
    those that were compared at the other levels alone.

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_volumes(4)
      >>> with tempfile.TemporaryDirectory() as work:
      ...     _ = testing.write_images(f"{work}/real", phantoms[:3])
      ...     synthetic = {"copy": phantoms[2], "other": phantoms[3]}
      ...     _ = testing.write_images(f"{work}/synthetic", synthetic)
      ...     settings = ds.ReplicaSettings(size=32)
      ...     result = ds.replicas(f"{work}/real", f"{work}/synthetic", settings=settings)
      >>> result.verdict.value, result.rate.count, result.rate.total
      ('copies_found', 1, 2)
      >>> {level.value: found.real_id for level, found in result.matches[0].levels.items()}
      {'points': 'p0002.npy', 'voxel': 'p0002.npy', 'feature': 'p0002.npy'}
    """

    matches: tuple[VolumeMatch, ...]
    thresholds: Mapping[Level, LevelThresholds]
    label_names: tuple[str, ...]
    overlap_by_label: np.ndarray | None
    ratings: "RatingSummary | None"
    repeats: tuple["Repeat", ...]
    two_spacings: tuple[Exclusion, ...] = ()
    without_labels: tuple[Exclusion, ...] = ()
    notes_to_share: tuple[str, ...] = ()  # those that say nothing of files

    @property
    def rate(self) -> Proportion:
        """Share of the synthetic volumes that are replicas."""
        return self.copy_rate

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the verdict is what it is and what would be needed, in full sentences; not to be shared."""
        from deepssim_jax.audit import sentences

        return sentences.reasons(self.assessment.reasons, words=sentences.VOLUMES)

    @property
    def replicas(self) -> tuple[VolumeMatch, ...]:
        """The synthetic volumes that are called replicas."""
        return tuple(m for m in self.matches if m.kind is Kind.REPLICA)

    @property
    def disputed(self) -> tuple[VolumeMatch, ...]:
        """Those on which the levels do not agree."""
        return tuple(m for m in self.matches if m.disputed)

    def to_pandas(self) -> "pandas.DataFrame":
        """The synthetic volumes with their closest real ones as a DataFrame, as `replicas.csv` has them.

        Raises:
          ImportError: pandas is not installed.
        """
        from deepssim_jax.audit import replica_outputs  # which writes this result's files

        return replica_outputs.replica_table(self).data_frame()

    def _repr_html_(self) -> str:
        """The verdict, its numbers and the first volumes, without pictures: what a notebook shows.

        Names of files and patients are in it: the notebook is the institution's own. Clear its outputs
        before it is given away; `report_share.html` is what is made for that.
        """
        from deepssim_jax.audit import notebook, replica_outputs, replica_report
        from deepssim_jax.audit.disclosure import Edition

        real = tuple(f"{level}_real_id" for level in self.thresholds)
        return notebook.html(
            replica_report.answer(self, Edition.INTERNAL),
            replica_outputs.replica_table(self),
            columns=("synthetic_id", "kind", "votes", "disputed", "p_value", *real),
        )


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
