"""Laws of unrelated images, thresholds that doubles do not move, and many images at once."""

import numpy as np
import pytest
from scipy import stats

from deepssim_jax.scoring.evidence import (
    FALSE_DISCOVERIES,
    MOST_FALSE,
    GumbelLaw,
    LargestLaw,
    NormalLaw,
    either,
    false_discovery_cut,
)


def test_the_law_of_gumbel_values_is_found_again() -> None:
    values = stats.gumbel_r.rvs(0.7, 0.25, size=20_000, random_state=1)
    law = GumbelLaw.of(values)
    assert law.location == pytest.approx(0.7, abs=0.02)
    assert law.scale == pytest.approx(0.25, abs=0.02)
    assert law.threshold(1e-3) == pytest.approx(stats.gumbel_r.isf(1e-3, 0.7, 0.25), abs=0.1)
    assert law.p_values(np.array([law.threshold(0.01)])) == pytest.approx([0.01])


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_doubles_move_the_threshold_by_less_than_their_share(share: float) -> None:
    values = stats.gumbel_r.rvs(0.7, 0.25, size=2_000, random_state=2)
    doubled = values.copy()
    doubled[: int(share * len(values))] = 5.0
    clean, moved = (GumbelLaw.of(x).threshold(MOST_FALSE) for x in (values, doubled))
    assert 0 <= moved / clean - 1 < share


def test_a_normal_law_is_exceeded_at_the_probability_of_its_threshold() -> None:
    law = NormalLaw(1.0, 0.1, 30)
    assert law.p_values(np.array([law.threshold(1e-3)])) == pytest.approx([1e-3])


def test_the_law_of_the_largest_gives_back_what_it_was_drawn_from() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.05, (20_000, 8)).max(1)
    law = LargestLaw.of(values)
    assert (law.location, law.scale) == pytest.approx((0.1, 0.05), abs=2e-3)
    for p in (1e-2, 1e-5, 1e-9):
        assert law.p_values(np.array([law.threshold(p)])) == pytest.approx([p], rel=1e-4)
    assert (values > law.threshold(1e-2)).mean() == pytest.approx(1e-2, abs=2e-3)


def test_too_few_images_give_the_usual_law() -> None:
    few = GumbelLaw.of(np.zeros(3))
    assert few.count == 3 and 0.4 < few.threshold(MOST_FALSE) < 1


@pytest.mark.parametrize("images", [100, 1_000, 10_000])
def test_without_copies_an_audit_calls_anything_at_its_nominal_rate(images: int) -> None:
    rng = np.random.default_rng(images)
    audits = 400
    called = 0
    for _ in range(audits):
        p = either(rng.uniform(size=images), rng.uniform(size=images))
        called += bool((p <= false_discovery_cut(p)).any())
    assert stats.binomtest(called, audits, FALSE_DISCOVERIES, alternative="greater").pvalue > 0.001


def test_the_cut_rises_with_the_copies_and_never_above_the_most() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(size=1_000)
    none = false_discovery_cut(p)
    p[:100] = 1e-9
    some = false_discovery_cut(p)
    p[:900] = 1e-9
    assert none == FALSE_DISCOVERIES / 1_000 < some <= false_discovery_cut(p) == MOST_FALSE
    assert false_discovery_cut(np.zeros(0)) == MOST_FALSE
