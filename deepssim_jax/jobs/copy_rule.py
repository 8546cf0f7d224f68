"""When two images of one folder are copies, by what unrelated images of that folder reach.

Contract: pairs are rows of `PAIR` that local features have placed. Evidence is relative to a query's other
candidates and follows a law that is learned from the folder; points are absolute, and tell copies from
what is only alike: neighbouring slices, other films of a patient, other contrasts.
"""

import dataclasses
from typing import ClassVar

import numpy as np

from deepssim_jax.scoring.evidence import GumbelLaw, NormalLaw, false_discovery_cut

# Below the first no pair is called alike, whatever the folder's own law says, and below the second none
# a copy by its points: two films of one patient were seen to reach 1.5 and 31 points.
LEAST_EVIDENCE, _COPY_EVIDENCE = 1.1, 1.3
# Points from which a pair is a copy. Where a quarter of the images have a look-alike, such as a
# neighbouring slice, it is this many times what that quarter reaches; the most alike of 300 slices of
# lung CT reach 53 points, 3.3 times, and of brain MR at 1 mm 69, 4.3 times.
_LEAST_POINTS, _MOST_POINTS, _TIMES = 25.0, 80.0, 4.5
# With so high a verified score, which neighbouring slices and other films do not reach (0.90), fewer do.
_SURE_SCORE, _SURE_POINTS = 0.92, 20.0


@dataclasses.dataclass(frozen=True)
class Rule:
    """From which `evidence` a pair is alike, and from which `points` it can be a copy; `law` is that of
    unrelated images.
    """

    law: GumbelLaw | NormalLaw
    evidence: float
    points: float
    least_evidence: ClassVar[float]

    @property
    def copy_evidence(self) -> float:
        """From which a pair can be a copy."""
        return max(self.evidence, self.least_evidence)

    @property
    def limits(self) -> dict[str, float]:
        """From what a pair is a copy, by name."""
        return {"evidence": self.copy_evidence, "points": self.points}

    def p_value(self, evidence: float) -> float:
        """The probability of as much evidence without a copy."""
        return float(self.law.p_values(np.array([evidence]))[0])

    @property
    def chance(self) -> float:
        """The probability at which an unrelated image reaches `copy_evidence`."""
        return self.p_value(self.copy_evidence)

    def whole(self, pairs: np.ndarray) -> np.ndarray:
        """Bool [n]: which copies are of the whole image, so that a copy of one is a copy of the other."""
        raise NotImplementedError

    def alike(self, pairs: np.ndarray) -> np.ndarray:
        """Bool [n]: more alike than unrelated images are."""
        return pairs["evidence"] >= self.evidence


@dataclasses.dataclass(frozen=True)
class CopyRule(Rule):
    """Of images: with few points a pair is a copy by its verified score."""

    law: GumbelLaw
    least_evidence = _COPY_EVIDENCE

    @classmethod
    def of(cls, pairs: np.ndarray, unrelated: np.ndarray, *, count: int, rate: float) -> "CopyRule":
        """From a folder searched against itself.

        Args:
          pairs: of `audit.self_join`.
          unrelated: evidence of unrelated images [m].
          count: images in all.
          rate: of false discoveries among images called copies.
        """
        law = GumbelLaw.of(unrelated)
        best = _best(pairs, "evidence", count, start=-np.inf)
        cut = false_discovery_cut(law.p_values(best), rate=rate)
        rule = cls(law, max(law.threshold(cut), LEAST_EVIDENCE), _LEAST_POINTS)
        # What is surely a copy, or beyond the points of look-alikes, is none of them.
        others = pairs[~rule.sure(pairs) & (pairs["points"] < _MOST_POINTS)]
        quarter = float(np.quantile(_best(others, "points", count, start=0.0), 0.75))
        least = float(np.clip(_TIMES * quarter, _LEAST_POINTS, _MOST_POINTS))
        return dataclasses.replace(rule, points=least)

    @property
    def limits(self) -> dict[str, float]:
        """Also the score and the points that are enough where images are alike (`alike`)."""
        return super().limits | {"sure_score": _SURE_SCORE, "sure_points": _SURE_POINTS}

    def whole(self, pairs: np.ndarray) -> np.ndarray:
        """By the verified score, which parts and collages do not reach."""
        return pairs["verified"] >= _SURE_SCORE

    def sure(self, pairs: np.ndarray) -> np.ndarray:
        """Bool [n]: copies by their verified score."""
        high = (pairs["verified"] >= _SURE_SCORE) & (pairs["points"] >= _SURE_POINTS)
        return self.alike(pairs) & high

    def copies(self, pairs: np.ndarray) -> np.ndarray:
        """Bool [n]: which pairs are copies."""
        enough = pairs["evidence"] >= self.copy_evidence
        return self.sure(pairs) | (enough & (pairs["points"] >= self.points))


def score_of(row: np.void) -> float | None:
    """The verified score of one row of `PAIR`; None where there was nothing to verify.

    Of pairs of few points pixels are not compared, and of those that share less than a quarter of the
    image, such as a part and its collage, no score says anything.
    """
    score = float(row["verified"])
    return None if score in (-1.0, 0.0) else score


def _best(pairs: np.ndarray, field: str, count: int, *, start: float) -> np.ndarray:
    """float64 [count]: the largest value of each image's pairs, or `start`."""
    out = np.full(count, start)
    for side in ("query", "reference"):
        np.maximum.at(out, pairs[side], pairs[field])
    return out
