"""Thresholds from the real images alone, and what the detector is worth on them.

Two experiments are run through the search and verification that the synthetic images get: real images are
matched with other patients' (the null), and copies of real images under every edit of `data.edits` with
the real side (the controls). Patients are split in two: error rates are those of the reporting split,
false-match rates at thresholds of the tuning split.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from deepssim_jax.audit.controls import Controls
from deepssim_jax.audit.result import Thresholds
from deepssim_jax.data.edits import EDITS, Edit
from deepssim_jax.data.edits.types import Group
from deepssim_jax.data.edits.types import Label as EditLabel
from deepssim_jax.detection.assessment import MIN_PATIENTS, EditRecall, Performance
from deepssim_jax.detection.calls import FalseCalls
from deepssim_jax.detection.controls import (
    balanced_rows,
    other_patients,
    rows_of_both_splits,
    share_of,
    tuning_split,
)
from deepssim_jax.nn.encoder import Encoder
from deepssim_jax.scoring import decide, plant
from deepssim_jax.scoring.detail import BANDS
from deepssim_jax.scoring.evidence import (
    MIN_NULL,
    MOST_FALSE,
    GumbelLaw,
    LargestLaw,
    either,
    other_images,
    partial_for_copy,
)
from deepssim_jax.scoring.kinds import Kinds
from deepssim_jax.scoring.match import NO_EVIDENCE, PAIR, Progress, match
from deepssim_jax.scoring.retrieval import Proposals
from deepssim_jax.scoring.side import Side
from deepssim_jax.scoring.verify import verify_pairs
from deepssim_jax.workspace import Section

MAX_NULL = 256
PLANTED = 2 * len(EDITS)
_SET_ASIDE, _ROUNDS = 1e-3, 8  # p of an unknown double; fits at most
_LABELLED = 48  # copies of each class that place the labels' thresholds


@dataclasses.dataclass(frozen=True)
class Trial:
    """What the search found of n images: the best of each kind of evidence, float32.

    `scores` [n] verified scores without local features, `points` [n] of local features, `partial` [n, BANDS]
    of `scoring.detail`; `copied` and `copied_partial` likewise, less of pairs that look like two images of
    one patient; -1 and NO_EVIDENCE where it found nothing.
    """

    scores: np.ndarray
    points: np.ndarray
    copied: np.ndarray
    partial: np.ndarray
    copied_partial: np.ndarray

    @classmethod
    def of(cls, pairs: np.ndarray, count: int) -> "Trial":
        """From the pairs of `match` of `count` queries."""
        scores = np.full(count, -1.0, np.float32)
        points, copied = np.full((2, count), NO_EVIDENCE, np.float32)
        partial, copied_partial = np.full((2, count, BANDS), NO_EVIDENCE, np.float32)
        placed = pairs["by_points"]
        np.maximum.at(scores, pairs["query"][~placed], pairs["verified"][~placed])
        np.maximum.at(points, pairs["query"][placed], pairs["evidence"][placed])
        placed = placed & ~other_images(pairs["evidence"], pairs["exact"])
        np.maximum.at(copied, pairs["query"][placed], pairs["evidence"][placed])
        np.maximum.at(partial, pairs["query"], pairs["partial"])
        np.maximum.at(copied_partial, pairs["query"], partial_for_copy(pairs))
        return cls(scores, points, copied, partial, copied_partial)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: np.ndarray) -> "Trial":
        return Trial(*(column[rows] for column in vars(self).values()))

    def kinds(self, thresholds: Thresholds) -> np.ndarray:
        """Bool [2, n]: local features reach their threshold; a partial correlation does."""
        partial = (self.copied_partial >= np.array(thresholds.partial)).any(1)
        return np.stack([self.copied >= thresholds.local, partial])

    def copies(self, thresholds: Thresholds, *, least_score: float = np.inf) -> np.ndarray:
        """Bool [n]: one kind of evidence reaches its threshold, or the verified score does."""
        return self.kinds(thresholds).any(0) | (self.scores >= least_score)

    def false_calls(self, thresholds: Thresholds) -> FalseCalls:
        """Of images without a copy, how many are called one, by kind of evidence."""
        points, partial = self.kinds(thresholds)
        both = int((points & partial).sum())
        alone = int((points & ~partial).sum()), int((partial & ~points).sum())
        return FalseCalls(alone, both, len(self) - both)


@dataclasses.dataclass(frozen=True)
class Laws:
    """How much of each kind of evidence unrelated images show.

    Verified scores are no evidence: those of unrelated images rise where a generator draws them smoother
    than the real ones, which no law of real images knows, and they found no copy that the others did not.
    """

    points: GumbelLaw
    partial: tuple[LargestLaw, ...]

    @classmethod
    def of(cls, null: Trial, *, people: int | None = None) -> "Laws":
        """Learned of what the search found of unrelated images, of so many people; one each if None."""
        return cls(
            points=GumbelLaw.of(null.points, people=people),
            partial=tuple(LargestLaw.of(band, people=people) for band in null.partial.T),
        )

    def p_values(self, found: Trial) -> np.ndarray:
        """Of each image, the probability of as much evidence of any kind without a copy."""
        bands = [law.p_values(band) for law, band in zip(self.partial, found.copied_partial.T)]
        return either(self.points.p_values(found.copied), either(*bands))

    def thresholds(self, cut: float) -> tuple[float, tuple[float, ...]]:
        """Of points and partial correlations, so that all together are reached with probability `cut` at
        most by unrelated images.
        """
        return (
            self.points.threshold(cut / 2),
            tuple(law.threshold(cut / 2 / len(self.partial)) for law in self.partial),
        )


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What real images say of the detector: thresholds, and the trials from which they come.

    Pairs are `kinds.levelled` before anything is said of them.

    `null_scores` are the best-match scores of the unrelated images on which `laws` are learned; `half` is
    learned on those of the tuning half. `null` and `copies` are the trials of the reporting half, `edits`
    what was done to each copy. Thresholds follow from all, which makes them steadier; the rate of false
    alarms is that of the reporting half, with what was set aside, at thresholds from the other half.
    """

    thresholds: Thresholds
    null_scores: np.ndarray
    laws: Laws
    half: Laws
    null: Trial
    copies: Trial
    edits: tuple[Edit, ...]
    level: float
    kinds: Kinds

    def p_values(self, found: Trial) -> np.ndarray:
        """Of each image, the probability of as much evidence of any kind without a copy."""
        return self.laws.p_values(found)

    def at(self, cut: float) -> "Evidence":
        """With thresholds that unrelated images reach with probability `cut` at most, and their rates."""
        return self._under(self._reached(self.laws, cut), null_at=self._reached(self.half, cut))

    def _reached(self, laws: Laws, cut: float) -> Thresholds:
        local, partial = laws.thresholds(cut)
        return dataclasses.replace(self.thresholds, chance=cut, local=local, partial=partial)

    def under(self, thresholds: Thresholds) -> "Evidence":
        """With other thresholds, and the error rates of the reporting half at these, where verified scores
        from `near` on count, too.
        """
        return self._under(thresholds, null_at=thresholds, least_score=thresholds.near)

    def _under(
        self, thresholds: Thresholds, *, null_at: Thresholds, least_score: float = np.inf
    ) -> "Evidence":
        found = self.copies.copies(thresholds, least_score=least_score)
        near_copy = np.array([edit.label is EditLabel.NEAR for edit in self.edits], bool)
        # What all evidence calls a copy is a double that nobody knows of, and no false match.
        points, partial = self.null.kinds(null_at)
        single = self.null[np.flatnonzero(~(points & partial))]
        thresholds = dataclasses.replace(
            thresholds,
            false_rate=share_of(single.copies(null_at, least_score=least_score), self.level),
            false_calls=self.null.false_calls(null_at),
            planted_recall=share_of(found[~near_copy], self.level),
            planted_near_recall=share_of(found[near_copy], self.level),
        )
        return dataclasses.replace(self, thresholds=thresholds)

    @property
    def performance(self) -> Performance:
        """What the controls came to."""
        return dataclasses.replace(self.thresholds.performance, by_edit=self.by_change())

    def by_change(self) -> tuple[EditRecall, ...]:
        """Of each kind of change, how many of its copies were called copies of their own patient."""
        found = self.copies.copies(self.thresholds)
        rows: dict[tuple[Group, EditLabel], list[bool]] = {
            (edit.group, edit.label): [] for edit in EDITS
        }
        for edit, hit in zip(self.edits, found.tolist(), strict=True):
            rows[edit.group, edit.label].append(hit)
        return tuple(
            EditRecall(
                group.value,
                decide.clopper_pearson(sum(hits), len(hits), level=self.level),
                local=label is EditLabel.NEAR,
            )
            for (group, label), hits in rows.items()
            if hits
        )


@dataclasses.dataclass(frozen=True)
class CalibrationSettings:
    """`seed` of the draw and of the copies; `level` of the reported intervals; `planted` copies that show
    what is found, about equally many of every edit; `proposals` of the search that thresholds are for.
    """

    seed: int
    level: float
    planted: int
    proposals: Proposals


@dataclasses.dataclass(frozen=True)
class _Negatives:
    """What the search found of real images among other patients' ones: the trial, and of each image
    whether its patient is of the tuning split, and who that is; and the kinds of image.
    """

    trial: Trial
    tuning: np.ndarray
    owners: np.ndarray
    kinds: Kinds

    def laws(self, rows: np.ndarray) -> tuple[Laws, np.ndarray]:
        """Of the images `rows`, and which of them they are learned from."""
        laws, kept = learned(self.trial[rows], self.owners[rows], kinds=len(self.kinds))
        return laws, rows[kept]


def learned(null: Trial, owners: np.ndarray, *, kinds: int = 1) -> tuple[Laws, np.ndarray]:
    """The laws of unrelated images, and bool, from which of them they are learned.

    What a law itself calls a copy is taken for a double that nobody knows of, and set aside. `null` is what
    the search found of n real images among other patients' ones, `owners` int [n] says whose they are; of
    several `kinds` each is known from a part of them.
    """

    def of(rows: np.ndarray) -> Laws:
        return Laws.of(null[rows], people=len(np.unique(owners[rows])) // kinds)

    kept = np.ones(len(null), bool)
    laws = of(kept)
    for _ in range(_ROUNDS):
        unlike = laws.p_values(null) >= _SET_ASIDE
        if (unlike == kept).all() or unlike.sum() < min(MIN_NULL, len(null)):
            break
        laws, kept = of(unlike), unlike
    return laws, kept


def calibrate_on_real(
    real: Side,
    encoder: Callable[[], Encoder],
    *,
    journal: Section,
    settings: CalibrationSettings,
    on_progress: Progress,
) -> Evidence:
    """Runs both experiments and chooses thresholds.

    Args:
      real: the real side; without groups every image counts as a patient of its own.
      encoder: makes the encoder, called only if copies must be embedded.
      journal: keeps what is found, by the features of the side.
      settings: of the experiments.
      on_progress: as for `match`.

    Returns:
      The evidence; with too few patients the package's default thresholds, as `origin` states.
    """
    real, groups = real.grouped()
    tune = tuning_split(groups, seed=settings.seed)
    negatives = _negatives(real, tune, journal, settings, on_progress)
    null = negatives.trial
    laws, kept = negatives.laws(np.arange(len(null)))
    half, tuned = negatives.laws(np.flatnonzero(negatives.tuning))
    chosen = _labelled(null.scores[tuned], real, tune, journal, seed=settings.seed)
    there = np.flatnonzero(~tune[groups])
    controls = Controls.of(
        real,
        there[balanced_rows(groups[there], settings.planted, seed=[settings.seed, 1])],
        count=settings.planted,
        seed=settings.seed,
    )
    pairs = controls.search(
        real, encoder, journal=journal, proposals=settings.proposals, on_progress=on_progress
    )
    pairs = negatives.kinds.levelled(pairs, real.embeddings)
    local, partial = laws.thresholds(MOST_FALSE)
    thresholds = Thresholds(
        near=chosen.near,
        exact=chosen.exact,
        local=local,
        partial=partial,
        chance=MOST_FALSE,
        origin=chosen.origin,
        null_count=len(null.scores),
        null_max=float(null.scores.max()) if len(null.scores) else -1.0,
        false_rate=None,
        planted_recall=None,
        planted_near_recall=None,
        calibrated=chosen.calibrated and len(np.unique(negatives.owners)) >= MIN_PATIENTS,
    )
    evidence = Evidence(
        thresholds=thresholds,
        null_scores=null.scores[kept],
        laws=laws,
        half=half,
        null=null[~negatives.tuning],
        copies=Trial.of(pairs, len(controls)),
        edits=controls.edits,
        level=settings.level,
        kinds=negatives.kinds,
    )
    return evidence.at(MOST_FALSE)


def _negatives(
    real: Side,
    tune: np.ndarray,
    journal: Section,
    settings: CalibrationSettings,
    on_progress: Progress,
) -> _Negatives:
    """Looks for real images among those of other patients; nothing where there is no other patient."""
    real, groups = real.grouped()
    rows, tuning = rows_of_both_splits(groups, tune, MAX_NULL, seed=settings.seed)
    if len(np.unique(groups)) < 2:
        empty = Trial.of(np.zeros(0, PAIR), 0)
        kinds = Kinds.of(real.embeddings[:0], empty.points, empty.partial, groups[:0])
        return _Negatives(empty, tuning[:0], groups[:0], kinds)
    pairs = match(
        real.rows(rows),
        real,
        journal=journal.section("null", rows),
        apart=True,
        proposals=settings.proposals,
        on_progress=on_progress,
        what="real with other patients' real",
    )
    trial = Trial.of(pairs, len(rows))
    seen = (trial.scores > -1) & real.comparable[rows]
    owners = groups[rows[seen]]
    kinds = Kinds.of(real.embeddings[rows[seen]], trial.points[seen], trial.partial[seen], owners)
    trial = Trial.of(kinds.levelled(pairs, real.embeddings), len(rows))
    return _Negatives(trial[seen], tuning[seen], owners, kinds)


def _labelled(
    null: np.ndarray, real: Side, tune: np.ndarray, journal: Section, *, seed: int
) -> decide.Calibration:
    """Verified scores that tell exact copies, locally changed ones and unrelated images apart.

    Args:
      null: best scores of unrelated images of the tuning half.
      real: the real side, with groups.
      tune: bool by patient, the tuning half.
      journal: keeps the scores.
      seed: of the draw and of the copies.
    """
    _, groups = real.grouped()
    there = np.flatnonzero(tune[groups])
    rows = there[balanced_rows(groups[there], _LABELLED, seed=[seed, 0])]
    donors = rows[other_patients(rows, groups)]

    def scores() -> np.ndarray:
        if not len(rows):
            return np.zeros((2, 0), np.float32)
        images = real.take(rows)
        copies = (
            plant.exact_copies(images, seed=seed),
            plant.near_copies(images, real.take(donors), seed=seed + 1),
        )
        return np.stack([verify_pairs(copy, images).score for copy in copies])

    exact, near = journal.step("labelled", [rows, donors, seed, real.low, real.embeddings], scores)
    return decide.calibrate(null, exact, near)
