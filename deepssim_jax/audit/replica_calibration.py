"""Thresholds of each level from the real volumes alone.

Real volumes are matched with other patients' (the null), with other scans of their own patient (the
repeats), and replicas planted in memory with the real side (the positives): all through the search
and the measures that the synthetic volumes get. A replica has to agree better than two scans of one
person do. Patients are split in halves: thresholds are chosen on one, error rates come from the other.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from deepssim_jax.audit.calibration import balanced_rows, share_of, tuning_half
from deepssim_jax.audit.replica_result import Kind, LevelThresholds
from deepssim_jax.scoring import decide
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.plant_volumes import plant_replicas
from deepssim_jax.scoring.volume_match import (
    DECIDING,
    MatchSettings,
    best_by_level,
    match_volumes,
    measure_pairs,
)
from deepssim_jax.scoring.volume_search import Level, VolumeSide
from deepssim_jax.scoring.volume_sides import Embed, occupancies
from deepssim_jax.workspace import Section

MAX_NULL, MAX_PLANTED, MAX_REPEATS = 64, 24, 200
# What stands in for a null that is too small to show its tail. Voxels: of nine raw scans of three
# people, at 3.5 mm, two people's agree by at most 0.91, see benchmarks/README.md.
_DEFAULT_PERSON = {Level.VOXEL: 0.92, Level.FEATURE: 0.95, Level.SEGMENTATION: 0.75}
_STEP, _LIMIT = 0.5, 1 - 1e-6
_SAME_FILE = float(np.arctanh(0.9999))
_ABOVE = 1e-4  # of Fisher's z: what equals the highest of a null is none of the replicas


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Thresholds by level, and the measured pairs of one patient's scans (`volume_match`)."""

    thresholds: dict[Level, LevelThresholds]
    repeats: np.ndarray


def calibrate_levels(
    real: VolumeSide,
    *,
    settings: MatchSettings,
    embed: Embed | None,
    segment: Callable[[np.ndarray], np.ndarray] | None,
    journal: Section,
    seed: int,
    level: float,
    on_progress: Progress,
) -> Evidence:
    """Runs the three experiments and chooses thresholds.

    Args:
      real: the real side.
      settings: those of the search that the thresholds are for.
      embed: embeds planted replicas; without it the feature level has a null only.
      segment: makes label maps of planted replicas; without it their originals' are moved along.
      journal: keeps what is found; its inputs must tell this side and what embeds and segments.
      seed: of the draw and of the planted replicas.
      level: coverage of the reported intervals.
      on_progress: as for `match_volumes`.
    """
    groups = real.groups
    rows = balanced_rows(groups, MAX_NULL, seed=seed)
    several = len(np.unique(groups)) > 1
    null_pairs = np.zeros(0)
    if several:
        null_pairs = match_volumes(
            real.rows(rows),
            real,
            settings=settings,
            journal=journal.section("null", rows),
            apart=True,
            embed=embed,
            on_progress=on_progress,
            what="real with other patients' real",
        )
    repeats = _repeats(real, settings, journal, embed, on_progress, seed=seed)
    planted_rows = np.resize(rows, min(MAX_PLANTED, max(len(rows), 24)))
    planted = {}
    for kind in ("exact", "near"):
        copies = _planted_side(real, planted_rows, kind, embed, segment, settings, seed=seed)
        planted[kind] = match_volumes(
            copies,
            real,
            settings=settings,
            journal=journal.section(f"planted-{kind}", copies.take(np.arange(len(copies)))),
            embed=embed,
            on_progress=on_progress,
            what=f"planted {kind} replicas with real",
        )
    tune = tuning_half(groups, seed=seed)
    out = {}
    for at in real.levels:
        measure = DECIDING[at]
        null, null_tune = np.zeros(0), np.zeros(0, bool)
        best = best_by_level(null_pairs, len(rows)).get(at) if several else None
        if best is not None:
            seen = best["reference"] >= 0
            null, null_tune = best[measure][seen], tune[groups[rows[seen]]]
        own = repeats[measure][np.isfinite(repeats[measure])] if len(repeats) else np.zeros(0)
        positives, right = {}, {}
        for kind, pairs in planted.items():
            found = best_by_level(pairs, len(planted_rows)).get(at)
            if found is None or (at is Level.FEATURE and embed is None):
                positives[kind], right[kind] = np.zeros(0), np.zeros(0, bool)
                continue
            mine = pairs[pairs["reference"] == planted_rows[pairs["query"]]]
            scores = np.full(len(planted_rows), np.nan)
            scores[mine["query"]] = mine[measure]
            positives[kind] = scores
            right[kind] = (groups[found["reference"]] == groups[planted_rows]) * found[measure]
        out[at] = _choose(
            at, null, null_tune, own, positives, right, tune[groups[planted_rows]], level
        )
    return Evidence(out, repeats)


def _choose(
    at: Level,
    null: np.ndarray,
    null_tune: np.ndarray,
    repeats: np.ndarray,
    positives: dict[str, np.ndarray],
    right: dict[str, np.ndarray],
    planted_tune: np.ndarray,
    level: float,
) -> LevelThresholds:
    """Thresholds of one level; in the scale of Fisher's z, as in `scoring.decide`."""
    calibrated = len(null) >= decide.MIN_NULL
    # Of few patients nobody is spared: there is nothing to check on.
    used = null[null_tune] if len(null) >= 2 * decide.MIN_NULL else null
    z = [np.arctanh(np.clip(x, -_LIMIT, _LIMIT)) for x in (used, repeats)]
    chosen = [p[planted_tune & np.isfinite(p)] for p in positives.values() if len(p)]
    copies = np.concatenate([np.zeros(0), *chosen])
    z_copies = np.arctanh(np.clip(copies, -_LIMIT, _LIMIT))
    low = float(np.quantile(z_copies, 0.02)) if len(z_copies) else None
    # A scan that lies there twice, under two patients' names or one's, is no null.
    usual = float(np.median(z_copies)) if len(z_copies) else np.inf
    genuine = z[0][z[0] < usual]
    if calibrated and len(genuine):
        person = decide.upper_tail(genuine)
        words = f"{len(null)} best matches between different patients"
    else:
        person = max([float(np.arctanh(_DEFAULT_PERSON[at])), *genuine])
        words = (
            f"the package's default, because {len(null)} real volumes with another patient to compare "
            f"with are fewer than {decide.MIN_NULL}"
        )
    tail = max([person, *z[1][z[1] < _SAME_FILE]])
    if len(repeats):
        words += f", {len(repeats)} pairs of scans of one patient"
    threshold = tail + _ABOVE
    if low is not None and low > tail:
        threshold = tail + _STEP * (low - tail)
        words += f" and {len(copies)} replicas planted in memory"
    cut = float(np.tanh(threshold))
    check = null[~null_tune] if len(null) >= 2 * decide.MIN_NULL else null[:0]
    recalled = np.concatenate([r[~planted_tune] for r in right.values()])
    return LevelThresholds(
        replica=cut,
        same_person=float(np.tanh(person)),
        origin=words,
        null=null,
        repeats=repeats,
        planted=np.concatenate(list(positives.values())),
        false_rate=share_of(check >= cut, level),
        recall=share_of(recalled >= cut, level),
        calibrated=calibrated,
    )


def kind_of(score: float, thresholds: LevelThresholds) -> Kind:
    """What a level calls a pair of this score; a score that was not measured is different."""
    if score >= thresholds.replica:
        return Kind.REPLICA
    return Kind.SAME_PERSON if score >= thresholds.same_person else Kind.DIFFERENT


def _repeats(
    real: VolumeSide,
    settings: MatchSettings,
    journal: Section,
    embed: Embed | None,
    on_progress: Progress,
    *,
    seed: int,
) -> np.ndarray:
    """Measured pairs of different scans of one patient, each pair once.

    Each scan is matched among its own patient's other scans, which is an audit of them alone.
    """
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
        real,
        settings=settings,
        journal=journal.section("repeats"),
        embed=embed,
        on_progress=on_progress,
        what="scans of one patient",
    )


def _planted_side(
    real: VolumeSide,
    rows: np.ndarray,
    kind: str,
    embed: Embed | None,
    segment: Callable[[np.ndarray], np.ndarray] | None,
    settings: MatchSettings,
    *,
    seed: int,
) -> VolumeSide:
    """Replicas of some rows. They are made anew where a journal is resumed: their seed is fixed."""
    volumes = real.take(rows)
    maps = None if real.labels is None else real.labels(rows)
    near = kind == "near"
    donors = _other_patient(rows, real.groups)
    copies, moved = plant_replicas(
        volumes,
        seed=seed + near,
        donors=volumes[donors] if near else None,
        maps=maps,
        donor_maps=None if maps is None or not near else maps[donors],
    )
    copies = np.clip(np.round(copies), 0, 65535).astype(np.uint16)
    if segment is not None:
        moved = segment(copies)
    labels = None if moved is None else lambda chosen: moved[chosen]
    features = None
    if real.features is not None:
        # Given embeddings cannot be made for planted volumes: their originals' only fill the place.
        features = real.features[rows] if embed is None else embed(copies)
    return VolumeSide(
        take=lambda chosen: copies[chosen],
        shape=real.shape,
        groups=real.groups[rows],
        features=features,
        labels=labels,
        occupancy=None if labels is None else occupancies(labels, len(rows), settings.labels),
    )


def _other_patient(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """For each position one that holds another patient's volume, where there is one."""
    out = np.roll(np.arange(len(rows)), 1)
    for place, row in enumerate(rows):
        others = np.flatnonzero(groups[rows] != groups[row])
        if groups[rows[out[place]]] == groups[row] and len(others):
            out[place] = others[place % len(others)]
    return out
