"""How well scores tell classes apart: figures with intervals, and thresholds chosen elsewhere.

Contract: scores float [n], larger is more alike; labels int [n], 0 unrelated, 1 near duplicate,
2 exact duplicate; patients int [n], whose pair it is. A score at or above a threshold belongs to
the class above. Intervals are percentiles of a bootstrap that draws patients, because the pairs of
one patient are not independent; where it sees no error or no hit it knows nothing, and the exact
binomial interval of as many trials as patients takes its place.
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
from scipy import stats

from deepssim_jax.scoring.decide import clopper_pearson

CLASSES = ("unrelated", "near_duplicate", "exact_duplicate")
FALSE_RATES = (0.05, 0.01, 0.001)
_REPLICATES, _CHUNK = 1000, 50


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure and its interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class ClassFigures:
    """Of one class, found against the other two."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    pairs: int


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. `true_rates` has the recall of exact duplicates at false positive rates
    (the published TPR at 5 % FPR), and `copy_true_rates` that of near and exact ones together.
    """

    near: float
    exact: float
    classes: dict[str, ClassFigures]
    macro_f1: Estimate
    weighted_f1: Estimate
    true_rates: dict[float, Estimate]
    copy_true_rates: dict[float, Estimate]
    average_precision: Estimate
    silhouette: float
    pairs: int
    patients: int
    level: float


def classify(scores: np.ndarray, *, near: float, exact: float) -> np.ndarray:
    """int [n]: the class of each score.

    Raises:
      ValueError: `near` lies above `exact`.
    """
    if near > exact:
        raise ValueError(f"near {near} must not lie above exact {exact}")
    scores = np.asarray(scores)
    return (scores >= near).astype(int) + (scores >= exact)


PUBLISHED_GRID = np.round(np.arange(0, 1.0001, 0.01), 2)


def fitted_grid(scores: np.ndarray) -> np.ndarray:
    """Up to a thousand thresholds for methods of any scale: middles between neighbouring scores.

    Where no score lies a threshold stands in the middle of the gap, and none is itself a score, which
    the last digit of a file could bring to its other side.
    """
    known = np.unique(np.asarray(scores, np.float64))
    if len(known) < 2:
        return known
    middles = (known[1:] + known[:-1]) / 2
    return middles[np.unique(np.linspace(0, len(middles) - 1, 1000).astype(int))]


def choose_thresholds(
    scores: np.ndarray, labels: np.ndarray, *, grid: np.ndarray = PUBLISHED_GRID
) -> tuple[float, float]:
    """(near, exact) with the largest macro-F1, both from `grid`: 0.00, 0.01, ... 1.00 as published.

    Ties go to the smaller thresholds. Choose on other patients than you report.
    """
    # Pairs of each class at or above each threshold: everything follows from these counts.
    above = np.stack([[(scores[labels == c] >= t).sum() for t in grid] for c in range(3)])
    total = np.bincount(labels, minlength=3)[:, None, None]
    low, high = above[:, :, None], above[:, None, :]
    found = np.broadcast_arrays(total - low, low - high, high)  # each [true, near, exact]
    macro = _f1(np.moveaxis(np.stack(found, 1), (0, 1), (-2, -1)))[2].mean(-1)
    macro = np.where(grid[:, None] <= grid[None, :], macro, -1.0)
    i, j = np.unravel_index(np.argmax(macro), macro.shape)
    return float(grid[i]), float(grid[j])


def evaluate(
    scores: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    *,
    near: float,
    exact: float,
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """All figures at given thresholds.

    Args:
      scores: [n].
      labels: [n].
      patients: [n].
      near: threshold between unrelated and near.
      exact: threshold between near and exact.
      level: coverage of the intervals.
      seed: of the bootstrap.

    Raises:
      ValueError: lengths differ, a label is none of 0, 1, 2, or a score is not finite.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, int)
    if not len(scores) == len(labels) == len(patients) or not len(scores):
        raise ValueError(
            f"{len(scores)} scores, {len(labels)} labels and {len(patients)} patients must be alike "
            "and not empty"
        )
    if not np.isin(labels, (0, 1, 2)).all() or not np.isfinite(scores).all():
        raise ValueError("labels must be 0, 1 or 2 and scores finite")
    owner = np.unique(patients, return_inverse=True)[1]
    found = classify(scores, near=near, exact=exact)
    estimate = _Estimates.of(_Pairs(scores, labels, found, owner), level=level, seed=seed)
    called = [found == c for c in range(len(CLASSES))]
    truly = [labels == c for c in range(len(CLASSES))]
    return Evaluation(
        near=near,
        exact=exact,
        classes={
            name: ClassFigures(
                estimate("precision", c, trials=called[c]),
                estimate("recall", c, trials=truly[c]),
                estimate("f1", c, trials=truly[c]),
                int(truly[c].sum()),
            )
            for c, name in enumerate(CLASSES)
        },
        macro_f1=estimate("macro"),
        weighted_f1=estimate("weighted"),
        true_rates={
            rate: estimate("exact_rates", i, trials=truly[2]) for i, rate in enumerate(FALSE_RATES)
        },
        copy_true_rates={
            rate: estimate("copy_rates", i, trials=labels > 0) for i, rate in enumerate(FALSE_RATES)
        },
        average_precision=estimate("average_precision", trials=truly[2]),
        silhouette=silhouette(scores, labels),
        pairs=len(scores),
        patients=int(owner.max()) + 1,
        level=level,
    )


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """[n] each: the score, its label, the class that it was given, and the patient's number."""

    scores: np.ndarray
    labels: np.ndarray
    found: np.ndarray
    owner: np.ndarray

    @functools.cached_property
    def by_patient(self) -> np.ndarray:
        """[patients, 9]: pairs of each label and class."""
        counts = np.zeros((int(self.owner.max()) + 1, 9))
        np.add.at(counts, (self.owner, 3 * self.labels + self.found), 1)
        return counts

    def figures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Weights [b, patients] to every figure [b, ...]."""
        confusion = (weights @ self.by_patient).reshape(-1, 3, 3)
        precision, recall, f1 = _f1(confusion)
        share = confusion.sum(2) / np.maximum(confusion.sum((1, 2)), 1)[:, None]
        each = weights[:, self.owner]
        exact_rates, precision_mean = _ranked(self.scores, self.labels == 2, each)
        copy_rates, _ = _ranked(self.scores, self.labels > 0, each)
        return {
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "macro": f1.mean(1),
            "weighted": (f1 * share).sum(1),
            "exact_rates": exact_rates,
            "copy_rates": copy_rates,
            "average_precision": precision_mean,
        }


@dataclasses.dataclass(frozen=True)
class _Estimates:
    """Every figure of some pairs [1, ...], and its bounds [low or high, ...] by bootstrap over patients."""

    point: dict[str, np.ndarray]
    bounds: dict[str, np.ndarray]
    owner: np.ndarray
    level: float

    @classmethod
    def of(cls, pairs: _Pairs, *, level: float, seed: int) -> "_Estimates":
        count = len(pairs.by_patient)
        point = pairs.figures(np.ones((1, count)))
        parts = [pairs.figures(w) for w in _drawn(count, seed)]
        edges = [50 * (1 - level), 50 * (1 + level)]
        bounds = {
            name: np.nanpercentile(np.concatenate([p[name] for p in parts]), edges, axis=0)
            for name in point
        }
        return cls(point, bounds, pairs.owner, level)

    def __call__(self, name: str, *place: int, trials: np.ndarray | None = None) -> Estimate:
        """`trials` are the pairs that a share is of; all if None."""
        low, high = (float(b[place]) for b in self.bounds[name])
        value = float(self.point[name][(0, *place)])
        people = len(np.unique(self.owner if trials is None else self.owner[trials]))
        return _floored(Estimate(value, low, high), people, self.level)


def _floored(found: Estimate, people: int, level: float) -> Estimate:
    """The interval, never narrower at 0 or 1 than so many patients allow."""
    if found.value not in (0.0, 1.0):
        return found
    exact = clopper_pearson(people if found.value else 0, people, level=level)
    return Estimate(found.value, min(found.low, exact.low), max(found.high, exact.high))


def _drawn(count: int, seed: int) -> Iterator[np.ndarray]:
    """How often each patient is drawn, [_CHUNK, count] at a time."""
    rng = np.random.default_rng(seed)
    for _ in range(_REPLICATES // _CHUNK):
        yield rng.multinomial(count, np.full(count, 1 / count), _CHUNK).astype(float)


def _f1(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confusion [..., true, found] to precision, recall and F1 [..., 3]; 0 where undefined."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    precision = hits / np.maximum(confusion.sum(-2), 1e-12)
    recall = hits / np.maximum(confusion.sum(-1), 1e-12)
    return precision, recall, 2 * precision * recall / np.maximum(precision + recall, 1e-12)


def _ranked(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """True positive rates [b, rates] at `FALSE_RATES`, and average precision [b].

    Equal scores come as one step: no order among them is invented.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true = np.cumsum(weights[:, order] * positive[order], 1)[:, last]
    false = np.cumsum(weights[:, order] * ~positive[order], 1)[:, last]
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, wrong = true / true[:, -1:], false / false[:, -1:]
        precision = true / (true + false)
    gain = np.diff(recall, axis=1, prepend=0)
    mean = np.where(true[:, -1] > 0, np.nansum(gain * precision, 1), np.nan)
    rates = [np.where(wrong <= rate, recall, 0.0).max(1) for rate in FALSE_RATES]
    return np.stack(rates, 1), mean


def silhouette(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette (Rousseeuw, 1987) of scores as points on a line; NaN with a single class.

    By sorted prefix sums instead of all distances, so that n may be large.
    """
    present = np.unique(labels)
    if len(present) < 2:
        return float("nan")
    means = np.full((len(present), len(scores)), np.inf)
    own = np.zeros(len(scores))
    single = np.zeros(len(scores), bool)
    for row, c in enumerate(present):
        members = np.sort(scores[labels == c])
        prefix = np.concatenate([[0.0], np.cumsum(members)])
        place = np.searchsorted(members, scores)
        total = scores * place - prefix[place]
        total += (prefix[-1] - prefix[place]) - scores * (len(members) - place)
        mine = labels == c
        means[row] = np.where(mine, np.inf, total / len(members))
        own[mine] = total[mine] / max(len(members) - 1, 1)
        single[mine] = len(members) == 1
    other = means.min(0)
    largest = np.maximum(np.maximum(own, other), 1e-300)
    return float(np.where(single, 0.0, (other - own) / largest).mean())


def mcnemar(right: np.ndarray, other: np.ndarray) -> float:
    """Exact two-sided p of McNemar's test for two methods right (or not) on the same pairs."""
    first, second = int((right & ~other).sum()), int((other & ~right).sum())
    if first + second == 0:
        return 1.0
    return float(stats.binomtest(first, first + second, 0.5).pvalue)
