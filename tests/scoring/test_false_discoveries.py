"""Simulated audits: the error rates that are stated hold.

Scores of unrelated images are exchangeable with those of held-out ones, copies score higher. Every
bound below is the nominal level plus what a binomial of the simulations' number allows by chance.
"""

import numpy as np
import pytest
from scipy import stats

from deepssim_jax.scoring import decide

AUDITS, SYNTHETIC, HOLDOUT, RATE = 200, 400, 8_000, 0.05


def audit(rng: np.random.Generator, share: float) -> tuple[np.ndarray, np.ndarray]:
    """p-values of one audit, and which images are copies."""
    copies = rng.random(SYNTHETIC) < share
    scores = rng.normal(0, 1, SYNTHETIC) + 6 * copies
    return decide.conformal_p_values(scores, rng.normal(0, 1, HOLDOUT)), copies


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("adjust", [decide.benjamini_hochberg, decide.benjamini_yekutieli])
def test_the_false_discovery_rate_is_kept(adjust, share: float) -> None:
    rng = np.random.default_rng(int(100 * share))
    proportions, found = [], 0
    for _ in range(AUDITS):
        p_values, copies = audit(rng, share)
        rejected = adjust(p_values) <= RATE
        proportions.append((rejected & ~copies).sum() / max(rejected.sum(), 1))
        found += int((rejected & copies).sum())
    error = np.std(proportions, ddof=1) / np.sqrt(AUDITS)
    assert np.mean(proportions) <= RATE + 2.6 * error
    if share == 0:  # any rejection is false: the rate is that of audits with one
        bound = stats.binom.ppf(0.995, AUDITS, RATE) / AUDITS
        assert np.mean(np.array(proportions) > 0) <= bound
    elif adjust is decide.benjamini_hochberg:  # the other pays for its generality by its power
        assert found > 0.9 * share * AUDITS * SYNTHETIC


def test_p_values_are_uniform_without_copies() -> None:
    """Each audit gives one p-value here: those of one audit share their held-out images."""
    rng = np.random.default_rng(1)
    p_values = [
        decide.conformal_p_values(rng.normal(size=1), rng.normal(size=999))[0] for _ in range(2000)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5])
def test_intervals_cover_at_least_at_their_level(share: float) -> None:
    rng = np.random.default_rng(2)
    counts = rng.binomial(200, share, 1000)
    intervals = [decide.clopper_pearson(int(c), 200) for c in counts]
    covered = np.mean([i.low <= share <= i.high for i in intervals])
    assert covered >= 0.95 - 2.6 * np.sqrt(0.95 * 0.05 / 1000)


def test_a_clustered_interval_is_wider_where_copies_come_from_few_patients() -> None:
    """Forty copies of one patient are one event, forty of forty patients are forty."""
    hits = np.arange(400) < 40
    alone = decide.clustered_interval(hits, np.where(hits, 0, np.arange(400)), level=0.95)
    spread = decide.clustered_interval(hits, np.arange(400), level=0.95)
    exact = decide.clopper_pearson(40, 400)
    assert alone.value == spread.value == 0.1
    assert alone.high - alone.low > 1.5 * (spread.high - spread.low)
    assert abs(spread.low - exact.low) < 0.02 and abs(spread.high - exact.high) < 0.02


def test_clustered_intervals_cover() -> None:
    """Patients have rates of their own: the binomial interval fails, the clustered one holds."""
    rng = np.random.default_rng(3)
    covered, naive = 0, 0
    for trial in range(200):
        rates = rng.beta(0.4, 1.6, 60)  # mean 0.2
        clusters = np.repeat(np.arange(60), 15)
        hits = rng.random(900) < rates[clusters]
        found = decide.clustered_interval(hits, clusters, level=0.95, seed=trial)
        covered += found.low <= 0.2 <= found.high
        plain = decide.clopper_pearson(int(hits.sum()), 900)
        naive += plain.low <= 0.2 <= plain.high
    assert covered / 200 >= 0.9 > naive / 200
