"""Measures judged by people: balanced accuracy, honestly, and agreement among raters.

Contract: scores are float [n], one a synthetic volume, larger is more like a real one; labels bool
[n], True where people say replica. A score at or above a threshold is called a replica. Published
figures choose the threshold on the very volumes that they report; here that figure stands beside one
where each volume is judged by a threshold that it took no part in choosing.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deepssim_jax.data.table_rows import named_rows
from deepssim_jax.scoring import rater_agreement
from deepssim_jax.scoring.decide import Proportion, clopper_pearson

_REPLICATES = 2000
_YES, _NO = {"1", "true", "yes", "replica", "y"}, {"0", "false", "no", "different", "n"}
IN_FOLDS = "chosen in the folds"


@dataclasses.dataclass(frozen=True)
class Ratings:
    """`votes` bool [volumes, raters] of `synthetic_ids`, by the raters named."""

    synthetic_ids: tuple[str, ...]
    raters: tuple[str, ...]
    votes: np.ndarray

    @property
    def majority(self) -> np.ndarray:
        """bool [volumes]: more than half of the raters say replica; a tie is no replica."""
        return self.votes.mean(1) > 0.5


@dataclasses.dataclass(frozen=True)
class BalancedAccuracy:
    """Mean of sensitivity and specificity, with the interval of a bootstrap within the classes."""

    value: float
    low: float
    high: float
    sensitivity: Proportion
    specificity: Proportion


@dataclasses.dataclass(frozen=True)
class MeasureRating:
    """One measure against the raters.

    `in_sample` has the best `threshold` of all volumes, as is published; `cross_validated` leaves one
    volume out at a time. `roc` [points, 2] is false and true positive rate; `auc` its area.
    """

    level: str
    measure: str
    threshold: float
    in_sample: BalancedAccuracy
    cross_validated: BalancedAccuracy
    auc: float
    roc: np.ndarray


def read_ratings(path: str | Path) -> Ratings:
    """Reads `synthetic_id,replica`, or `synthetic_id` and one column a rater.

    Raises:
      ValueError: the file is missing or empty, has no such columns, a value is neither yes nor no, or
        an id stands there twice.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file of ratings {path.name!r}; check --ratings")
    with path.open(newline="", encoding="utf-8-sig") as file:
        names, rows = named_rows(file, path.name)
        if "synthetic_id" not in names or len(names) < 2:
            raise ValueError(
                f"{path.name}: its first line must name a column `synthetic_id`, and `replica` or one column "
                "for each rater"
            )
        raters = tuple(name for name in names if name != "synthetic_id")
        ids, votes, lines = [], [], []
        for number, row in rows:
            lines.append(number)
            ids.append(row["synthetic_id"])
            places = [(names.index(rater) + 1, row[rater]) for rater in raters]
            where = f"{path.name}, line {number}, column"
            votes.append([_vote(text, f"{where} {place}") for place, text in places])
    if not ids:
        raise ValueError(f"{path.name} holds no rating")
    if len(set(ids)) < len(ids):
        line = next(line for n, line in enumerate(lines) if ids.index(ids[n]) < n)
        raise ValueError(f"{path.name}, line {line}: rated before; keep one row for each volume")
    return Ratings(tuple(ids), raters, np.array(votes, bool))


def _vote(text: str, where: str) -> bool:
    word = text.strip().lower()
    if word not in _YES | _NO:
        raise ValueError(f"{where}: it is neither 1 (replica) nor 0 (none)")
    return word in _YES


def fleiss_kappa(votes: np.ndarray) -> float:
    """Agreement beyond chance of raters bool [volumes, raters] (Fleiss, Psychol. Bull. 76, 1971).

    1 where all agree on every volume, also if all of them are of one class.
    """
    return rater_agreement.fleiss_kappa(rater_agreement.counted(votes, categories=2))


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """The threshold of largest balanced accuracy, halfway between two scores.

    Of several, the one in the widest gap; of equal gaps, the lowest.

    Args:
      scores: [n].
      labels: bool [n], both kinds.

    Returns:
      The threshold, its balanced accuracy, and the gap's width over the range of the scores.
    """
    values = np.unique(scores)
    width = max(float(values[-1] - values[0]), 1e-12)
    edges = np.concatenate([[values[0]], (values[1:] + values[:-1]) / 2, [values[-1] + width]])
    gaps = np.concatenate([[0.0], np.diff(values) / width, [0.0]])
    called = scores[None, :] >= edges[:, None]
    accuracy = (called[:, labels].mean(1) + (~called[:, ~labels]).mean(1)) / 2
    order = np.lexsort((edges, -gaps, -accuracy))
    best = int(order[0])
    return float(edges[best]), float(accuracy[best]), float(gaps[best])


def rate_measures(
    scores: Mapping[tuple[str, str], np.ndarray],
    labels: np.ndarray,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[MeasureRating, ...]:
    """Judges every measure, and the choice of a measure itself.

    The last row chooses measure and threshold anew for each volume left out, on the others alone: by
    balanced accuracy, then by the width of the gap. It is what a user who looks for the best measure
    may expect on a new volume.

    Args:
      scores: {(level, measure): [n]}, larger is more alike.
      labels: bool [n].
      level: coverage of the intervals.
      seed: of the bootstrap.

    Raises:
      ValueError: fewer than two volumes of either kind.
    """
    labels = np.asarray(labels, bool)
    if min(labels.sum(), (~labels).sum()) < 2:
        raise ValueError(
            f"{int(labels.sum())} replicas and {int((~labels).sum())} others were rated; a threshold that "
            "is tested on other volumes needs at least two of each"
        )
    names = list(scores)
    table = np.stack([scores[name] for name in names])
    everyone = np.arange(len(labels))
    folds = [
        [best_threshold(row[everyone != i], labels[everyone != i]) for row in table]
        for i in everyone
    ]
    out = []
    for number, (name, row) in enumerate(zip(names, table, strict=True)):
        threshold = best_threshold(row, labels)[0]
        held_out = np.array([row[i] >= folds[i][number][0] for i in everyone])
        curve = _roc(row, labels)
        out.append(
            MeasureRating(
                level=name[0],
                measure=name[1],
                threshold=threshold,
                in_sample=_balanced(row >= threshold, labels, level, seed),
                cross_validated=_balanced(held_out, labels, level, seed),
                auc=float(np.trapezoid(curve[:, 1], curve[:, 0])),
                roc=curve,
            )
        )
    chosen = [max(range(len(names)), key=lambda j: folds[i][j][1:]) for i in everyone]
    held_out = np.array([table[j, i] >= folds[i][j][0] for i, j in zip(everyone, chosen)])
    top = max(range(len(names)), key=lambda j: best_threshold(table[j], labels)[1:])
    winner = out[top]
    out.append(
        dataclasses.replace(
            winner,
            level="any",
            measure=IN_FOLDS,
            cross_validated=_balanced(held_out, labels, level, seed),
        )
    )
    return tuple(out)


def _balanced(called: np.ndarray, labels: np.ndarray, level: float, seed: int) -> BalancedAccuracy:
    hits, correct = called[labels], ~called[~labels]
    rng = np.random.default_rng(seed)
    draws = [x[rng.integers(0, len(x), (_REPLICATES, len(x)))].mean(1) for x in (hits, correct)]
    tail = 50 * (1 - level)
    low, high = np.percentile((draws[0] + draws[1]) / 2, (tail, 100 - tail))
    sensitivity = clopper_pearson(int(hits.sum()), len(hits), level=level)
    specificity = clopper_pearson(int(correct.sum()), len(correct), level=level)
    value = (sensitivity.value + specificity.value) / 2
    # Without an error a bootstrap sees none; the exact bounds do.
    if low == high:
        low = (sensitivity.low + specificity.low) / 2
    return BalancedAccuracy(value, float(low), float(high), sensitivity, specificity)


def _roc(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[points, 2]: false and true positive rate at every score, from (0, 0) to (1, 1)."""
    edges = np.concatenate([[np.inf], np.unique(scores)[::-1]])
    called = scores[None, :] >= edges[:, None]
    return np.stack([called[:, ~labels].mean(1), called[:, labels].mean(1)], 1)
