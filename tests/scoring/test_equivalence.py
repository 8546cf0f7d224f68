"""TOST against statsmodels and SciPy, and what it promises on simulated data."""

import numpy as np
import pytest
from scipy import stats

from deepssim_jax.scoring.equivalence import by_patient, equivalence


def simulated(seed: int, *, shift: float, patients: int = 25) -> tuple[np.ndarray, ...]:
    """Three images a patient; images of one patient differ alike."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), 3)
    base = rng.normal(30, 2, patients)[owner]
    effect = rng.normal(shift, 0.4, patients)[owner]
    return base, base + effect + rng.normal(0, 0.1, len(owner)), owner


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.45])
def test_p_values_are_those_of_statsmodels(shift: float) -> None:
    weightstats = pytest.importorskip(
        "statsmodels.stats.weightstats", reason="statsmodels is not installed"
    )
    a, b, owner = simulated(1, shift=shift)
    found = equivalence(a, b, patients=owner, margin=0.5)
    one, other = by_patient(a, owner), by_patient(b, owner)
    assert found.p_equivalence == pytest.approx(
        weightstats.ttost_paired(other, one, -0.5, 0.5)[0], rel=1e-9
    )


def test_p_values_are_those_of_scipy() -> None:
    a, b, owner = simulated(2, shift=0.2)
    found = equivalence(a, b, patients=owner, margin=0.5)
    one, other = by_patient(a, owner), by_patient(b, owner)
    assert found.p_difference == pytest.approx(stats.ttest_rel(other, one).pvalue, rel=1e-9)
    sides = [
        stats.ttest_rel(other, one - 0.5, alternative="greater").pvalue,
        stats.ttest_rel(other, one + 0.5, alternative="less").pvalue,
    ]
    assert found.p_equivalence == pytest.approx(max(sides), rel=1e-9)
    assert found.difference == pytest.approx((other - one).mean())
    assert found.patients == 25


def test_it_is_rarely_claimed_where_the_difference_is_the_margin() -> None:
    claims = [
        equivalence(a, b, patients=owner, margin=0.5).equivalent
        for a, b, owner in (simulated(seed, shift=0.5) for seed in range(400))
    ]
    # 5 % of 400 within four binomial deviations; by image instead of by patient it would be more.
    assert np.mean(claims) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean(claims) > 0.01


def test_intervals_cover_and_large_p_values_show_nothing() -> None:
    covered, undecided = [], 0
    for seed in range(300):
        a, b, owner = simulated(seed, shift=0.15)
        found = equivalence(a, b, patients=owner, margin=0.2)
        covered.append(found.low <= 0.15 <= found.high)
        undecided += found.p_difference > 0.05 and not found.equivalent
    assert 0.88 <= np.mean(covered) <= 0.98  # percentiles of 25 patients are a little narrow
    assert undecided > 50  # no difference found, and no equivalence either


def test_the_same_answer_for_everyone_and_too_few_patients() -> None:
    ones, owner = np.ones(6), np.arange(6)
    same = equivalence(ones, ones, patients=owner, margin=0.1)
    assert (same.p_equivalence, same.p_difference) == (0.0, 1.0) and same.equivalent
    moved = equivalence(ones, ones + 1, patients=owner, margin=0.1)
    assert (moved.p_equivalence, moved.p_difference) == (1.0, 0.0)
    with pytest.raises(ValueError, match="2 test patients are too few"):
        equivalence(ones, ones, patients=owner // 3, margin=0.1)
    with pytest.raises(ValueError, match="margin -1"):
        equivalence(ones, ones, patients=owner, margin=-1)
