"""Intervals, p-values and thresholds against closed forms, SciPy and simulation."""

import numpy as np
import pytest
from scipy import stats

from deepssim_jax.scoring import decide


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # Zero found is not zero: 1 - 0.025 ** (1 / n); the symmetric case all of n.
    [(0, 1000, 0.0, 1 - 0.025 ** (1 / 1000)), (50, 50, 0.025 ** (1 / 50), 1.0)],
)
def test_clopper_pearson_at_the_ends(count: int, total: int, low: float, high: float) -> None:
    found = decide.clopper_pearson(count, total)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(("count", "total"), [(3, 17), (37, 10000), (250, 500)])
def test_clopper_pearson_equals_scipy(count: int, total: int) -> None:
    theirs = stats.binomtest(count, total).proportion_ci(0.95, method="exact")
    ours = decide.clopper_pearson(count, total)
    assert (ours.low, ours.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))


def test_clopper_pearson_covers_at_its_level() -> None:
    rng = np.random.default_rng(0)
    truth = 0.07
    hits = [
        (ci := decide.clopper_pearson(int(x), 80)).low <= truth <= ci.high
        for x in rng.binomial(80, truth, 500)
    ]
    assert np.mean(hits) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 500)


def test_no_trials_know_nothing() -> None:
    found = decide.clopper_pearson(0, 0)
    assert (found.low, found.high) == (0.0, 1.0)


def test_conformal_p_values_by_hand() -> None:
    null = np.array([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(
        decide.conformal_p_values(np.array([0.5, 0.4, 0.25, 0.0]), null),
        [1 / 5, 2 / 5, 3 / 5, 5 / 5],
    )


def test_conformal_p_values_are_valid_under_the_null() -> None:
    rng = np.random.default_rng(1)
    p = np.concatenate(
        [
            decide.conformal_p_values(rng.standard_normal(5), rng.standard_normal(99))
            for _ in range(400)
        ]
    )
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p <= level) <= level + 3 * np.sqrt(level * (1 - level) / 400)


@pytest.mark.parametrize(
    ("adjust", "harmonic"), [(decide.benjamini_hochberg, False), (decide.benjamini_yekutieli, True)]
)
def test_q_values_reject_what_the_step_up_rule_rejects(adjust, harmonic: bool) -> None:
    """By the rule's own words: the k smallest, with the largest k whose p-value is at most k rate / n."""
    p = np.random.default_rng(2).uniform(size=50) ** 2
    penalty = sum(1 / i for i in range(1, 51)) if harmonic else 1.0
    for rate in (0.01, 0.05, 0.2, 0.5, 0.9):
        ranks = [k for k, x in enumerate(np.sort(p), start=1) if x * penalty <= k * rate / 50]
        assert (adjust(p) <= rate).sum() == max(ranks, default=0)
    assert adjust(np.zeros(0)).shape == (0,)


def scores(mean: float, count: int, seed: int) -> np.ndarray:
    return np.tanh(np.random.default_rng(seed).normal(mean, 0.12, count)).astype(np.float32)


def test_thresholds_lie_between_what_is_apart() -> None:
    null, exact, near = scores(1.0, 200, 0), scores(3.0, 80, 1), scores(2.2, 80, 2)
    found = decide.calibrate(null, exact, near)
    assert found.calibrated and found.separated
    assert null.max() < found.near < near.min()
    assert np.mean(exact >= found.exact) > 0.95 and np.mean(near >= found.exact) < 0.05


def test_overlap_keeps_specificity_and_is_said() -> None:
    null, copies = scores(1.0, 200, 0), scores(1.2, 80, 1)
    found = decide.calibrate(null, copies, copies)
    assert not found.separated
    assert np.mean(null >= found.near) < 0.02


def test_a_picture_filed_under_two_names_does_not_move_the_threshold() -> None:
    null, exact, near = scores(1.0, 200, 0), scores(3.0, 80, 1), scores(2.2, 80, 2)
    doubled = np.concatenate([null, np.ones(4, np.float32)])
    clean, dirty = decide.calibrate(null, exact, near), decide.calibrate(doubled, exact, near)
    assert dirty.near == pytest.approx(clean.near, abs=0.005)


def test_too_few_images_give_the_defaults_and_say_so() -> None:
    found = decide.calibrate(scores(1.0, 5, 0), scores(3.0, 5, 1), scores(2.0, 5, 2))
    assert not found.calibrated and "5 real images" in found.origin


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1])
def test_realised_false_discoveries_stay_below_their_rate(share: float) -> None:
    """200 simulated audits of 500 images with 999 held-out ones."""
    rng, wrong, found = np.random.default_rng(2), [], 0
    for _ in range(200):
        copies = rng.random(500) < share
        scores = rng.normal(size=500) + 8 * copies
        p = decide.conformal_p_values(scores, rng.normal(size=999))
        called = decide.benjamini_hochberg(p) <= 0.05
        wrong.append((called & ~copies).sum() / max(called.sum(), 1))
        found += int((called & copies).sum())
    error = np.std(wrong) / np.sqrt(len(wrong))
    assert np.mean(wrong) <= 0.05 + 3 * error
    if share == 0.1:  # where there is something to find, it is found
        assert found > 0.9 * 200 * 500 * share


def test_what_limits_discoveries_is_said() -> None:
    null = np.zeros(99)
    p = decide.conformal_p_values(np.array([1.0] * 3 + [-1.0] * 197), null)
    found = decide.discoveries(p, holdout=99)
    assert (found.independent, found.smallest_p, found.holdout_for_one) == (0, 0.01, 3999)
    enough = decide.conformal_p_values(np.array([1.0] + [-1.0] * 199), np.zeros(3999))
    assert decide.discoveries(enough, holdout=3999).independent == 1
    one_less = decide.conformal_p_values(np.array([1.0] + [-1.0] * 199), np.zeros(3998))
    assert decide.discoveries(one_less, holdout=3998).independent == 0


def test_exposure_is_the_expectation_over_draws() -> None:
    copies, total = np.array([1, 1, 5, 40]), 100
    found = dict(decide.exposure(copies, total))
    assert found[100] == pytest.approx(4.0)
    assert found[1] == pytest.approx(copies.sum() / total)
    owner = np.concatenate([np.repeat(np.arange(4), copies), np.full(53, -1)])
    rng = np.random.default_rng(0)
    drawn = [len(set(rng.permutation(owner)[:20]) - {-1}) for _ in range(4000)]
    assert found[20] == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(4000))
    assert decide.exposure(np.array([], int), 10) == ()


def test_an_areas_interval_covers_and_does_not_vanish_at_the_ends() -> None:
    low, high = decide.area_interval(1.0, 10, 5)
    assert 0.5 < low < 0.9 and high == 1.0
    assert decide.area_interval(0.0, 5, 10) == pytest.approx((0.0, 1 - low))
    wide, narrow = (np.diff(decide.area_interval(0.7, n, n))[0] for n in (20, 2000))
    assert narrow < 0.04 < 0.25 < wide
    rng, shift, covered = np.random.default_rng(0), 0.8, []
    truth = stats.norm.cdf(shift / np.sqrt(2))
    for _ in range(600):
        area = (rng.standard_normal((40, 1)) + shift > rng.standard_normal((1, 25))).mean()
        low, high = decide.area_interval(float(area), 40, 25)
        covered.append(low <= truth <= high)
    assert 0.93 <= np.mean(covered) <= 0.99
