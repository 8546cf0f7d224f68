"""From scores to statements: thresholds, intervals, p-values.

Contract: scores are verified scores in [-1, 1], NumPy arrays of any length. Thresholds come from
the real images alone: from how much images of different patients agree (the null) and from copies
planted in memory (the positives); the synthetic images never take part.
"""

import dataclasses

import numpy as np
from scipy import optimize, special, stats

from deepssim_jax.ops import arguments

# What is used when a set is too small to say: those that phantoms and films came to, see
# benchmarks/README.md. Fewer null images than this cannot show a 5 % tail.
MIN_NULL = 20
DEFAULT_NEAR, DEFAULT_EXACT = 0.86, 0.91
# The null's far tail: this many standard deviations above its median, were it normal.
_NULL_TAIL = 3.5
_Z75, _Z95 = float(stats.norm.ppf(0.75)), float(stats.norm.ppf(0.95))
# How far from the null's tail towards the copies the near threshold stands: nearer to the null,
# because locally changed copies lie between the two.
_STEP = 0.3
_LIMIT = 1.0 - 1e-5


@dataclasses.dataclass(frozen=True)
class Proportion:
    """A binomial proportion with its Clopper-Pearson interval, all in [0, 1].

    Examples:
      >>> import deepssim_jax as ds
      >>> share = ds.clopper_pearson(30, 120)
      >>> share.count, share.total, share.value
      (30, 120, 0.25)
    """

    value: float
    low: float
    high: float
    level: float
    count: int
    total: int


_MOST_TRIALS = 2**53  # all whole numbers up to this are numbers of 64 bits


def clopper_pearson(count: int, total: int, *, level: float = 0.95) -> Proportion:
    """Exact binomial interval (Clopper and Pearson, Biometrika 26, 1934).

    Args:
      count: successes, 0 <= count <= total.
      total: trials; with none the interval is [0, 1] and the value 0.
      level: coverage in (0, 1), two-sided.

    Raises:
      ValueError: if the count does not lie in [0, total] or the level not in (0, 1).

    Examples:
      >>> import deepssim_jax as ds
      >>> share = ds.clopper_pearson(0, 60)
      >>> f"{share.value:.0%}, at most {share.high:.1%}"
      '0%, at most 6.0%'
    """
    total = arguments.whole(total, "total", least=0, most=_MOST_TRIALS)
    count = arguments.whole(count, "count", least=0, most=total)
    ends = {"open_low": True, "open_high": True}
    level = arguments.number(level, "level", low=0, high=1, example=0.95, **ends)
    tail = (1.0 - level) / 2
    low = 0.0 if count == 0 else float(stats.beta.ppf(tail, count, total - count + 1))
    high = 1.0 if count == total else float(stats.beta.ppf(1 - tail, count + 1, total - count))
    return Proportion(count / total if total else 0.0, low, high, level, count, total)


def area_interval(
    area: float, positives: int, negatives: int, *, level: float = 0.95
) -> tuple[float, float]:
    """Interval of an area under a ROC curve (Newcombe, Stat. Med. 25, 2006, p. 559, method 5).

    It does not shrink to a point where the area is 0 or 1. All scores count as independent.

    Args:
      area: in [0, 1].
      positives: scores that should be high, at least 1.
      negatives: scores that should be low, at least 1.
      level: coverage in (0, 1), two-sided.
    """
    z, others = float(stats.norm.ppf((1 + level) / 2)), (positives + negatives) / 2 - 1

    def outside(truth: float) -> float:
        """Negative where `area` is no surprise."""
        spread = 1 + others * ((1 - truth) / (2 - truth) + truth / (1 + truth))
        variance = truth * (1 - truth) * spread / (positives * negatives)
        return (area - truth) ** 2 - z**2 * variance

    # At 0 and 1 the variance vanishes; what is looked for lies inside.
    inner = float(np.clip(area, 1e-9, 1 - 1e-9))
    low = 0.0 if area == 0 else optimize.root_scalar(outside, bracket=(0.0, inner)).root
    high = 1.0 if area == 1 else optimize.root_scalar(outside, bracket=(inner, 1.0)).root
    return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class ClusteredShare:
    """A share with an interval by bootstrap over clusters, all in [0, 1]."""

    value: float
    low: float
    high: float
    level: float
    clusters: int


def clustered_interval(
    hits: np.ndarray, clusters: np.ndarray, *, level: float = 0.95, seed: int = 0
) -> ClusteredShare:
    """A share whose trials come in clusters: images that show the same patient are no two trials.

    Percentiles of 2,000 draws of whole clusters with replacement (Davison and Hinkley, 1997,
    section 3.8); clusters of as many hits and trials are drawn together, so that memory does not grow with
    them. Without a hit, or with hits alone, draws know nothing: the exact binomial interval of as many
    trials as clusters takes their place.

    Args:
      hits: bool [n].
      clusters: int [n], for example the patient that each image is nearest to.
      level: coverage in (0, 1).
      seed: of the draws.
    """
    owner = np.unique(clusters, return_inverse=True)[1]
    count = int(owner.max()) + 1 if len(owner) else 0
    if not count:
        return ClusteredShare(0.0, 0.0, 1.0, level, 0)
    both = (np.bincount(owner, weights=w, minlength=count) for w in (hits, np.ones(len(hits))))
    (found, size), alike = np.unique(np.stack(list(both)), axis=1, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(count, alike / count, 2000)
    shares = (drawn @ found) / (drawn @ size)
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    value = float(np.mean(hits))
    if value in (0.0, 1.0):
        exact = clopper_pearson(count if value else 0, count, level=level)
        low, high = exact.low, exact.high
    return ClusteredShare(value, float(low), float(high), level, count)


def conformal_p_values(scores: np.ndarray, null: np.ndarray) -> np.ndarray:
    """P-value of each score: (1 + null scores at least as high) / (1 + null scores).

    Valid if, without copying, a synthetic image's best match were exchangeable with those of the
    held-out images in `null` (Vovk, Gammerman and Shafer, 2005, eq. 2.20, without smoothing).
    """
    ordered = np.sort(null)
    above = len(ordered) - np.searchsorted(ordered, scores, side="left")
    return (1.0 + above) / (1.0 + len(ordered))


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """Q-values: the smallest false discovery rate at which each would be rejected.

    Benjamini and Hochberg, J. R. Stat. Soc. B 57, 1995.
    """
    return stats.false_discovery_control(p_values, method="bh")


def benjamini_yekutieli(p_values: np.ndarray) -> np.ndarray:
    """Q-values that hold under any dependence of the tests (Benjamini and Yekutieli, Ann. Stat. 29,
    2001, theorem 1.3).
    """
    return stats.false_discovery_control(p_values, method="by")


@dataclasses.dataclass(frozen=True)
class Discoveries:
    """How many synthetic images are copies at a false discovery rate of `rate`, and what limits it.

    `independent` by Benjamini and Hochberg, `dependent` by Benjamini and Yekutieli. `smallest_p` is
    the smallest p-value that the held-out images allow; `holdout_for_one` is how many of them a
    single copy among these images would need to be significant.
    """

    rate: float
    independent: int
    dependent: int
    smallest_p: float
    holdout: int
    holdout_for_one: int


def discoveries(p_values: np.ndarray, *, holdout: int, rate: float = 0.05) -> Discoveries:
    """What the p-values of all synthetic images say at a false discovery rate.

    Args:
      p_values: of `conformal_p_values`, one a synthetic image.
      holdout: null scores that they were made from.
      rate: false discovery rate, in (0, 1).
    """
    return Discoveries(
        rate=rate,
        independent=int((benjamini_hochberg(p_values) <= rate).sum()),
        dependent=int((benjamini_yekutieli(p_values) <= rate).sum()),
        smallest_p=1 / (holdout + 1),
        holdout=holdout,
        # The smallest of n p-values is rejected where it is at most rate / n.
        holdout_for_one=int(np.ceil(len(p_values) / rate - 1e-9)) - 1,
    )


def exposure(copies: np.ndarray, total: int) -> tuple[tuple[int, float], ...]:
    """Expected number of distinct patients exposed, had fewer images been generated.

    Exact rarefaction (Hurlbert, Ecology 52, 1971, eq. 6): of g images drawn from `total`, a patient
    copied c times is among them with probability 1 - C(total - c, g) / C(total, g).

    Args:
      copies: int [patients], images that copy each exposed patient.
      total: synthetic images.

    Returns:
      (images, patients) for about 1, 2, 5, 10, ... images up to all of them.
    """
    if not len(copies):
        return ()
    steps = [k * 10**e for e in range(9) for k in (1, 2, 5) if k * 10**e < total]
    out = []
    for g in (*steps, total):
        rest = np.maximum(total - copies, g) - g  # C(n, g) is 0 where n < g
        missing = special.gammaln(total - copies + 1) - special.gammaln(rest + 1)
        missing -= special.gammaln(total + 1) - special.gammaln(total - g + 1)
        seen = np.where(total - copies < g, 1.0, -np.expm1(missing))
        # Rounding must not show more patients than images.
        out.append((int(g), min(float(seen.sum()), float(g))))
    return tuple(out)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Thresholds on the verified score and how they were found."""

    near: float
    exact: float
    origin: str
    separated: bool  # the positives' lower tail lies above the null's upper tail
    calibrated: bool  # False: the package's defaults


def upper_tail(z: np.ndarray) -> float:
    """How far a null of Fisher's z [n] reaches: 3.5 deviations above its median, or its largest value.

    Measured in the upper quarter, as a normal distribution has it, it is not misled by a second, lower
    mode: another contrast, say.
    """
    quarter, high = np.quantile(z, [0.75, 0.95])
    tail = quarter + (_NULL_TAIL - _Z75) / (_Z95 - _Z75) * (high - quarter)
    return max(float(tail), float(z.max()))


def calibrate(null: np.ndarray, exact: np.ndarray, near: np.ndarray) -> Calibration:
    """Chooses thresholds from the real side.

    In Fisher's z the near threshold lies 0.3 of the way from the null's upper tail (3.5 standard
    deviations above its median, judged by its upper quarter, or its largest value if higher and not
    itself a copy) to the planted copies' lower tail (the 2 % quantile of near copies where that is
    above the null's tail, else of exact ones); if these overlap too, at the null's tail, so that
    specificity is kept and the loss shows in the planted recall. The exact threshold is where planted
    exact and near copies are distinguished best (largest Youden index).

    Args:
      null: best-match scores of real images against other patients' images.
      exact: scores of planted exact copies with their originals.
      near: scores of planted near copies with their originals.

    Returns:
      The thresholds; the package's defaults if there are fewer than 20 null images or copies.
    """
    if min(len(null), len(exact), len(near)) < MIN_NULL:
        return Calibration(
            DEFAULT_NEAR,
            DEFAULT_EXACT,
            f"the package's defaults, because {len(null)} real images with another patient to "
            f"compare to are fewer than the {MIN_NULL} that a calibration needs",
            separated=True,
            calibrated=False,
        )
    z_null, z_exact, z_near = (np.arctanh(np.clip(x, -_LIMIT, _LIMIT)) for x in (null, exact, near))
    # Two files of one picture under two names sit among the copies; they are no null. Where more
    # than a few sit there, it is the null itself that reaches so far.
    genuine = z_null[z_null < np.quantile(z_exact, 0.02)]
    genuine = genuine if len(genuine) > 0.9 * len(z_null) else z_null
    null_high = upper_tail(genuine)
    # As low as the null allows: at near copies where they stand apart, else at exact ones.
    lows = [float(np.quantile(z, 0.02)) for z in (z_near, z_exact)]
    copies_low = next((low for low in lows if low > null_high), lows[1])
    separated = null_high < copies_low
    z_threshold = null_high + _STEP * (copies_low - null_high) if separated else null_high
    candidates = np.sort(np.concatenate([z_exact, z_near, [z_threshold]]))
    candidates = candidates[candidates >= z_threshold]
    youden = [(z_exact >= c).mean() - (z_near >= c).mean() for c in candidates]
    z_exact_threshold = float(candidates[int(np.argmax(youden))])
    return Calibration(
        float(np.tanh(z_threshold)),
        float(np.tanh(z_exact_threshold)),
        f"calibrated on this audit's real images: {len(null)} best matches between different "
        f"patients and {len(exact) + len(near)} copies planted in memory",
        separated=separated,
        calibrated=True,
    )
