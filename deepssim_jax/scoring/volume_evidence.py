"""What a level's measures are worth: one number for each volume, and its law among unrelated ones.

Contract: pairs are those of `volume_match`. The evidence of a query at a level is that of its best
pair, and half of what it is ahead of the query's best pair with another patient: a volume that is like
every patient's is nobody's copy. Measures of keypoints count by their logarithm, correlations by Fisher's
z. Laws are learned from real volumes and other patients', by quantiles (`scoring.evidence`); of a folder
that is searched against itself, by the spacing of plain evidence beside copies.
"""

import dataclasses

import numpy as np
from scipy import stats

from deepssim_jax.scoring.evidence import MIN_NULL, MOST_FALSE, GumbelLaw, NormalLaw
from deepssim_jax.scoring.volume_measure import DECIDING
from deepssim_jax.scoring.volume_search import Level

Law = GumbelLaw | NormalLaw
_LIMIT, _LEAST_POINTS = 1 - 1e-4, 0.2
_AHEAD = 0.5
_QUANTILES, _LEAST_SCALE = ((0.1, 0.5), (0.1, 0.25)), 0.02
# What phantoms and the brains at hand came to, where fewer than MIN_NULL volumes can say.
_USUAL: dict[Level, Law] = {
    Level.POINTS: GumbelLaw(0.6, 0.35, 0),
    Level.VOXEL: NormalLaw(0.75, 0.25, 0),
    Level.FEATURE: NormalLaw(1.5, 0.2, 0),
    Level.SEGMENTATION: NormalLaw(0.7, 0.15, 0),
}
# The same of plain evidence: of 54 heads; small crops and hearts come to less.
_USUAL_MOST = GumbelLaw(2.8, 0.5, 0)
# So many of a volume's best can be copies. Volumes differ in how much they have for any other one: the law
# is that of those that have much.
_COPIES, _HIGH_SHARE = 2, 0.9
# Of the points that a copy could have it has so many, or so much of their weight lies exactly, or its
# structure agrees so well. Scans of one person at two times (heads) come to 0.37, 0.47 and 0.956; nearly
# all copies of heads (three seeds) come to more of one of them.
COPY_SHARE, COPY_EXACT, COPY_STRUCTURE = 0.44, 0.55, 0.965
# No set of volumes makes less than this telling, however little its unrelated volumes are alike: a
# weight of 1.2 of keypoints, or a correlation of 0.4.
LEAST: dict[Level, float] = {
    Level.POINTS: 0.2,
    Level.VOXEL: 0.42,
    Level.FEATURE: 1.2,
    Level.SEGMENTATION: 0.5,
}


def scaled(values: np.ndarray, level: Level) -> np.ndarray:
    """A level's deciding measure on the scale of evidence; NaN stays."""
    if level is Level.POINTS:
        return np.log(np.maximum(np.asarray(values, np.float64), _LEAST_POINTS))
    return np.arctanh(np.clip(np.asarray(values, np.float64), -_LIMIT, _LIMIT))


@dataclasses.dataclass(frozen=True)
class Best:
    """Of n queries at one level: `row` int [n] of the pairs, -1 where there is none; `evidence` float64
    [n], NaN there; `second` [n], the scaled measure of the best pair with another patient, or NaN;
    `can_be_copy` bool [n], see `can_be_copies`.
    """

    row: np.ndarray
    evidence: np.ndarray
    second: np.ndarray
    can_be_copy: np.ndarray


def best_of(pairs: np.ndarray, groups: np.ndarray, count: int, level: Level) -> Best | None:
    """The best pair of each query; ties go to the smaller reference.

    Args:
      pairs: of `volume_match`.
      groups: int [references], the patient of each.
      count: of queries.
      level: which.

    Returns:
      None where nothing was measured at this level.
    """
    values = scaled(pairs[DECIDING[level]], level)
    if not np.isfinite(values).any():
        return None
    row = np.full(count, -1)
    best, second = np.full(count, np.nan), np.full(count, np.nan)
    for place in np.lexsort((pairs["reference"], -np.nan_to_num(values, nan=-np.inf))):
        query = pairs["query"][place]
        if np.isnan(values[place]):
            continue
        if row[query] < 0:
            row[query], best[query] = place, values[place]
        elif np.isnan(second[query]):
            first = groups[pairs["reference"][row[query]]]
            if groups[pairs["reference"][place]] != first:
                second[query] = values[place]
    return Best(row, ahead(best, second), second, can_be_copies(pairs, level)[row] & (row >= 0))


def can_be_copies(pairs: np.ndarray, level: Level) -> np.ndarray:
    """Bool [n]: which pairs agree as a copy does, and not only as two scans of one person can.

    Keypoints tell, whatever their evidence: in a copy of one scan they lie where they lay, or most of
    them are there, or the structure that was aligned by them agrees to the detail. No other level tells.
    """
    if level is not Level.POINTS:
        return np.ones(len(pairs), bool)
    whole = (pairs["share"] >= COPY_SHARE) | (pairs["structure"] >= COPY_STRUCTURE)
    return whole | (pairs["exact"] >= COPY_EXACT)


def ahead(best: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Evidence of scaled measures and those of the best other patient, NaN where there is none."""
    return best + _AHEAD * np.nan_to_num(np.maximum(best - second, 0.0))


def law_of(values: np.ndarray, level: Level) -> Law:
    """The law of unrelated volumes from their evidence; the usual one where they are too few.

    Through the 10 % and 50 % quantiles, or the 10 % and 25 % ones where that gives a narrower law:
    where every second patient was scanned twice and nobody says so, the upper half is no null.
    """
    if len(values) < MIN_NULL:
        return dataclasses.replace(_USUAL[level], count=len(values))
    family = stats.gumbel_r if level is Level.POINTS else stats.norm
    laws: list[Law] = []
    for shares in _QUANTILES:
        low, high = np.quantile(values, shares)
        places = family.ppf(shares)
        scale = max(float((high - low) / (places[1] - places[0])), _LEAST_SCALE)
        kind = GumbelLaw if level is Level.POINTS else NormalLaw
        laws.append(kind(float(low - scale * places[0]), scale, len(values)))
    return min(laws, key=lambda law: law.threshold(MOST_FALSE))


def law_beside_copies(most: np.ndarray) -> GumbelLaw:
    """The law of the best of unrelated volumes by keypoints, where some of the best are copies.

    A volume has few copies: from the third best on they are of unrelated ones. Evidence has an
    exponential tail, so that the k-th best of many is ahead of the next one by `scale` / k on average
    (Renyi, Acta Math. Acad. Sci. Hung. 4, 1953), and the best of the third best by 1 + 1/2 times it.

    Args:
      most: float [n, k], k of 5 and more: the most evidence of each volume for others, falling; no
        logarithms.
    """
    if len(most) < MIN_NULL:
        return dataclasses.replace(_USUAL_MOST, count=len(most))
    spread = float((most[:, _COPIES + 1] - most[:, -1]).mean())
    scale = max(spread / sum(1 / k for k in range(_COPIES + 2, most.shape[1])), _LEAST_SCALE)
    third = float(np.quantile(most[:, _COPIES], _HIGH_SHARE))
    # The mean of Gumbel's law lies at 0.577 times the scale.
    ahead = sum(1 / k for k in range(1, _COPIES + 1)) - np.euler_gamma
    return GumbelLaw(third + ahead * scale, scale, len(most))
