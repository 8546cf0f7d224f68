"""What evidence is worth: the law of unrelated images, thresholds from it, and many images at once.

Contract: evidence of a query is a number, larger for a copy; its law among unrelated images is learned
from real images and other patients' real images, by quantiles that a few unknown copies among them
hardly move. Evidence of local features follows Gumbel's law, as the largest of many does (Coles, 2001,
section 3.1), put through the 10 to 50 % quantiles; partial correlations that of the largest of a few
normal numbers, put through the same. `scoring.volume_evidence` says through which those of volumes go.
"""

import dataclasses

import numpy as np
import scipy  # whose parts load when they are first used

# What phantoms and radiographs came to, where fewer images than MIN_NULL can say.
MIN_NULL = 20
_USUAL = (0.20, 0.08)
_USUAL_PARTIAL = (0.0, 0.25)
# Of texture without a common structure nearly all unrelated images have none: a law is never narrower.
_LEAST_SCALE, _LEAST_PARTIAL = 0.04, 0.02
# About so many candidates of a query are looked at.
_CANDIDATES = 8
# Quantiles that a law is put through; unknown copies among the unrelated images fill those above.
_SHARES = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
# A law of images of n people is made wider by 1 + this / sqrt(n): its scale is known no better, and an
# error of it grows with the distance at which thresholds lie.
_UNSURE = 2.0
# Of unrelated images not more than this share may be called copies, however many there are.
MOST_FALSE = 0.005
# Another image of a patient, such as a film of another day, shows the same bones: some points match, near to
# where the map puts them. Points of a copy lie exactly there; those of a strongly bent one farther away
# than another image's, and more of them match.
_LOOSE, _EXACT, _FEW = 0.24, 0.55, 1.3
# So do points that noise or JPEG moved, but these take fine detail first and leave the agreement even: of
# another image less than this share of the tiles agrees, and its fine band by at least this share of the
# coarse one. Its partial correlation is above those of unrelated images, but below twice the threshold.
_EVEN, _FINE, _OTHER_COUNTS = 0.9, 0.5, 0.5
# Local features found the same place as the way that agrees best if the pixels agree there by this share.
_SAME_PLACE = 0.5
FALSE_DISCOVERIES = 0.05


def _fitted(
    values: np.ndarray, place: np.ndarray, people: int | None, *, least: float
) -> tuple[float, float]:
    """Location and scale by which the standard law's quantiles `place` become those of the values."""
    quantiles = np.quantile(values, _SHARES)
    scale = max(float(np.polyfit(place, quantiles, 1)[0]), least)
    scale *= 1 + _UNSURE / np.sqrt(len(values) if people is None else people)
    return float(quantiles[-1] - scale * place[-1]), scale


@dataclasses.dataclass(frozen=True)
class GumbelLaw:
    """Gumbel's law by `location` and `scale`, learned of `count` unrelated images."""

    location: float
    scale: float
    count: int

    @classmethod
    def of(cls, values: np.ndarray, *, people: int | None = None) -> "GumbelLaw":
        """From the evidence of unrelated images [n]; the usual law where they are too few."""
        if len(values) < MIN_NULL:
            return cls(*_USUAL, len(values))
        return cls(
            *_fitted(values, scipy.stats.gumbel_r.ppf(_SHARES), people, least=_LEAST_SCALE),
            len(values),
        )

    def p_values(self, values: np.ndarray) -> np.ndarray:
        """The probability of as much evidence without a copy, float64 [n]."""
        place = (np.asarray(values, np.float64) - self.location) / self.scale
        return -np.expm1(-np.exp(-place))  # `stats.gumbel_r.sf`, which takes long to load

    def threshold(self, p: float) -> float:
        """The evidence that unrelated images exceed with probability p."""
        return float(scipy.stats.gumbel_r.isf(p, self.location, self.scale))


@dataclasses.dataclass(frozen=True)
class LargestLaw:
    """That of the largest of _CANDIDATES normal numbers of `location` and `scale`.

    Learned of `count` unrelated images. Between a normal law and Gumbel's, as the partial correlations of
    films, fundi and histology are.
    """

    location: float
    scale: float
    count: int

    @classmethod
    def of(cls, values: np.ndarray, *, people: int | None = None) -> "LargestLaw":
        """From partial correlations of unrelated images [n]; the usual law where they are too few."""
        if len(values) < MIN_NULL:
            return cls(*_USUAL_PARTIAL, len(values))
        place = scipy.stats.norm.ppf(_SHARES ** (1 / _CANDIDATES))
        return cls(*_fitted(values, place, people, least=_LEAST_PARTIAL), len(values))

    def p_values(self, values: np.ndarray) -> np.ndarray:
        """The probability of as large a correlation without a copy, float64 [n]."""
        below = scipy.stats.norm.logcdf(np.asarray(values, np.float64), self.location, self.scale)
        return -np.expm1(_CANDIDATES * below)

    def threshold(self, p: float) -> float:
        """What unrelated images exceed with probability p."""
        # 1 - (1 - p)^(1 / n), exact for small p.
        one = -np.expm1(np.log1p(-p) / _CANDIDATES)
        return float(scipy.stats.norm.isf(one, self.location, self.scale))


@dataclasses.dataclass(frozen=True)
class NormalLaw:
    """A normal law by `location` and `scale`, learned of `count` unrelated images."""

    location: float
    scale: float
    count: int

    def p_values(self, values: np.ndarray) -> np.ndarray:
        """The probability of as high a score without a copy, float64 [n]."""
        return scipy.stats.norm.sf(np.asarray(values, np.float64), self.location, self.scale)

    def threshold(self, p: float) -> float:
        """Fisher's z that unrelated images exceed with probability p."""
        return float(scipy.stats.norm.isf(p, self.location, self.scale))


def other_images(evidence: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Bool [n]: pairs placed by local features that lie as two images of one patient do, not as copies."""
    return (evidence < _FEW) & (exact > _LOOSE) & (exact < _EXACT)


def pair_keys(queries: np.ndarray, others: np.ndarray) -> np.ndarray:
    """One int64 for each query with another number."""
    return queries.astype(np.int64) << 32 | others.astype(np.int64)


def partial_for_copy(pairs: np.ndarray) -> np.ndarray:
    """The partial correlations that say that a pair is a copy, float32 [n, BANDS].

    Where fine detail agrees, points of a copy lie exactly. Where they lie as those of two images of one
    patient do, and neither noise nor compression explains it, half of the partial correlations count: both
    knees of a person, and radiographs of two days, stay below the thresholds so.

    Args:
      pairs: of `scoring.match`, all that were found; a pair may have been found in several ways.
    """
    partial = pairs["partial"].copy()
    if not len(pairs):
        return partial
    _, pair = np.unique(pair_keys(pairs["query"], pairs["reference"]), return_inverse=True)
    best = partial.max(1)
    loose = pairs["by_points"] & other_images(pairs["evidence"], pairs["exact"])
    at_points = np.full(pair.max() + 1, -np.inf)
    np.maximum.at(at_points, pair[loose], best[loose])
    other = at_points[pair] >= _SAME_PLACE * best
    other &= (pairs["share"] < _EVEN) & (partial[:, 0] >= _FINE * partial[:, -1])
    partial[other] *= _OTHER_COUNTS
    return partial


def false_discovery_cut(p_values: np.ndarray, *, rate: float = FALSE_DISCOVERIES) -> float:
    """The p-value up to which images are called copies.

    The step-up rule of Benjamini and Hochberg (J. R. Stat. Soc. B 57, 1995) at `rate`: where nothing
    is a copy, the probability that anything is called one is at most `rate`, whatever the number of
    images. Never more than MOST_FALSE.

    Args:
      p_values: float [n], one an image.
      rate: of false ones among those called copies, in (0, 1).
    """
    if not 0.0 < rate < 1.0:
        raise ValueError(f"rate {rate} must lie in (0, 1), for example {FALSE_DISCOVERIES}")
    n = len(p_values)
    if not n:
        return MOST_FALSE
    steps = rate * np.arange(1, n + 1) / n
    below = np.flatnonzero(np.sort(p_values) <= steps)
    return float(min(steps[below[-1]] if len(below) else steps[0], MOST_FALSE))


def either(*p_values: np.ndarray) -> np.ndarray:
    """P-values of several kinds of evidence together, each [n]: the smallest by their number (Bonferroni).

    What exceeds 1 is kept, so that no order is lost.
    """
    return len(p_values) * np.minimum.reduce(p_values)
