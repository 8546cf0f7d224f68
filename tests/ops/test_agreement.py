"""What the verified score must and must not react to."""

import jax
import numpy as np
from scipy import ndimage

from deepssim_jax.ops.agreement import Agreement, agreement
from deepssim_jax.ops.intensity import zscore


def pictures(n: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((n, 128, 128))
    mixed = sum(s * ndimage.gaussian_filter(noise, (0, s, s)) for s in (2, 5, 12))
    return np.asarray(zscore(mixed))


@jax.jit
def _compared(a: np.ndarray, b: np.ndarray, region: np.ndarray) -> Agreement:
    return agreement(a, b, region, core=region)


def compare(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> Agreement:
    """Always of six pairs, the last one repeated, so that one program serves all tests."""
    region = np.ones(a.shape, bool) if mask is None else mask
    six = np.minimum(np.arange(6), len(a) - 1)
    found = _compared(*(x[six] for x in (a.astype(np.float32), b.astype(np.float32), region)))
    return jax.tree.map(lambda x: np.asarray(x)[: len(a)], found)


def score(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(compare(a, b).score)


def test_identity_is_one_and_a_linear_change_nearly_so() -> None:
    a = pictures(3, 0)
    np.testing.assert_allclose(score(a, a), 1.0, atol=1e-6)
    assert score(1.7 * a + 3, a).min() > 0.99


def test_structure_of_correlated_noise_is_its_correlation() -> None:
    """White noise has the same correlation in every window, so Linfoot's formula gives it back."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4, 128, 128))
    for r in (0.8, 0.9, 0.97):
        mixed = r * a + np.sqrt(1 - r**2) * b
        # A window of 49 smoothed pixels overestimates small correlations a little, hence the width.
        np.testing.assert_allclose(compare(mixed, a).structure, r, atol=0.06)


def test_copies_stand_above_local_changes_and_those_above_strangers() -> None:
    a, other = pictures(6, 0), pictures(6, 7)
    noisy = a + 0.1 * np.random.default_rng(2).standard_normal(a.shape)
    changed = a.copy()
    changed[:, 40:80, 40:80] = other[:, 40:80, 40:80]
    copies, near, strangers = score(noisy, a), score(changed, a), score(other, a)
    assert copies.min() > near.max() > near.min() > strangers.max()


def test_noise_leaves_the_change_score_and_one_small_change_takes_it() -> None:
    a = pictures(4, 0)
    noisy = a + 0.3 * np.random.default_rng(2).standard_normal(a.shape)
    changed = a.copy()
    changed[:, 56:68, 56:68] = a[:, 20:32, 90:102]  # one hundredth of the area
    assert compare(noisy, a).unchanged.min() > compare(changed, a).unchanged.max() + 0.1


def test_only_the_mask_counts() -> None:
    a = pictures(2, 0)
    spoiled = a.copy()
    spoiled[:, :, 100:] = 50.0
    mask = np.ones(a.shape, bool)
    mask[:, :, 90:] = False
    found = compare(a[:, :, :], np.where(mask, spoiled, a), mask).score
    assert np.asarray(found).min() > 0.99


def test_flat_images_are_finite() -> None:
    flat = np.zeros((1, 128, 128), np.float32)
    assert np.isfinite(score(flat, flat)).all() and np.isfinite(score(flat, pictures(1, 0))).all()


def test_what_a_range_cut_off_is_no_change_and_what_was_put_there_is() -> None:
    a = pictures(4, 0)
    cut = np.clip(a, -1.0, 1.2)  # a quarter of the pixels lie beyond
    spotted = a.copy()
    spotted[:, 56:66, 56:66] = 4.0  # six thousandths of the area
    assert compare(cut, a).unchanged.min() > 0.8
    assert compare(np.clip(spotted, -1.0, 1.2), a).unchanged.max() < 0.5
