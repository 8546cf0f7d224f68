"""What each level is worth on these very volumes, from the real side alone.

Real volumes are matched with other patients' (the null), with other scans of their own patient (the
repeats), and copies made of them in memory with the real side (the positive controls, nine edits):
all through the search and the measures that the synthetic volumes get. The null gives each level a
law of unrelated volumes, the controls its recall. A level that finds clearly fewer of the controls
than the best one, at a threshold that unrelated volumes do not reach, does not count. Patients are split
in two splits: laws come from one, error rates from the other.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from deepssim_jax.audit.replica_result import Kind, LevelThresholds
from deepssim_jax.detection.assessment import EditRecall, Performance
from deepssim_jax.detection.controls import (
    balanced_rows,
    other_patients,
    share_of,
    tuning_split,
)
from deepssim_jax.scoring.evidence import MIN_NULL, MOST_FALSE
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.plant_volumes import Edit, plant_copies
from deepssim_jax.scoring.volume_evidence import LEAST, ahead, best_of, law_of, scaled
from deepssim_jax.scoring.volume_match import Reference, match_volumes, measure_pairs
from deepssim_jax.scoring.volume_measure import DECIDING, MatchSettings, pair_dtype
from deepssim_jax.scoring.volume_search import Level, VolumeSide
from deepssim_jax.scoring.volume_sides import Embed, occupancies
from deepssim_jax.workspace import Section

MAX_NULL, MAX_REPEATS, EACH_EDIT = 64, 100, 4
_SAME_SCORE = 0.9999  # of scans of one patient: by more, they are one file twice
_ABOVE = 1e-4
_TAIL = 3
# A level counts if it finds nearly as many of the controls as the best one, else it would add
# little but its false alarms; and many times more than those.
BEHIND, TIMES_FALSE = 0.15, 4.0


@dataclasses.dataclass(frozen=True)
class LevelTrial:
    """One level's evidence: `null` of unrelated volumes, `repeats` of scans of one patient; `right` of
    the controls, -inf where the best volume is another patient's; each with whether it tunes.
    """

    null: np.ndarray
    null_tunes: np.ndarray
    repeats: np.ndarray
    right: np.ndarray
    right_tunes: np.ndarray
    edits: tuple[Edit, ...]


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
            t.right >= self.thresholds[at].replica for at, t in counting.items() if len(t.right)
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


@dataclasses.dataclass(frozen=True)
class LevelCalibration:
    """How controls are made and searched: `matching` as the search that thresholds are for.

    `embed` embeds controls; without it nothing is known of the feature level's recall. `segment` makes their
    label maps; without it their originals' are moved along. `seed` is that of the draw and of the controls,
    `level` the coverage of the reported intervals.
    """

    matching: MatchSettings
    embed: Embed | None
    segment: Callable[[np.ndarray], np.ndarray] | None
    seed: int
    level: float


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
    found = _search(references, settings, journal, on_progress)
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


@dataclasses.dataclass(frozen=True)
class _Searched:
    """Measured pairs of the three experiments.

    `negatives` of volumes `rows` with other patients', `positives` of copies of volumes `copied` under
    `edits`, `repeats` of scans of one patient; `groups` are the patients, `tuning` whether each tunes.
    """

    groups: np.ndarray
    tuning: np.ndarray
    rows: np.ndarray
    negatives: np.ndarray
    repeats: np.ndarray
    copied: np.ndarray
    edits: tuple[Edit, ...]
    positives: np.ndarray

    def trial(self, at: Level, *, embedded: bool) -> LevelTrial:
        """One level's share of them; where no control is embedded, features have no positives."""
        null, tunes, others = np.zeros(0), np.zeros(0, bool), np.nan
        pairs = self.negatives
        best = best_of(pairs, self.groups, len(self.rows), at) if len(pairs) else None
        if best is not None:
            seen = best.row >= 0
            null, tunes = best.evidence[seen], self.tuning[self.groups[self.rows[seen]]]
            others = float(np.median(scaled(pairs[DECIDING[at]][best.row[seen]], at)))
        right = np.zeros(0)
        found = best_of(self.positives, self.groups, len(self.edits), at)
        owners = self.groups[self.copied]
        if found is not None and (at is not Level.FEATURE or embedded):
            right = np.full(len(self.edits), -np.inf)
            seen = np.flatnonzero(found.row >= 0)
            same = self.groups[self.positives["reference"][found.row[seen]]] == owners[seen]
            right[seen[same]] = found.evidence[seen[same]]
        return LevelTrial(
            null=null,
            null_tunes=tunes,
            repeats=_repeated(self.repeats, at, others),
            right=right,
            right_tunes=self.tuning[owners],
            edits=self.edits,
        )


def _search(
    references: Reference, settings: LevelCalibration, journal: Section, on_progress: Progress
) -> _Searched:
    """Looks for real volumes among other patients', for repeats, and for controls."""
    real, matching = references.side, settings.matching
    rows = balanced_rows(real.groups, MAX_NULL, seed=settings.seed)
    negatives = np.zeros(0, pair_dtype(matching.labels))
    if len(np.unique(real.groups)) > 1:
        negatives = match_volumes(
            real.rows(rows),
            references,
            settings=matching,
            journal=journal.section("null", rows),
            apart=True,
            on_progress=on_progress,
            what="real with other patients' real",
        )
    repeats = _repeats(references, matching, journal, on_progress, seed=settings.seed)
    edits = tuple(edit for edit in Edit for _ in range(EACH_EDIT))
    copied = np.resize(rows, len(edits))
    copies = planted_side(real, copied, edits, settings)
    positives = match_volumes(
        copies,
        references,
        settings=matching,
        journal=journal.section("controls", copies.take(np.arange(len(copies)))),
        on_progress=on_progress,
        what="copies made of real volumes with real",
    )
    return _Searched(
        groups=real.groups,
        tuning=tuning_split(real.groups, seed=settings.seed),
        rows=rows,
        negatives=negatives,
        repeats=repeats,
        copied=copied,
        edits=edits,
        positives=positives,
    )


def _repeated(repeats: np.ndarray, at: Level, others: float) -> np.ndarray:
    """Evidence of scans of one patient at a level, one file twice left out."""
    if not len(repeats):
        return np.zeros(0)
    values = repeats[DECIDING[at]]
    values = values[np.isfinite(values) & ~(repeats["ncc"] > _SAME_SCORE)]
    own = scaled(values, at)
    return ahead(own, np.full(len(own), others))


def _thresholds(
    at: Level, trial: LevelTrial, share: float, level: float, *, counts: bool
) -> LevelThresholds:
    """Of one level: what unrelated volumes reach with probability `share`."""
    split = len(trial.null) >= 2 * MIN_NULL
    # Of few patients nobody is spared: there is nothing to check on.
    law = law_of(trial.null[trial.null_tunes] if split else trial.null, at)
    calibrated = len(trial.null) >= MIN_NULL
    person = max(law.threshold(MOST_FALSE), LEAST[at])
    # A law of quantiles knows nothing of a heavy tail. Two volumes that are doubles nobody knows of
    # make two high values, which do not count.
    if len(trial.null):
        person = max(person, float(np.sort(trial.null)[-min(_TAIL, len(trial.null))]) + _ABOVE)
    cut = max(law.threshold(share), person)
    words = (
        f"{len(trial.null)} best matches between different patients"
        if calibrated
        else "the package's default distribution of unrelated volumes, because "
        f"{len(trial.null)} real volumes with another patient to compare with are fewer than {MIN_NULL}"
    )
    if len(trial.repeats):
        cut = max(cut, float(trial.repeats.max()) + _ABOVE)
        words += f", {len(trial.repeats)} pairs of scans of one patient"
    check = trial.null[~trial.null_tunes] if split else trial.null
    kept = ~trial.right_tunes if split else np.ones(len(trial.edits), bool)
    hits = trial.right >= cut
    tested = hits[kept] if len(trial.right) else hits
    return LevelThresholds(
        replica=cut,
        same_person=person,
        origin=words,
        null=trial.null,
        repeats=trial.repeats,
        planted=trial.right[np.isfinite(trial.right)],
        false_rate=share_of(check >= cut, level),
        recall=share_of(tested, level),
        recall_by_edit={
            edit.value: int(hits[[e is edit for e in trial.edits]].sum()) for edit in Edit
        }
        if len(trial.right)
        else {},
        calibrated=calibrated,
        counts=counts,
        law=law,
    )


def _counting(found: dict[Level, LevelThresholds]) -> dict[Level, LevelThresholds]:
    """Which levels count. Where none is good enough the best one does, so that there is an answer."""

    def recall(at: Level) -> float:
        share = found[at].recall
        return share.value if share else 0.0

    def good(at: Level) -> bool:
        false = found[at].false_rate
        most = false.value if false else 0.0
        return recall(at) >= max(best - BEHIND, TIMES_FALSE * most)

    best = max(map(recall, found))
    chosen = [at for at in found if good(at)] or [max(found, key=recall)]
    return {at: dataclasses.replace(t, counts=at in chosen) for at, t in found.items()}


def kind_of(score: float, thresholds: LevelThresholds) -> Kind:
    """What a level calls a pair of this evidence; one that was not measured is different."""
    if score >= thresholds.replica:
        return Kind.REPLICA
    return Kind.SAME_PERSON if score >= thresholds.same_person else Kind.DIFFERENT


def _repeats(
    references: Reference,
    settings: MatchSettings,
    journal: Section,
    on_progress: Progress,
    *,
    seed: int,
) -> np.ndarray:
    """Measured pairs of different scans of one patient, each pair once."""
    real = references.side
    pairs = []
    for group in np.flatnonzero(np.bincount(real.groups) > 1):
        rows = np.flatnonzero(real.groups == group)
        pairs += [(int(a), int(b)) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    if len(pairs) > MAX_REPEATS:
        chosen = np.random.default_rng(seed).choice(len(pairs), MAX_REPEATS, replace=False)
        pairs = [pairs[i] for i in np.sort(chosen)]
    return measure_pairs(
        pairs,
        real,
        references,
        settings=settings,
        journal=journal.section("repeats"),
        on_progress=on_progress,
        what="scans of one patient",
    )


def planted_side(
    real: VolumeSide, rows: np.ndarray, edits: tuple[Edit, ...], settings: LevelCalibration
) -> VolumeSide:
    """Copies of some rows. They are made anew where a journal is resumed: their seed is fixed."""
    distinct, place = np.unique(rows, return_inverse=True)
    volumes = real.take(distinct)
    maps = None if real.labels is None or settings.segment is not None else real.labels(distinct)
    donors = other_patients(distinct, real.groups)
    planted = plant_copies(
        volumes[place],
        real.geometry[rows],
        edits=list(edits),
        donors=np.array([np.flatnonzero(place == d)[0] for d in donors])[place],
        seed=settings.seed,
        maps=None if maps is None else maps[place],
    )
    moved = planted.maps if settings.segment is None else settings.segment(planted.volumes)
    labels = None if moved is None else lambda chosen: moved[chosen]
    features = None
    if real.features is not None:
        # Given embeddings cannot be made for controls: their originals' only fill the place.
        features = (
            real.features[rows] if settings.embed is None else settings.embed(planted.volumes)
        )
    return VolumeSide(
        take=lambda chosen: planted.volumes[chosen],
        shape=real.shape,
        groups=real.groups[rows],
        geometry=planted.geometry,
        features=features,
        labels=labels,
        occupancy=None
        if labels is None
        else occupancies(labels, len(rows), settings.matching.labels),
    )
