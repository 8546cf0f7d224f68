"""Thresholds from the real images alone, and what the detector is worth on them.

Two experiments are run through the very search and verification that the synthetic images get:
real images are matched with other patients' real images (the null), and copies planted in memory
are matched with the real side (the positives). Patients are split in two halves: thresholds are
chosen on one, error rates are reported on the other.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from deepssim_jax.audit.result import Thresholds
from deepssim_jax.nn.encoder import Encoder
from deepssim_jax.scoring import decide, plant
from deepssim_jax.scoring.embed import features
from deepssim_jax.scoring.match import PAIR, Progress, Proposals, Side, best_matches, match
from deepssim_jax.workspace import Section

MAX_NULL = 256
MAX_PLANTED = 96


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Thresholds, and the null's best-match scores from which they come (both halves)."""

    thresholds: Thresholds
    null_scores: np.ndarray
    separated: bool
    calibrated: bool


def balanced_rows(groups: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Up to `count` rows, one of each patient before a second of any; seeded.

    The first files of a folder often come from few patients; a draw by patient does not.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(groups))
    turn = np.zeros(len(groups), np.int64)
    seen: dict[int, int] = {}
    for position, row in enumerate(shuffled):
        turn[position] = seen.get(int(groups[row]), 0)
        seen[int(groups[row])] = int(turn[position]) + 1
    return shuffled[np.argsort(turn, kind="stable")][:count]


def calibrate_on_real(
    real: Side,
    encoder: Callable[[], Encoder],
    *,
    journal: Section,
    seed: int,
    level: float,
    proposals: Proposals,
    on_progress: Progress,
) -> Evidence:
    """Runs both experiments and chooses thresholds.

    Args:
      real: the real side; without groups every image counts as a patient of its own.
      encoder: makes the encoder, called only if planted copies must be embedded.
      journal: keeps what is found, by the features of the side.
      seed: of the draw and of the planted transformations.
      level: coverage of the reported intervals.
      proposals: those of the search that the thresholds are for.
      on_progress: as for `match`.

    Returns:
      The evidence; with too few patients the package's default thresholds, said in `origin`.
    """
    real, groups = real.grouped()
    rows = balanced_rows(groups, MAX_NULL, seed=seed)
    null = np.full(0, -1.0, np.float32)
    null_groups = groups[:0]
    if len(np.unique(groups)) > 1:
        pairs = match(
            real.rows(rows),
            real,
            journal=journal.section("null"),
            apart=True,
            proposals=proposals,
            on_progress=on_progress,
            what="real with other patients' real",
        )
        best = best_matches(pairs, len(rows))
        seen = best["reference"] >= 0
        null, null_groups = best["verified"][seen], groups[rows][seen]

    rows = rows[:MAX_PLANTED]
    donors = _donors(rows, groups)
    images = real.take(rows)
    scores, found = {}, {}
    for kind in ("exact", "near"):
        planted = journal.section(f"planted-{kind}", rows, donors, seed)

        def found_planted(kind: str = kind, planted: Section = planted) -> np.ndarray:
            copies = (
                plant.exact_copies(images, seed=seed)
                if kind == "exact"
                else plant.near_copies(images, real.take(donors), seed=seed + 1)
            )
            return match_planted(copies, real, encoder(), planted, proposals, on_progress)

        pairs = planted.step("found", [proposals, real.low, real.embeddings], found_planted)
        best = best_matches(pairs, len(rows))
        own = pairs[pairs["reference"] == rows[pairs["query"]]]
        scores[kind] = np.full(len(rows), -1.0, np.float32)
        scores[kind][own["query"]] = own["verified"]
        found[kind] = np.where(groups[best["reference"]] == groups[rows], best["verified"], -1.0)

    tune = tuning_half(groups, seed=seed)
    planted_tune = tune[groups[rows]]
    calibration = decide.calibrate(
        null[tune[null_groups]],
        scores["exact"][planted_tune & (scores["exact"] > -1)],
        scores["near"][planted_tune & (scores["near"] > -1)],
    )
    null_report = null[~tune[null_groups]]
    recalls = [
        share_of(found[kind][~planted_tune] >= calibration.near, level)
        for kind in ("exact", "near")
    ]
    thresholds = Thresholds(
        near=calibration.near,
        exact=calibration.exact,
        origin=calibration.origin,
        null_count=len(null),
        null_max=float(null.max()) if len(null) else -1.0,
        false_rate=share_of(null_report >= calibration.near, level),
        planted_recall=recalls[0],
        planted_near_recall=recalls[1],
    )
    return Evidence(
        thresholds=thresholds,
        null_scores=null,
        separated=calibration.separated,
        calibrated=calibration.calibrated,
    )


def match_planted(
    copies: np.ndarray,
    real: Side,
    encoder: Encoder,
    journal: Section,
    proposals: Proposals,
    on_progress: Progress,
) -> np.ndarray:
    """Pairs, as of `match`, of copies [n, s, s] that were planted in memory."""
    if not len(copies):
        return np.zeros(0, PAIR)
    embeddings, low = features(copies, encoder)
    side = Side(take=lambda rows: copies[rows], low=low, embeddings=embeddings)
    return match(
        side,
        real,
        journal=journal,
        proposals=proposals,
        on_progress=on_progress,
        what="planted copies with real",
    )


def _donors(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """For each row one of another patient where there is one."""
    out = np.roll(rows, 1)
    for position, row in enumerate(rows):
        if groups[out[position]] == groups[row]:
            others = rows[groups[rows] != groups[row]]
            out[position] = others[position % len(others)] if len(others) else row
    return out


def tuning_half(groups: np.ndarray, *, seed: int) -> np.ndarray:
    """Boolean by patient: half of them choose the thresholds."""
    count = int(groups.max()) + 1 if len(groups) else 0
    half = np.zeros(count, bool)
    half[np.random.default_rng(seed).permutation(count)[: (count + 1) // 2]] = True
    return half


def share_of(hits: np.ndarray, level: float) -> decide.Proportion | None:
    """The share of hits with its interval; None where there is nothing to count."""
    if not len(hits):
        return None
    return decide.clopper_pearson(int(hits.sum()), len(hits), level=level)
