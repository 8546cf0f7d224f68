"""The adjudicated rate against closed forms, and its interval's coverage by simulation."""

import numpy as np
import pytest
from scipy import stats

from deepssim_jax.scoring.adjudication import Stratum, adjudicated_rate
from deepssim_jax.scoring.decide import clopper_pearson


def test_one_stratum_has_the_exact_binomial_interval() -> None:
    found = adjudicated_rate([Stratum("all", 500, 60, 6)])
    exact = clopper_pearson(6, 60)
    assert (found.value, found.low, found.high) == pytest.approx((0.1, exact.low, exact.high))


def test_the_value_is_the_stratified_mean_and_the_prediction_powered_one() -> None:
    strata = [Stratum("copy", 100, 50, 45), Stratum("other", 900, 90, 1)]
    # Prediction-powered: the mean prediction, and what readers correct of it in the sample, by weight.
    predictions, weights = np.array([1.0, 0.0]), np.array([0.1, 0.9])
    correction = (weights * (np.array([45 / 50, 1 / 90]) - predictions)).sum()
    assert adjudicated_rate(strata).value == pytest.approx(
        (weights * predictions).sum() + correction
    )


def test_all_read_has_the_exact_binomial_interval_and_nearly_all_about_that() -> None:
    exact = clopper_pearson(300, 1000)
    found = adjudicated_rate([Stratum("copy", 300, 300, 300), Stratum("other", 700, 700, 0)])
    assert (found.value, found.low, found.high) == (0.3, exact.low, exact.high)
    found = adjudicated_rate([Stratum("copy", 300, 300, 300), Stratum("other", 700, 699, 0)])
    assert found.value == 0.3
    assert found.low == pytest.approx(exact.low, abs=0.002) and found.low <= exact.low
    assert found.high == pytest.approx(exact.high, abs=0.002) and found.high >= exact.high


def test_large_samples_have_the_normal_interval_of_two_phases() -> None:
    """Cochran, Sampling Techniques, 1977, eq. 12.9: within strata, and between them."""
    share, p, n, total = np.array([0.3, 0.7]), np.array([0.8, 0.1]), np.array([4000, 6000]), 40000
    strata = [
        Stratum(str(i), int(w * total), int(k), int(round(q * k)))
        for i, (w, q, k) in enumerate(zip(share, p, n))
    ]
    mean = (share * p).sum()
    variance = (share**2 * p * (1 - p) / n).sum() + (share * (p - mean) ** 2).sum() / total
    half = stats.norm.ppf(0.975) * np.sqrt(variance)
    found = adjudicated_rate(strata)
    assert found.high - mean == pytest.approx(half, rel=0.03)
    assert mean - found.low == pytest.approx(half, rel=0.03)


@pytest.mark.parametrize(
    ("flagged", "precision", "missed", "sizes"),
    [
        (0.05, 0.9, 0.0, (50, 100)),
        (0.05, 0.9, 0.01, (50, 100)),
        (0.3, 0.6, 0.05, (80, 120)),
        (0.02, 1.0, 0.002, (100, 100)),
    ],
)
def test_the_interval_covers_the_truth(flagged, precision, missed, sizes) -> None:
    """1,500 audits of 2,000 images of a generator whose rate is known."""
    rng, total, covered, trials = np.random.default_rng(0), 2000, 0, 1500
    truth = flagged * precision + (1 - flagged) * missed
    for _ in range(trials):
        count = rng.binomial(total, flagged)
        strata = []
        for name, size, p, most in (
            ("copy", count, precision, sizes[0]),
            ("other", total - count, missed, sizes[1]),
        ):
            copies, n = rng.binomial(size, p), min(most, size)
            if n:
                drawn = rng.hypergeometric(copies, size - copies, n)
                strata.append(Stratum(name, int(size), int(n), int(drawn)))
        found = adjudicated_rate(strata)
        covered += found.low <= truth <= found.high
    # Exact limits are conservative; three standard errors of the simulation below the level fail.
    assert covered / trials >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials)


def test_undecided_pairs_widen_the_interval() -> None:
    sure = adjudicated_rate([Stratum("all", 300, 100, 10)])
    open_ = adjudicated_rate([Stratum("all", 300, 100, 10, undecided=10)])
    assert open_.value == 0.15 and open_.undecided == 10
    assert open_.low == sure.low
    assert open_.high == adjudicated_rate([Stratum("all", 300, 100, 20)]).high


def test_a_stratum_that_nobody_read_is_refused() -> None:
    with pytest.raises(ValueError, match="called unrelated was rated"):
        adjudicated_rate([Stratum("copy", 5, 5, 5), Stratum("unrelated", 95, 0, 0)])
