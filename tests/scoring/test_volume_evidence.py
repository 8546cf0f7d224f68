"""Laws of unrelated volumes: what they are learned from, and what must not mislead them."""

import numpy as np
import pytest
from scipy import stats

from deepssim_jax.scoring.evidence import MOST_FALSE
from deepssim_jax.scoring.volume_evidence import ahead, law_of, scaled
from deepssim_jax.scoring.volume_search import Level


@pytest.mark.parametrize(
    ("level", "family"), [(Level.POINTS, stats.gumbel_r), (Level.VOXEL, stats.norm)]
)
def test_a_law_is_that_of_the_unrelated_volumes_though_half_have_a_second_scan(
    level: Level, family: stats.rv_continuous
) -> None:
    rng = np.random.default_rng(0)
    values = family.rvs(0.5, 0.2, size=4000, random_state=rng)
    truth = family.isf(MOST_FALSE, 0.5, 0.2)
    assert law_of(values, level).threshold(MOST_FALSE) == pytest.approx(truth, abs=0.1)
    # Of half of the patients a second scan lies there under another name.
    values[:2000] += 2.5
    found = law_of(values, level).threshold(MOST_FALSE)
    assert truth < found < 2.5


def test_few_volumes_get_the_usual_law_and_are_counted() -> None:
    law = law_of(np.full(7, 3.0), Level.VOXEL)
    assert law.count == 7
    assert law.threshold(MOST_FALSE) < 2


def test_evidence_has_a_scale_and_a_margin() -> None:
    np.testing.assert_allclose(scaled(np.array([np.e]), Level.POINTS), [1.0])
    np.testing.assert_allclose(scaled(np.array([0.5]), Level.VOXEL), np.arctanh([0.5]))
    assert np.isnan(scaled(np.array([np.nan]), Level.POINTS)).all()
    found = ahead(np.array([2.0, 2.0, 2.0]), np.array([1.0, np.nan, 3.0]))
    np.testing.assert_allclose(found, [2.5, 2.0, 2.0])
