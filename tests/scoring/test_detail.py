"""Partial correlation of aligned pairs, against an ordinary least-squares fit of NumPy."""

import numpy as np
import pytest
from scipy import ndimage

from deepssim_jax.ops.transform import Transform
from deepssim_jax.scoring import detail
from deepssim_jax.scoring.detail import BANDS, Common

SIDE = 64


def kind(count: int, seed: int) -> np.ndarray:
    """Images that share a bright frame and differ in texture, float32 [n, SIDE, SIDE]."""
    rng = np.random.default_rng(seed)
    frame = np.zeros((SIDE, SIDE), np.float32)
    frame[8:-8, 8:-8] = 6.0
    own = ndimage.gaussian_filter(rng.normal(size=(count, SIDE, SIDE)), (0, 1.5, 1.5)) * 4
    return (frame + own).astype(np.float32)


def unmoved(count: int) -> Transform:
    """The identity, once for each pair."""
    eye = np.broadcast_to(np.eye(2, dtype=np.float32), (count, 2, 2))
    return Transform.of(np.zeros(count, int), eye, np.zeros((count, 2), np.float32))


def correlate(common: Common, a: np.ndarray, b: np.ndarray, negative: bool = False) -> np.ndarray:
    return common.correlations(a, b, unmoved(len(a)), np.full(len(a), negative)).partial


def test_strangers_share_nothing_but_the_frame_and_a_noisy_copy_shares_more() -> None:
    real, others = kind(40, 0), kind(8, 1)
    common = Common.of(real)
    noisy = real[:8] + np.random.default_rng(2).normal(0, 2, (8, SIDE, SIDE)).astype(np.float32)
    strangers, copies = correlate(common, others, real[:8]), correlate(common, noisy, real[:8])
    assert np.abs(strangers).max() < 0.35
    assert copies.max(1).min() > 0.6
    plain = np.corrcoef(others[0].ravel(), real[0].ravel())[0, 1]
    assert plain > 0.7  # what the frame alone gives


def test_it_is_the_correlation_of_least_squares_residuals() -> None:
    real = kind(12, 0)
    common = Common.of(real)
    a, b = kind(1, 5), real[:1]
    found = correlate(common, a, b)[0]
    disc = np.asarray(detail.ellipsoid((SIDE, SIDE), radius=detail._DISC)).ravel()
    bands = [np.asarray(detail._described(x)[1])[0].astype(np.float64) for x in (a, b)]
    for band in range(BANDS):
        axes = common.axes[band].astype(np.float64)[:, disc]
        left = []
        for values in (bands[0][band][disc], bands[1][band][disc]):
            left.append(values - axes.T @ np.linalg.lstsq(axes.T, values, rcond=None)[0])
        cosine = left[0] @ left[1] / np.linalg.norm(left[0]) / np.linalg.norm(left[1])
        expected = np.arctanh(cosine) * np.sqrt(disc.mean())
        assert found[band] == pytest.approx(expected, abs=0.02)


def test_grey_levels_follow_the_mean_of_the_other_image_in_equal_parts() -> None:
    """By NumPy, where half of the frame is seen."""
    real, given = kind(1, 0)[0], kind(1, 5)[0]
    seen = np.zeros((SIDE, SIDE), np.float32)
    seen[:, : SIDE // 2] = 1
    step = SIDE * SIDE // detail._TONES
    order = np.sort(real.ravel())
    part = np.digitize(real, order[step::step][: detail._TONES - 1])
    mean = [given[(part == i) & (seen > 0)].mean() for i in range(detail._TONES)]
    expected = np.interp(real, order[step // 2 :: step][: detail._TONES], mean)
    found = detail._toned(real[None], given[None], seen.reshape(1, 1, -1))[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_copy_whose_bright_half_is_lost_agrees_far_more_than_unrelated_images() -> None:
    real, others = kind(40, 0), kind(8, 1)
    common = Common.of(real)
    cut = [np.minimum(x, np.quantile(x, 0.4)) for x in (real[:8], others)]
    copies, strangers = (correlate(common, x, real[:8]) for x in cut)
    assert copies.max(1).min() > 1.2 and np.abs(strangers).max() < 0.4
    assert not detail._has_lost(real).any() and detail._has_lost(np.stack(cut[0])).all()


def test_a_negative_is_turned_back_and_a_mirror_image_is_followed() -> None:
    real = kind(12, 0)
    common = Common.of(real)
    same = correlate(common, real[:2], real[:2])
    np.testing.assert_allclose(correlate(common, -real[:2], real[:2], True), same, atol=1e-3)
    eye = np.broadcast_to(np.eye(2, dtype=np.float32), (2, 2, 2))
    mirrored = Transform.of(np.ones(2, int), eye, np.zeros((2, 2), np.float32))
    turned = {
        flip: common.correlations(
            np.flip(real[:2], flip), real[:2], mirrored, np.zeros(2, bool)
        ).partial.min()
        for flip in (1, 2)
    }
    assert max(turned.values()) > 2


def test_one_image_makes_a_basis() -> None:
    assert Common.of(kind(1, 0)).axes.shape[0] == BANDS


def test_the_share_is_that_of_the_copied_part_and_noise_hardly_lowers_it() -> None:
    real, others = kind(40, 0), kind(6, 1)
    common, none = Common.of(real), np.zeros(6, bool)
    part = others.copy()
    part[:, :32] = real[:6, :32]
    noisy = real[:6] + np.random.default_rng(2).normal(0, 2, (6, SIDE, SIDE)).astype(np.float32)
    shares = [
        common.correlations(x, real[:6], unmoved(6), none).share for x in (real[:6], noisy, part)
    ]
    assert shares[0].min() == 1
    assert shares[1].min() > 0.6
    assert shares[1].mean() > 0.7
    assert 0.35 < shares[2].min() <= shares[2].max() < 0.68
