"""The field's set-level figures on cases that can be computed by hand."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.methods import set_level


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


def test_all_figures_of_a_set_that_copies_and_of_one_that_does_not() -> None:
    """Features of a set of copies, slightly moved, and of new ones, beside distances by hand."""
    rng = np.random.default_rng(3)
    training, holdout, new = (
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in rng.normal(size=(3, 120, 16)).astype(np.float32)
    )
    moved = training[:60] + np.float32(0.01) * rng.normal(size=(60, 16)).astype(np.float32)
    copied = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    clean, copying = (set_level.set_figures(training, holdout, x) for x in (new, copied))
    away = np.linalg.norm(copied[:, None] - training[None], axis=2)
    between = np.linalg.norm(training[:, None] - training[None], axis=2) + 9 * np.eye(120)
    control = np.linalg.norm(holdout[:, None] - training[None], axis=2).min(1)
    ordered = np.sort(away, axis=1)[:, :50]
    assert copying.threshold == pytest.approx(np.quantile(1 - control**2 / 2, 0.95), abs=1e-5)
    assert copying.average_memorization == 1.0
    inside = 1 - away**2 / 2 >= copying.threshold
    assert copying.unique_memorization == inside.any(0).sum() / 60
    assert copying.lowest_extraction_ratio == pytest.approx(
        (ordered[:, 0] / (0.5 * ordered.mean(1))).min(), rel=1e-2
    )
    nearest_row = away.argmin(1)
    assert copying.authenticity == (between.min(1)[nearest_row] < away.min(1)).mean() == 0.0
    peer = stats.mannwhitneyu(away.min(1), control, use_continuity=False, method="asymptotic")
    assert copying.data_copying == pytest.approx(-stats.norm.isf(peer.pvalue / 2))
    assert copying.training_share.value == 1.0 and copying.generalization_gap < -50
    assert clean.average_memorization < 0.15 and abs(clean.generalization_gap) < 10
    assert clean.data_copying is not None and abs(clean.data_copying) < 3
    assert clean.training_share.low < 0.5 < clean.training_share.high
    assert clean.authenticity == pytest.approx(0.5, abs=0.15)
    assert set_level.set_figures(training, holdout, copied[:19]).data_copying is None


def test_frechet_of_known_normals() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((200_000, 2)), rng.standard_normal((200_000, 2))
    assert set_level.frechet(a, a) == pytest.approx(0.0, abs=1e-6)
    # |mean|^2 + sum (s_a - s_b)^2 of independent axes
    moved = b * np.array([2.0, 1.0]) + np.array([3.0, 0.0])
    assert set_level.frechet(a, moved) == pytest.approx(9 + 1, rel=0.02)
