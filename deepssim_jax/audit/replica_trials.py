"""The three experiments on the real side that say what each level is worth.

Real volumes are matched with other patients' (the null), with other scans of their own patient (the
repeats), and copies made of them in memory with the real side (the positive controls, nine edits):
all through the search and the measures that the synthetic volumes get.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from deepssim_jax.detection.controls import balanced_rows, other_patients, tuning_split
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.plant_volumes import MIXED, Edit, plant_copies
from deepssim_jax.scoring.volume_evidence import ahead, best_of, can_be_copies, scaled
from deepssim_jax.scoring.volume_match import Reference, match_volumes, measure_pairs
from deepssim_jax.scoring.volume_measure import DECIDING, MatchSettings, pair_dtype
from deepssim_jax.scoring.volume_search import Level, VolumeSide
from deepssim_jax.scoring.volume_sides import Embed, occupancies
from deepssim_jax.workspace import Section

MAX_NULL, MAX_REPEATS, EACH_EDIT = 64, 100, 4
_SAME_SCORE = 0.9999  # of scans of one patient: by more, they are one file twice


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


@dataclasses.dataclass(frozen=True)
class LevelTrial:
    """One level's evidence: `null` of unrelated volumes, `repeats` of scans of one patient; `right` of
    the controls, -inf where the best volume is another patient's; each with whether it tunes, and whether it
    agrees as copies do (`volume_evidence.can_be_copies`).
    """

    null: np.ndarray
    null_tunes: np.ndarray
    null_can: np.ndarray
    repeats: np.ndarray
    repeats_can: np.ndarray
    right: np.ndarray
    right_tunes: np.ndarray
    right_can: np.ndarray
    edits: tuple[Edit, ...]

    def found(self, cut: float, *, tells: bool) -> np.ndarray:
        """Bool: which controls reach evidence `cut`, and agree as copies do where that `tells`."""
        return (self.right >= cut) & (self.right_can | (not tells))


@dataclasses.dataclass(frozen=True)
class Trials:
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
        null, tunes, can, others = np.zeros(0), np.zeros(0, bool), np.zeros(0, bool), np.nan
        pairs = self.negatives
        best = best_of(pairs, self.groups, len(self.rows), at) if len(pairs) else None
        if best is not None:
            seen = best.row >= 0
            null, can = best.evidence[seen], best.can_be_copy[seen]
            tunes = self.tuning[self.groups[self.rows[seen]]]
            others = float(np.median(scaled(pairs[DECIDING[at]][best.row[seen]], at)))
        right, right_can = np.zeros(0), np.zeros(0, bool)
        found = best_of(self.positives, self.groups, len(self.edits), at)
        owners = self.groups[self.copied]
        if found is not None and (at is not Level.FEATURE or embedded):
            right = np.full(len(self.edits), -np.inf)
            seen = np.flatnonzero(found.row >= 0)
            same = self.groups[self.positives["reference"][found.row[seen]]] == owners[seen]
            right[seen[same]] = found.evidence[seen[same]]
            right_can = found.can_be_copy
        repeats, alike = _repeated(self.repeats, at, others)
        return LevelTrial(
            null=null,
            null_tunes=tunes,
            null_can=can,
            repeats=repeats,
            repeats_can=alike,
            right=right,
            right_tunes=self.tuning[owners],
            right_can=right_can,
            edits=self.edits,
        )


def run_trials(
    references: Reference, settings: LevelCalibration, journal: Section, on_progress: Progress
) -> Trials:
    """Looks for real volumes among other patients', for repeats, and for controls."""
    real, matching = references.side, settings.matching
    several = len(np.unique(real.groups)) > 1
    rows = balanced_rows(real.groups, MAX_NULL, seed=settings.seed)
    negatives = np.zeros(0, pair_dtype(matching.labels))
    if several:
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
    edits = tuple(e for e in Edit for _ in range(EACH_EDIT) if several or e not in MIXED)
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
    return Trials(
        groups=real.groups,
        tuning=tuning_split(real.groups, seed=settings.seed),
        rows=rows,
        negatives=negatives,
        repeats=repeats,
        copied=copied,
        edits=edits,
        positives=positives,
    )


def _repeated(repeats: np.ndarray, at: Level, others: float) -> tuple[np.ndarray, np.ndarray]:
    """Evidence of scans of one patient at a level, one file twice left out, and which can be copies."""
    kept = repeats[np.isfinite(repeats[DECIDING[at]]) & ~(repeats["ncc"] > _SAME_SCORE)]
    own = scaled(kept[DECIDING[at]], at)
    return ahead(own, np.full(len(own), others)), can_be_copies(kept, at)


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
