"""The field's set-level figures on cases that can be computed by hand."""

import numpy as np
import pytest
from scipy import stats

from deepssim_jax.scoring import set_level


def test_memorization_shares_count_what_lies_in_the_band() -> None:
    best = np.array([0.2, 0.5, 0.55, 0.9])
    assert set_level.average_memorization(best, low=0.5, high=0.6) == 0.5
    # Pairs with training images 3, 3, 7 and 9; the band holds two of image 3 and the one of 7.
    found = set_level.unique_memorization(
        np.array([3, 3, 7, 9]), np.array([0.7, 0.8, 0.75, 0.1]), low=0.6, high=1.0, generated=4
    )
    assert found == 2 / 4


def test_an_extracted_image_has_a_small_ratio() -> None:
    distances = np.array([[0.1, 1.0, 1.9], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(set_level.extraction_ratio(distances), [0.1 / 0.5, 2.0])


def test_authenticity_asks_the_real_images_neighbour() -> None:
    """Real images at 0, 1 and 10 on a line; synthetic ones at 0.1 (a copy of 0) and 7."""
    spacing = np.array([1.0, 1.0, 9.0])
    # 0.1 lies 0.1 from image 0, whose neighbour is 1 away: not authentic. 7 lies 3 from image 10,
    # whose neighbour is 9 away: not authentic either. 2.5 lies 1.5 from image 1: authentic.
    found = set_level.authenticity(np.array([0.1, 3.0, 1.5]), spacing, np.array([0, 2, 1]))
    assert found == pytest.approx(1 / 3)


def test_data_copying_is_the_z_score_of_mann_whitney() -> None:
    rng = np.random.default_rng(0)
    synthetic, holdout = rng.uniform(0, 1, 40), rng.uniform(0.3, 1.3, 50)
    cells = np.zeros(40, int), np.zeros(50, int)
    found = set_level.data_copying(
        synthetic, holdout, synthetic_cells=cells[0], holdout_cells=cells[1]
    )
    peer = stats.mannwhitneyu(synthetic, holdout, use_continuity=False, method="asymptotic")
    assert found == pytest.approx(-stats.norm.isf(peer.pvalue / 2))
    assert found < -2
    with pytest.raises(ValueError, match="fewer cells"):
        set_level.data_copying(
            synthetic, holdout, synthetic_cells=cells[0], holdout_cells=cells[1], fewest=45
        )


def test_training_share_counts_ties_half() -> None:
    found = set_level.training_share(np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 2.0, 2.0, 5.0]))
    assert found.ties == 1 and found.share.value == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert (found.share.count, found.share.total) == (2, 3)
