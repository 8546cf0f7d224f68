"""What an audit found, as plain data.

The report, the CSV files and `summary.json` are all written from one `AuditResult`; nothing in
them is computed a second time. Scores are similarities in [-1, 1]; shifts are pixels of the
declared image size, rotations degrees counter-clockwise.
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from deepssim_jax.detection.assessment import EditRecall, Performance
from deepssim_jax.detection.calls import FalseCalls
from deepssim_jax.detection.result import Detection
from deepssim_jax.scoring.decide import ClusteredShare, Discoveries, Proportion
from deepssim_jax.scoring.match import Moved
from deepssim_jax.scoring.membership import Attack, MembershipFigures

if TYPE_CHECKING:
    import pandas


class Label(enum.StrEnum):
    """How a synthetic image relates to its best match."""

    EXACT = "exact_duplicate"
    NEAR = "near_duplicate"
    UNRELATED = "unrelated"


class Relation(enum.StrEnum):
    """What a synthetic image has of a real one."""

    WHOLE = "copy"
    PART = "partial_copy"
    OTHER_IMAGE = "same_patient_other_image"
    NONE = "unrelated"
    NOT_COMPARABLE = "not_comparable"


# Of the picture: where less agrees, a part was copied. Of 171 whole copies under edits 5 have less, of 50
# parts of 12 to 40 % 41.
_PART = 0.5


@dataclasses.dataclass(frozen=True)
class Match(Moved):
    """A synthetic image beside one real image, which was moved to give it."""

    synthetic_id: str
    real_id: str
    subject_id: str | None
    embedding_score: float
    verified_score: float
    label: Label
    p_value: float | None
    q_value: float | None
    points: float = 0.0  # sum of the local features' matches that lie as the real image's do
    evidence: float = 0.0  # the same relative to other real images
    by_points: bool = False  # the transformation is that of local features
    partial: tuple[float, ...] = (-5.0, -5.0, -5.0)  # partial correlations, of `scoring.detail`
    share: float = 0.0  # of the picture that agrees
    exact: float = 0.0  # how exactly local features lie as the real image's do, in [0, 1]
    other_image: bool = False  # it looks like another image of the real image's patient
    confirmed: bool = False  # local features and partial correlations both call it a copy
    comparable: bool = True  # the synthetic image holds enough structure to be compared

    @property
    def relation(self) -> Relation:
        """How much of the synthetic image comes from the real one."""
        if not self.comparable:
            return Relation.NOT_COMPARABLE
        if self.label is Label.UNRELATED:
            return Relation.OTHER_IMAGE if self.other_image else Relation.NONE
        return Relation.PART if self.share < _PART else Relation.WHOLE


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """From how much evidence a pair is a copy, and from which verified score an exact one.

    `origin` is a sentence for people. `null_count` and `null_max` are of the best matches of real images
    with other patients' real images, `planted_recall` of copies, planted in memory, found.
    """

    near: float  # verified score above those of unrelated images; `filter` lets none with it out
    exact: float
    local: float  # evidence of local features from which a pair is a copy
    partial: tuple[float, ...]  # likewise of partial correlations, band by band
    chance: float  # probability at which an unrelated image reaches a threshold, at most
    origin: str
    null_count: int
    null_max: float
    false_rate: Proportion | None  # of the null's images that one kind of evidence calls copies
    planted_recall: Proportion | None  # of planted exact copies called a copy of their patient
    planted_near_recall: Proportion | None  # likewise of locally changed ones
    calibrated: bool = True  # False: the package's defaults, for too few images
    false_calls: FalseCalls | None = None  # of the null, by kind of evidence

    @property
    def performance(self) -> Performance:
        """What the controls came to at these thresholds."""
        return Performance(
            self.calibrated,
            self.false_rate,
            self.planted_recall,
            self.planted_near_recall,
            unknown_doubles=0 if self.false_calls is None else self.false_calls.both,
        )


class Coverage(enum.StrEnum):
    """How many of a model's training images are among the real images of the audit."""

    ALL = "all"
    SOME = "some"
    NONE = "none"


@dataclasses.dataclass(frozen=True)
class Membership:
    """How well attacks on a model's weights tell its training images from those it held out.

    `figures` is empty where nobody was held out: there is nothing then to tell them from.
    `weights` is the SHA-256 of the model's files, as `generate` says it.
    """

    figures: Mapping[Attack, MembershipFigures]
    members: int
    held_out: int
    level: float  # of the intervals
    coverage: Coverage
    weights: str


@dataclasses.dataclass(frozen=True)
class GalleryItem:
    """One flagged pair for people to look at: uint8 images [h, w] in [0, 255].

    `aligned` is the synthetic image moved onto the real one with its intensities matched;
    `difference` is 128 where both agree. `heat` holds, where it was asked for, the real image under
    what made the encoder call both alike, one RGB picture [h, w, 3] a stage, fine to coarse.
    """

    match: Match
    real: np.ndarray
    aligned: np.ndarray
    difference: np.ndarray
    heat: tuple[np.ndarray, ...] = ()


@dataclasses.dataclass(frozen=True)
class AuditResult(Detection):
    """Everything an audit reports. See the module for units.

    `assessment` holds the verdict with its reasons as data, the copy rate, the patients exposed and the
    recall by edit; `reasons` are the same in sentences. `counts` has the keys real, synthetic, holdout,
    unreadable_real, unreadable_synthetic, and of each side's files files_found, not_images and
    left_out (with `_real` after it); `thresholds_to_share` and `recall_to_share` are at the chance of a
    single image, because those of the audit depend on how many copies it found;
    `distributions` holds best-match verified scores under "synthetic_to_real",
    "real_to_real" (between different patients) and, with held-out images, "holdout_to_real" and
    "synthetic_to_holdout". `exposure` holds, for numbers of generated images, how many patients would
    be exposed in expectation.

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> settings = ds.AuditSettings(size=64, plant=0)
      >>> with tempfile.TemporaryDirectory() as work:
      ...     made = testing.planted_copies(work, real=4, edits=["left to right"], unrelated=2)
      ...     result = ds.audit(made.real, made.synthetic, settings=settings)
      >>> result.classes
      {'exact_duplicate': 1, 'near_duplicate': 0, 'unrelated': 2}
      >>> result.subjects_exposed, result.subjects_total
      (1, 4)
    """

    thresholds: Thresholds
    thresholds_to_share: Thresholds
    classes: Mapping[str, int]
    # Of held-out images called copies of a real one, and of synthetic ones, of a held-out one:
    holdout_rate: Proportion | None
    synthetic_to_holdout_rate: Proportion | None
    subjects_known: bool  # False: no patient ids were given, every image counts as one
    nearest: tuple[Match, ...]
    pairs: tuple[Match, ...]
    distributions: Mapping[str, np.ndarray]
    discoveries: Discoveries | None = None  # with held-out images
    exposure: tuple[tuple[int, float], ...] = ()
    recall_to_share: tuple[EditRecall, ...] = ()
    copy_rate_by_patient: ClusteredShare | None = None  # where copies were found
    membership: Membership | None = None  # where a model was given
    real_doubles: tuple[tuple[object, ...], ...] = ()  # rows of real_duplicates.csv
    notes_to_share: tuple[str, ...] = ()  # those that say nothing of files
    holdout_calls: FalseCalls | None = None  # of held-out images, by kind of evidence

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the verdict is what it is and what would be needed, in full sentences; not to be shared."""
        from deepssim_jax.audit import sentences

        return sentences.reasons(self.assessment.reasons)

    @property
    def subjects_exposed(self) -> int:
        """Patients of whom a copy was found."""
        return 0 if self.assessment.subjects is None else self.assessment.subjects.exposed

    @property
    def subjects_total(self) -> int:
        """Patients of the real side."""
        return 0 if self.assessment.subjects is None else self.assessment.subjects.total

    def to_pandas(self) -> "pandas.DataFrame":
        """The pairs as a DataFrame, in the columns of `pairs.csv`.

        Raises:
          ImportError: pandas is not installed.
        """
        from deepssim_jax.audit import tables  # which writes this result's files

        return tables.matches(self.pairs, ranked=True).data_frame()

    def _repr_html_(self) -> str:
        """The verdict, its numbers and the first pairs, without pictures: what a notebook shows.

        Names of files and patients are in it: the notebook is the institution's own. Clear its outputs
        before it is given away; `report_share.html` is what is made for that.
        """
        from deepssim_jax.audit import notebook, report, tables
        from deepssim_jax.audit.disclosure import Edition

        return notebook.html(
            report.answer(self, Edition.INTERNAL),
            tables.matches(self.pairs, ranked=True),
            columns=("rank", "synthetic_id", "real_id", "subject_id", "label", "verified_score"),
        )
