"""Agreement among readers beyond chance: Cohen's and Fleiss' kappa and Gwet's AC1, with intervals.

Contract: ratings are int [pairs, readers], a category each from 0, and complete. Intervals are percentiles
of a bootstrap over pairs (Davison and Hinkley, 1997, section 5.3): readers are those at hand, and pairs are a
sample. There is none where it would hold nothing but the coefficient itself, or end there: of few pairs, or
where draws hardly differ, as of a reader who gives every pair one rating.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from sklearn.metrics import cohen_kappa_score

_REPLICATES = 1000
_LEAST_PAIRS = 10  # draws of fewer repeat the same few pairs


@dataclasses.dataclass(frozen=True)
class Coefficient:
    """A coefficient of agreement, at most 1, with the interval of `level` coverage.

    `value` is NaN where it is not defined: there are no pairs. `low` and `high` are None where there is no
    interval, for a `reason`.
    """

    value: float
    low: float | None
    high: float | None
    level: float
    pairs: int
    reason: str = ""


def cohen_kappa(first: np.ndarray, second: np.ndarray, *, level: float = 0.95) -> Coefficient:
    """Of two readers (Cohen, Educ. Psychol. Meas. 20, 1960), by scikit-learn.

    Args:
      first: int [pairs], categories.
      second: likewise of the other reader.
      level: coverage of the interval.
    """

    def of(weights: np.ndarray) -> float:
        if (first == second)[weights > 0].all():
            return 1.0
        return float(cohen_kappa_score(first, second, sample_weight=weights))

    return _with_interval(of, len(first), level)


def fleiss_kappa(counts: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Of any number of readers (Fleiss, Psychol. Bull. 76, 1971).

    Args:
      counts: int [pairs, categories], how many readers chose what; equal sums of at least 2.
      weights: float [pairs], how often each pair counts; once if None.

    Raises:
      ValueError: fewer than two readers.
    """
    observed, shares = _observed(counts, weights)
    return _beyond(observed, float((shares**2).sum()))


def gwet_ac1(counts: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Gwet's AC1 (Br. J. Math. Stat. Psychol. 61, 2008, eq. 9); arguments as for `fleiss_kappa`.

    Unlike kappa it does not fall where nearly all pairs are of one category.
    """
    observed, shares = _observed(counts, weights)
    return _beyond(observed, float((shares * (1 - shares)).sum()) / max(counts.shape[1] - 1, 1))


def among_all(
    ratings: np.ndarray, *, categories: int, level: float = 0.95
) -> tuple[Coefficient, Coefficient]:
    """Fleiss' kappa and Gwet's AC1 with their intervals.

    Args:
      ratings: int [pairs, readers].
      categories: how many there are to choose from.
      level: coverage of the intervals.
    """
    counts = counted(ratings, categories=categories)
    kappa, ac1 = (
        _with_interval(functools.partial(of, counts), len(counts), level)
        for of in (fleiss_kappa, gwet_ac1)
    )
    return kappa, ac1


def counted(ratings: np.ndarray, *, categories: int) -> np.ndarray:
    """int [pairs, categories]: how many readers chose what."""
    return (np.asarray(ratings)[..., None] == np.arange(categories)).sum(1)


def _observed(counts: np.ndarray, weights: np.ndarray | None) -> tuple[float, np.ndarray]:
    """The share of pairs of readers that agree, and the share of each category."""
    readers = int(counts[0].sum()) if len(counts) else 0
    if readers < 2:
        raise ValueError(f"{readers} readers cannot disagree; agreement needs two or more")
    agree = ((counts**2).sum(1) - readers) / (readers * (readers - 1))
    shares = np.average(counts, axis=0, weights=weights) / readers
    return float(np.average(agree, weights=weights)), shares


def _beyond(observed: float, chance: float) -> float:
    return 1.0 if observed >= 1 - 1e-12 else (observed - chance) / (1 - chance)


def _with_interval(of: Callable[[np.ndarray], float], pairs: int, level: float) -> Coefficient:
    value = of(np.ones(pairs)) if pairs else np.nan
    if pairs < _LEAST_PAIRS:
        return Coefficient(value, None, None, level, pairs, f"fewer than {_LEAST_PAIRS} pairs")
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(pairs, np.full(pairs, 1 / pairs), _REPLICATES).astype(float)
    values = [of(weights) for weights in drawn]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    if not low < value < high:
        return Coefficient(value, None, None, level, pairs, "ratings vary too little")
    return Coefficient(value, float(low), float(high), level, pairs)
