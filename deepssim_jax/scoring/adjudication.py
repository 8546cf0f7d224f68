"""The rate of copies as readers see it, from a sample of pairs that is drawn within strata.

Contract: every image of a population is in one stratum, its label by the program; of each stratum a
simple random sample was read. The estimate is the stratified mean, which is the prediction-powered mean
(Angelopoulos et al., Science 382, 2023) of a stratified sample with the strata's own means as predictions.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from deepssim_jax.scoring.decide import clopper_pearson


@dataclasses.dataclass(frozen=True)
class Stratum:
    """Of `total` images with one label, `rated` were read, `copies` of them are copies, and on
    `undecided` the readers are divided.
    """

    name: str
    total: int
    rated: int
    copies: int
    undecided: int = 0


@dataclasses.dataclass(frozen=True)
class AdjudicatedRate:
    """A share in [0, 1] with its interval.

    Of undecided pairs a half counts in `value`, none in `low` and all in `high`.
    """

    value: float
    low: float
    high: float
    level: float
    rated: int
    undecided: int


def adjudicated_rate(strata: Sequence[Stratum], *, level: float = 0.95) -> AdjudicatedRate:
    """The share of copies that the source of these images makes.

    The interval holds the error of the sample that was read and that of the images at hand, as the
    program's own rate does. Its ends are put together from exact limits of each stratum by the MOVER
    (Zou, Huang and Zhang, Comput. Stat. Data Anal. 53, 2009), so that a stratum without a copy, where a
    normal interval has no width, keeps its upper limit. The shares of the strata add what a binomial
    interval of all images has, by the part of its variance that lies between strata. Where every image was
    read the interval is the exact binomial one.

    Args:
      strata: with at least one image each; empty ones are left out before.
      level: coverage of the interval.

    Raises:
      ValueError: no pair of a stratum was read, or there are no strata.
    """
    if not strata:
        raise ValueError("there is no stratum: an estimate needs at least one image")
    for stratum in strata:
        if not stratum.rated:
            raise ValueError(
                f"none of the {stratum.total:,} images that are called {stratum.name} was rated; rate some"
            )
    total = sum(stratum.total for stratum in strata)
    share = np.array([stratum.total / total for stratum in strata])
    rated = np.array([stratum.rated for stratum in strata])
    copies = np.array([stratum.copies for stratum in strata])
    undecided = np.array([stratum.undecided for stratum in strata])
    if rated.sum() == total:
        low = clopper_pearson(int(copies.sum()), total, level=level).low
        high = clopper_pearson(int((copies + undecided).sum()), total, level=level).high
    else:
        low = _end(share, copies, rated, total, level, upper=False)
        high = _end(share, copies + undecided, rated, total, level, upper=True)
    value = float((share * (copies + undecided / 2) / rated).sum())
    return AdjudicatedRate(value, low, high, level, int(rated.sum()), int(undecided.sum()))


def _end(
    share: np.ndarray,
    copies: np.ndarray,
    rated: np.ndarray,
    total: int,
    level: float,
    *,
    upper: bool,
) -> float:
    p = copies / rated
    mean = float((share * p).sum())
    exact = [clopper_pearson(int(x), int(n), level=level) for x, n in zip(copies, rated)]
    limits = np.array([x.high if upper else x.low for x in exact])
    squares = ((share * (limits - p)) ** 2).sum()
    if 0 < mean < 1:
        part = (share * (p - mean) ** 2).sum() / (mean * (1 - mean))
        tail, count = (1 - level) / 2, mean * total
        limit = (
            stats.beta.ppf(1 - tail, count + 1, max(total - count, 1e-9))
            if upper
            else stats.beta.ppf(tail, max(count, 1e-9), total - count + 1)
        )
        squares += part * (limit - mean) ** 2
    end = mean + (1 if upper else -1) * float(np.sqrt(squares))
    return min(max(end, 0.0), 1.0)
