"""Who serves as a control: patients split once, rows drawn by patient, donors of another patient.

Contract: `groups` int [n] is the patient of each row; rows are int arrays of positions in it.
"""

import numpy as np

from deepssim_jax.scoring.decide import Proportion, clopper_pearson


def tuning_split(groups: np.ndarray, *, seed: int) -> np.ndarray:
    """Boolean by patient: one of two chooses the thresholds, the others report error rates."""
    count = int(groups.max()) + 1 if len(groups) else 0
    tuning = np.zeros(count, bool)
    tuning[np.random.default_rng(seed).permutation(count)[: (count + 1) // 2]] = True
    return tuning


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


def rows_of_both_splits(
    groups: np.ndarray, tuning: np.ndarray, count: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Up to `count` rows, as many of either split of `tuning_split`, and which are of the tuning one.

    Each split is drawn by itself: drawn from all, they can come from one alone.
    """
    parts = []
    for number, split in enumerate((True, False)):
        there = np.flatnonzero(tuning[groups] == split)
        parts.append(there[balanced_rows(groups[there], count // 2, seed=[seed, number])])
    return np.concatenate(parts), np.repeat([True, False], [len(part) for part in parts])


def other_patients(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """For each position in `rows` one that holds another patient's row, where there is one."""
    out = np.roll(np.arange(len(rows)), 1)
    for place, row in enumerate(rows):
        others = np.flatnonzero(groups[rows] != groups[row])
        if groups[rows[out[place]]] == groups[row] and len(others):
            out[place] = others[place % len(others)]
    return out


def share_of(hits: np.ndarray, level: float) -> Proportion | None:
    """The share of hits with its interval; None where there is nothing to count."""
    if not len(hits):
        return None
    return clopper_pearson(int(hits.sum()), len(hits), level=level)
