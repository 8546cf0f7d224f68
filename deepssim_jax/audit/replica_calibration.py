"""What each level is worth on these very volumes, from the real side alone.

Of the experiments (`audit.replica_trials`) the null gives each level a law of unrelated volumes, the
controls its recall. A level that finds clearly fewer of the controls than the best one, at a threshold
that unrelated volumes do not reach, does not count. Patients are split in two: laws come from one half,
error rates from the other.
"""

import dataclasses

import numpy as np

from deepssim_jax.audit.replica_result import UNKNOWN, Kind, LevelThresholds
from deepssim_jax.audit.replica_trials import LevelCalibration, LevelTrial, run_trials
from deepssim_jax.detection.assessment import EditRecall, Performance
from deepssim_jax.detection.controls import share_of
from deepssim_jax.scoring.evidence import MIN_NULL, MOST_FALSE
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.plant_volumes import Edit
from deepssim_jax.scoring.volume_evidence import LEAST, law_of
from deepssim_jax.scoring.volume_match import Reference
from deepssim_jax.scoring.volume_search import Level
from deepssim_jax.workspace import Section

_ABOVE = 1e-4
# A level counts if it finds nearly as many of the controls as the best one, else it would add
# little but its false alarms; and many times more than those.
BEHIND, TIMES_FALSE = 0.15, 4.0
_LEAST_RECALL = 0.1  # of the level beside segmentations
# Of coarse slices turned copies agree no better than second scans. The rule that distinguishes the two is
# used where it loses so few of the controls at most.
MOST_LOST = 0.1


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Thresholds by level, the trials behind them, and the measured pairs of one patient's scans."""

    thresholds: dict[Level, LevelThresholds]
    trials: dict[Level, LevelTrial]
    repeats: np.ndarray
    level: float

    @property
    def counting(self) -> tuple[Level, ...]:
        """The levels that count."""
        return tuple(at for at, found in self.thresholds.items() if found.counts)

    @property
    def performance(self) -> Performance:
        """What the controls came to: the best recall and the most false calls of a counting level."""
        counting = [found for found in self.thresholds.values() if found.counts]
        false = [found.false_rate for found in counting if found.false_rate]
        recalls = [found.recall for found in counting if found.recall]
        return Performance(
            calibrated=all(found.calibrated for found in counting),
            false_rate=max(false, key=lambda share: share.value, default=None),
            recall=max(recalls, key=lambda share: share.low, default=None),
            by_edit=self._recall_by_edit(),
        )

    def _recall_by_edit(self) -> tuple[EditRecall, ...]:
        """Of how many copies under each edit a counting level finds the patient."""
        counting = {at: trial for at, trial in self.trials.items() if at in self.counting}
        hits = [
            t.found(self.thresholds[at].replica, tells=self.thresholds[at].tells)
            for at, t in counting.items()
            if len(t.right)
        ]
        if not hits:
            return ()
        found, edits = np.any(hits, axis=0), next(iter(counting.values())).edits
        rows = {edit: found[[e is edit for e in edits]] for edit in Edit}
        shares = {edit: share_of(own, self.level) for edit, own in rows.items()}
        return tuple(EditRecall(edit.value, share) for edit, share in shares.items() if share)

    @property
    def chance(self) -> float:
        """How often an unrelated volume is called a replica: by the law, or more if more was seen."""
        shares = [
            max(
                float(found.law.p_values(np.array([found.replica]))[0]),
                found.false_rate.value if found.false_rate else 0.0,
            )
            for found in self.thresholds.values()
            if found.counts
        ]
        return min(sum(shares), 1.0)

    def at(self, cut: float) -> "Evidence":
        """With thresholds that unrelated volumes reach with probability `cut` at all counting levels
        together; see `scoring.evidence.false_discovery_cut`.
        """
        share = min(cut, MOST_FALSE) / max(len(self.counting), 1)
        chosen = {
            at: _thresholds(at, trial, share, self.level, counts=self.thresholds[at].counts)
            for at, trial in self.trials.items()
        }
        return dataclasses.replace(self, thresholds=chosen)


def calibrate_levels(
    references: Reference,
    *,
    settings: LevelCalibration,
    journal: Section,
    on_progress: Progress,
) -> Evidence:
    """Runs the three experiments and chooses thresholds.

    Args:
      references: the real side.
      settings: of the experiments.
      journal: keeps what is found; its inputs must state this side and what embeds and segments.
      on_progress: as for `match_volumes`.
    """
    found = run_trials(references, settings, journal, on_progress)
    trials = {
        at: found.trial(at, embedded=settings.embed is not None)
        for at in references.side.levels
        if at is not Level.POINTS or references.index is not None
    }
    first = {
        at: _thresholds(at, trial, MOST_FALSE / len(trials), settings.level, counts=True)
        for at, trial in trials.items()
    }
    return Evidence(_counting(first), trials, found.repeats, settings.level)


def _thresholds(
    at: Level, trial: LevelTrial, share: float, level: float, *, counts: bool
) -> LevelThresholds:
    """Of one level: what unrelated volumes reach with probability `share`."""
    split = len(trial.null) >= 2 * MIN_NULL
    # Of few patients nobody is spared: there is nothing to check on.
    law = law_of(trial.null[trial.null_tunes] if split else trial.null, at)
    calibrated = len(trial.null) >= MIN_NULL
    person = max(law.threshold(MOST_FALSE), LEAST[at])
    # A law of quantiles knows nothing of a heavy tail.
    if len(trial.null):
        person = max(
            person, float(np.sort(trial.null)[-min(UNKNOWN + 1, len(trial.null))]) + _ABOVE
        )
    cut = max(law.threshold(share), person)
    tells = _tells(at, trial, cut)
    words = (
        f"{len(trial.null)} best matches between different patients"
        if calibrated
        else "the package's default distribution of unrelated volumes, because "
        f"{len(trial.null)} real volumes with another patient to compare with are fewer than {MIN_NULL}"
    )
    if len(trial.repeats):
        alike = trial.repeats[trial.repeats_can | (not tells)]
        cut = max(cut, float(alike.max(initial=-np.inf)) + _ABOVE)
        words += f", {len(trial.repeats)} pairs of scans of one patient"
    if not tells:
        words += (
            "; another scan of the patient cannot be distinguished from a replica at this level"
        )
    elif at is Level.POINTS:
        words += (
            "; a replica also has its keypoints where they were, or most of them, or agrees in every detail, "
            "unlike another scan of the patient"
        )
    false = (trial.null >= cut) & (trial.null_can | (not tells))
    check = false[~trial.null_tunes] if split else false
    kept = ~trial.right_tunes if split else np.ones(len(trial.edits), bool)
    hits = trial.found(cut, tells=tells)
    tested = hits[kept] if len(trial.right) else hits
    return LevelThresholds(
        replica=cut,
        same_person=person,
        origin=words,
        null=trial.null,
        repeats=trial.repeats,
        planted=trial.right[np.isfinite(trial.right)],
        false_rate=share_of(check, level),
        recall=share_of(tested, level),
        recall_by_edit={
            edit.value: int(hits[[e is edit for e in trial.edits]].sum())
            for edit in dict.fromkeys(trial.edits)
        }
        if len(trial.right)
        else {},
        calibrated=calibrated,
        tells=tells,
        counts=counts,
        law=law,
    )


def _tells(at: Level, trial: LevelTrial, cut: float) -> bool:
    """Whether second scans differ from copies here: by keypoints if nearly all controls pass for copies, at
    other levels if there are second scans, which raise the threshold.
    """
    if at is not Level.POINTS:
        return bool(len(trial.repeats))
    reached, found = (trial.found(cut, tells=tells).sum() for tells in (False, True))
    return bool(reached - found <= MOST_LOST * reached)


def _counting(found: dict[Level, LevelThresholds]) -> dict[Level, LevelThresholds]:
    """Which levels count. Where none is good enough the best one does, so that there is an answer.

    Label maps can be missing: where they alone would count, the best of the other levels does, too.
    """

    def recall(at: Level) -> float:
        share = found[at].recall
        return share.value if share else 0.0

    def good(at: Level, least: float) -> bool:
        false = found[at].false_rate
        most = false.value if false else 0.0
        return recall(at) >= max(least, TIMES_FALSE * most)

    best = max(map(recall, found))
    chosen = [at for at in found if good(at, best - BEHIND)] or [max(found, key=recall)]
    if chosen == [Level.SEGMENTATION]:
        others = [at for at in found if at is not Level.SEGMENTATION and good(at, _LEAST_RECALL)]
        chosen += [max(others, key=recall)] if others else []
    return {at: dataclasses.replace(t, counts=at in chosen) for at, t in found.items()}


def kind_of(score: float, thresholds: LevelThresholds, *, can_be_copy: bool) -> Kind:
    """What a level calls a pair of this evidence; one that was not measured is different."""
    if score >= thresholds.replica and (can_be_copy or not thresholds.tells):
        return Kind.REPLICA
    return Kind.SAME_PERSON if score >= thresholds.same_person else Kind.DIFFERENT
