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
from deepssim_jax.scoring.evidence import MOST_FALSE, GumbelLaw, NormalLaw, either
from deepssim_jax.scoring.match import NO_EVIDENCE, PAIR, Progress, Proposals, Side, match
from deepssim_jax.scoring.points import PointSet
from deepssim_jax.workspace import Section

MAX_NULL = 256
MAX_PLANTED = 96
_LIMIT = 1.0 - 1e-5


@dataclasses.dataclass(frozen=True)
class Trial:
    """What the search found of some images: best verified scores without local features, and the
    largest evidence of local features, float32 [n] each; of -1 and -5 where it found nothing.
    """

    scores: np.ndarray
    points: np.ndarray

    @classmethod
    def of(cls, pairs: np.ndarray, count: int) -> "Trial":
        """From the pairs of `match` of `count` queries."""
        scores = np.full(count, -1.0, np.float32)
        points = np.full(count, NO_EVIDENCE, np.float32)
        placed = pairs["by_points"]
        np.maximum.at(scores, pairs["query"][~placed], pairs["verified"][~placed])
        np.maximum.at(points, pairs["query"][placed], pairs["evidence"][placed])
        return cls(scores, points)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: np.ndarray) -> "Trial":
        return Trial(self.scores[rows], self.points[rows])

    def copies(self, thresholds: Thresholds) -> np.ndarray:
        """Bool [n]: either kind of evidence reaches its threshold."""
        return (self.scores >= thresholds.near) | (self.points >= thresholds.local)


def called(pairs: np.ndarray, thresholds: Thresholds) -> tuple[np.ndarray, np.ndarray]:
    """Pairs, one of each query and reference, in the order in which they explain the query.

    Args:
      pairs: of `match`.
      thresholds: from which a pair counts as a copy.

    Returns:
      By query, copies first, those of the best verified score first; and bool, which are copies. What
      local features alone proposed is left out where their evidence is too small: its score is that
      of an alignment with more freedom than that of the other pairs.
    """
    placed = pairs["by_points"]
    copy = np.where(
        placed,
        (pairs["evidence"] >= thresholds.local) & (pairs["verified"] > -1),
        pairs["verified"] >= thresholds.near,
    )
    pairs, copy = pairs[~placed | copy], copy[~placed | copy]
    order = np.lexsort((pairs["reference"], -pairs["verified"], ~copy, pairs["query"]))
    pairs, copy = pairs[order], copy[order]
    key = pairs["query"].astype(np.int64) << 32 | pairs["reference"].astype(np.int64)
    first = np.sort(np.unique(key, return_index=True)[1])
    # A pair that was found both ways keeps the better alignment, and the evidence of the other.
    places = {int(k): row for row, k in enumerate(key) if pairs["by_points"][row]}
    kept = pairs[first]
    for row, k in enumerate(key[first].tolist()):
        if k in places:
            other = pairs[places[k]]
            kept["points"][row], kept["evidence"][row] = other["points"], other["evidence"]
    return kept, copy[first]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What real images say of the detector: thresholds, and the trials from which they come.

    `null_scores` are the best-match scores of all unrelated images; the laws are learned on the tuning
    half; `null` and `copies` (exact, near) are the trials of the reporting half.
    """

    thresholds: Thresholds
    null_scores: np.ndarray
    scores: NormalLaw
    points: GumbelLaw
    null: Trial
    copies: tuple[Trial, Trial]
    level: float

    def p_values(self, found: Trial) -> np.ndarray:
        """Of each image, the probability of as much evidence of either kind without a copy."""
        return either(
            self.scores.p_values(fisher(found.scores)), self.points.p_values(found.points)
        )

    def at(self, cut: float) -> "Evidence":
        """With thresholds that unrelated images reach with probability `cut` at most, and the error
        rates of the reporting half at these; never below the thresholds of one image.
        """
        near = max(self.thresholds.near, float(np.tanh(self.scores.threshold(cut / 2))))
        thresholds = dataclasses.replace(
            self.thresholds,
            chance=cut,
            near=near,
            exact=max(self.thresholds.exact, near),
            local=self.points.threshold(cut / 2),
        )
        recalls = [share_of(trial.copies(thresholds), self.level) for trial in self.copies]
        thresholds = dataclasses.replace(
            thresholds,
            false_rate=share_of(self.null.copies(thresholds), self.level),
            planted_recall=recalls[0],
            planted_near_recall=recalls[1],
        )
        return dataclasses.replace(self, thresholds=thresholds)


def balanced_rows(groups: np.ndarray, count: int, *, seed: int | list[int]) -> np.ndarray:
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
    tune = tuning_half(groups, seed=seed)
    rows, tuning = _drawn(groups, tune, MAX_NULL, seed=seed)
    null, null_tuning = Trial(np.zeros(0, np.float32), np.zeros(0, np.float32)), tuning[:0]
    if len(np.unique(groups)) > 1:
        pairs = match(
            real.rows(rows),
            real,
            journal=journal.section("null", rows),
            apart=True,
            proposals=proposals,
            on_progress=on_progress,
            what="real with other patients' real",
        )
        null = Trial.of(pairs, len(rows))
        seen = null.scores > -1
        null, null_tuning = null[seen], tuning[seen]

    rows, tuning = _drawn(groups, tune, MAX_PLANTED, seed=seed)
    donors = _donors(rows, groups)
    images = real.take(rows)
    copies = {}
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
        own = groups[pairs["reference"]] == groups[rows[pairs["query"]]]
        copies[kind] = Trial.of(pairs[own], len(rows))

    chosen = decide.calibrate(
        null.scores[null_tuning],
        *(copies[kind].scores[tuning & (copies[kind].scores > -1)] for kind in ("exact", "near")),
    )
    scores = NormalLaw.of(fisher(null.scores[null_tuning]))
    points = GumbelLaw.of(null.points[null_tuning])
    thresholds = Thresholds(
        near=chosen.near,
        exact=chosen.exact,
        local=points.threshold(MOST_FALSE / 2),
        chance=MOST_FALSE,
        origin=chosen.origin,
        null_count=len(null.scores),
        null_max=float(null.scores.max()) if len(null.scores) else -1.0,
        false_rate=None,
        planted_recall=None,
        planted_near_recall=None,
        calibrated=chosen.calibrated,
    )
    evidence = Evidence(
        thresholds=thresholds,
        null_scores=null.scores,
        scores=scores,
        points=points,
        null=null[~null_tuning],
        copies=(copies["exact"][~tuning], copies["near"][~tuning]),
        level=level,
    )
    return evidence.at(MOST_FALSE)


def fisher(scores: np.ndarray) -> np.ndarray:
    """Fisher's z of scores in [-1, 1]."""
    return np.arctanh(np.clip(np.asarray(scores, np.float64), -_LIMIT, _LIMIT))


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
    points = None if real.points is None else PointSet.of_images(copies)
    side = Side(take=lambda rows: copies[rows], low=low, embeddings=embeddings, points=points)
    return match(
        side,
        real,
        journal=journal,
        proposals=proposals,
        on_progress=on_progress,
        what="planted copies with real",
    )


def _drawn(
    groups: np.ndarray, tune: np.ndarray, count: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Up to `count` rows, half of them of either half of the patients, and which are to tune on.

    Each half is drawn by itself: drawn from all, they can come from one half alone.
    """
    parts = []
    for number, half in enumerate((True, False)):
        there = np.flatnonzero(tune[groups] == half)
        parts.append(there[balanced_rows(groups[there], count // 2, seed=[seed, number])])
    return np.concatenate(parts), np.repeat([True, False], [len(part) for part in parts])


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
