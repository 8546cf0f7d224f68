"""Are two ways of doing something equally good? Statements about patients, not about images.

Contract: figures are float [n], one an image, of the same images under both ways; `patients` int [n].
Images of one patient are averaged first: they are no independent trials.
"""

import dataclasses

import numpy as np
from scipy import stats

_DRAWS = 4000


@dataclasses.dataclass(frozen=True)
class Equivalence:
    """How `other` differs from `reference`, in the figure's own unit.

    `low` and `high` bound the mean difference over patients (bootstrap). `p_equivalence` is small if
    the difference lies within the margin on both sides (TOST); `p_difference` is small if it is not
    zero, and says nothing when it is large.
    """

    difference: float
    low: float
    high: float
    level: float
    margin: float
    p_equivalence: float
    p_difference: float
    patients: int

    @property
    def equivalent(self) -> bool:
        """Whether equivalence is shown at 5 %."""
        return self.p_equivalence < 0.05


def by_patient(figures: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Mean figure of each patient, in the order of their numbers."""
    owner = np.unique(patients, return_inverse=True)[1]
    return np.bincount(owner, weights=figures) / np.bincount(owner)


def equivalence(
    reference: np.ndarray,
    other: np.ndarray,
    *,
    patients: np.ndarray,
    margin: float,
    level: float = 0.95,
    seed: int = 0,
) -> Equivalence:
    """Compares two ways on the same images.

    Two one-sided paired t-tests over patients (Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987) at
    -margin and +margin, of which the larger p-value counts; the interval is that of percentiles of
    4,000 draws of patients with replacement.

    Args:
      reference: [n] figures of the first way.
      other: [n] of the second.
      patients: int [n].
      margin: the largest difference that does not matter, more than 0.
      level: coverage of the interval, in (0, 1).
      seed: of the draws.

    Raises:
      ValueError: fewer than three patients, or a margin that is not positive.
    """
    if margin <= 0:
        raise ValueError(f"margin {margin} must be more than 0: what difference does not matter?")
    difference = by_patient(other, patients) - by_patient(reference, patients)
    count = len(difference)
    if count < 3:
        raise ValueError(
            f"{count} test patients are too few to compare: at least 3 are needed, and 20 to say much"
        )
    mean, error = difference.mean(), difference.std(ddof=1) / np.sqrt(count)
    draws = np.random.default_rng(seed).integers(0, count, (_DRAWS, count))
    low, high = np.quantile(difference[draws].mean(1), [(1 - level) / 2, (1 + level) / 2])
    if error == 0:  # the same answer for every patient
        inside, p_difference = float(abs(mean) >= margin), float(mean == 0)
    else:
        above = stats.t.sf((mean + margin) / error, count - 1)
        below = stats.t.cdf((mean - margin) / error, count - 1)
        inside = float(max(above, below))
        p_difference = float(2 * stats.t.sf(abs(mean) / error, count - 1))
    return Equivalence(
        float(mean), float(low), float(high), level, margin, inside, p_difference, count
    )
